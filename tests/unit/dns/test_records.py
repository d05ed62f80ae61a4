"""Records by the specification, section by section."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.dns.model import LONGEST_DOMAIN, ClusterDomain, RecordSet, reverse_name
from haneul.dns.records import ingress_records, merged, pod_records, service_records, version_records
from haneul.kernel.errors import InvalidInputError
from haneul.kernel.kube import Manifest
from tests.unit.dns.objects import endpoint, headless, ingress, pod, service, slice_of

DOMAIN = ClusterDomain.of("first", "Corp.Example")


def lines(records: list[RecordSet]) -> set[str]:
    """Return the records as a zone file has them, without TTLs."""
    return {f"{one.name} {one.type} {value}" for one in records for value in one.values}


def of_service(manifest: Manifest, *slices: Manifest) -> set[str]:
    return lines(service_records(manifest, slices, DOMAIN))


class TestSchemaVersion:
    """Section 2.2."""

    def test_the_version_is_a_text_below_the_domain(self) -> None:
        assert lines(version_records(DOMAIN)) == {'dns-version.first.corp.example. TXT "1.1.0"'}


class TestServiceWithAddress:
    """Section 2.3."""

    def test_address_named_port_and_pointer(self) -> None:
        assert of_service(service("web", "10.3.0.1")) == {
            "web.shop.svc.first.corp.example. A 10.3.0.1",
            "_http._tcp.web.shop.svc.first.corp.example. SRV 0 100 80 web.shop.svc.first.corp.example.",
            "1.0.3.10.in-addr.arpa. PTR web.shop.svc.first.corp.example.",
        }

    def test_both_families(self) -> None:
        found = of_service(service("web", "10.3.0.1", "FD00::a", ports=[]))
        assert "web.shop.svc.first.corp.example. A 10.3.0.1" in found
        assert "web.shop.svc.first.corp.example. AAAA fd00::a" in found
        assert f"a.{'0.' * 27}0.0.d.f.ip6.arpa. PTR web.shop.svc.first.corp.example." in found
        assert len(found) == 4

    def test_unnamed_ports_have_no_srv_record(self) -> None:
        found = of_service(service("web", "10.3.0.1", ports=[{"port": 80}]))
        assert not any(" SRV " in line for line in found)

    def test_each_named_port_by_its_protocol(self) -> None:
        ports = [{"name": "dns", "protocol": "UDP", "port": 53}, {"name": "dns-tcp", "port": 53}]
        found = {line.split()[0] for line in of_service(service("web", "10.3.0.1", ports=ports)) if " SRV " in line}
        assert found == {
            "_dns._udp.web.shop.svc.first.corp.example.",
            "_dns-tcp._tcp.web.shop.svc.first.corp.example.",
        }

    def test_without_an_address_yet_there_is_nothing(self) -> None:
        assert of_service(service("web")) == set()
        assert of_service(service("web", clusterIP="")) == set()

    def test_its_endpoints_do_not_matter(self) -> None:
        alone = service("web", "10.3.0.1")
        assert of_service(alone, slice_of("web", endpoint("10.4.0.1", hostname="pet"))) == of_service(alone)


class TestLoadBalancer:
    """A name of ours, as the specification has none."""

    def test_once_it_has_an_address_outside_it_has_a_name_for_that_too(self) -> None:
        asked = service("web", "10.3.0.1", type="LoadBalancer")
        own = ClusterDomain(DOMAIN.name, networks=("10.3.0.0/24",))
        inner = lines(service_records(asked, [], own))
        assert not any(".lb." in line for line in inner)
        asked["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}, {"hostname": "nowhere.example"}]}}
        assert lines(service_records(asked, [], own)) - inner == {
            "web.shop.lb.first.corp.example. A 192.0.2.10",
            "_http._tcp.web.shop.lb.first.corp.example. SRV 0 100 80 web.shop.lb.first.corp.example.",
        }

    def test_one_without_addresses_inside_has_the_name_outside_alone(self) -> None:
        asked = headless("db", type="LoadBalancer", ports=[])
        asked["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}]}}
        own = ClusterDomain(DOMAIN.name, networks=("10.3.0.0/24",))
        assert lines(service_records(asked, [], own)) == {"db.shop.lb.first.corp.example. A 192.0.2.10"}

    def test_what_is_none_has_no_such_name(self) -> None:
        plain = service("web", "10.3.0.1")
        plain["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}]}}
        assert not any(".lb." in line for line in of_service(plain))


class TestHeadlessService:
    """Section 2.4."""

    def test_ready_endpoints_by_service_and_by_hostname(self) -> None:
        piece = slice_of(
            "db",
            endpoint("10.4.0.1", hostname="db-0"),
            endpoint("10.4.0.2", ready=None),
            endpoint("10.4.0.3", ready=False),
        )
        db = "db.shop.svc.first.corp.example."
        assert of_service(headless(), piece) == {
            f"{db} A 10.4.0.1",
            f"{db} A 10.4.0.2",
            f"db-0.{db} A 10.4.0.1",
            f"10-4-0-2.{db} A 10.4.0.2",
            f"_http._tcp.{db} SRV 0 100 8080 db-0.{db}",
            f"_http._tcp.{db} SRV 0 100 8080 10-4-0-2.{db}",
            f"1.0.4.10.in-addr.arpa. PTR db-0.{db}",
            f"2.0.4.10.in-addr.arpa. PTR 10-4-0-2.{db}",
        }

    def test_without_a_ready_endpoint_the_name_is_not_there(self) -> None:
        assert of_service(headless()) == set()
        assert of_service(headless(), slice_of("db", endpoint("10.4.0.1", ready=False))) == set()

    def test_unready_endpoints_are_published_for_services_that_ask_for_it(self) -> None:
        piece = slice_of("db", endpoint("10.4.0.1", ready=False))
        found = of_service(headless(publishNotReadyAddresses=True), piece)
        assert "db.shop.svc.first.corp.example. A 10.4.0.1" in found

    def test_one_hostname_of_several_addresses(self) -> None:
        pieces = [
            slice_of("db", endpoint("10.4.0.1", hostname="pet"), name="one"),
            slice_of("db", endpoint("10.4.0.2", hostname="pet"), endpoint("fd00::1", hostname="pet"), name="two"),
        ]
        found = [line for line in of_service(headless(), *pieces) if line.startswith("pet.")]
        assert sorted(line.split(maxsplit=1)[1] for line in found) == ["A 10.4.0.1", "A 10.4.0.2", "AAAA fd00::1"]

    def test_unnamed_ports_have_no_srv_record(self) -> None:
        pieces = [slice_of("db", endpoint("10.4.0.1"), ports=ports) for ports in ([{"port": 1}], [])]
        assert not any(" SRV " in line for line in of_service(headless(), *pieces))

    def test_endpoints_that_are_names_are_left_out(self) -> None:
        assert of_service(headless(), slice_of("db", endpoint("db.example.com"))) == set()


class TestExternalName:
    """Section 2.5."""

    @pytest.mark.parametrize("target", ["www.Example.com", "www.example.com."])
    def test_an_alias(self, target: str) -> None:
        manifest = service("www", type="ExternalName", externalName=target)
        assert of_service(manifest) == {"www.shop.svc.first.corp.example. CNAME www.example.com."}

    @pytest.mark.parametrize("target", ["", "a..b", "a" * 64])
    def test_what_is_no_name_is_no_alias(self, target: str) -> None:
        assert of_service(service("www", type="ExternalName", externalName=target)) == set()


class TestPods:
    """Section 2.6."""

    def test_by_address(self) -> None:
        assert lines(pod_records(pod("web-1", "10.4.0.1", "fd00::1"), DOMAIN)) == {
            "10-4-0-1.shop.pod.first.corp.example. A 10.4.0.1",
            "fd00--1.shop.pod.first.corp.example. AAAA fd00::1",
        }

    def test_pods_without_address_and_ended_ones_have_none(self) -> None:
        assert pod_records(pod("web-1"), DOMAIN) == []
        for phase in ("Succeeded", "Failed"):
            assert pod_records(pod("web-1", "10.4.0.1", phase=phase), DOMAIN) == []


def test_an_address_of_two_services_points_to_both() -> None:
    piece = endpoint("10.4.0.1", hostname="db-0")
    both = [*service_records(headless("db"), [slice_of("db", piece)], DOMAIN)]
    both += service_records(headless("all"), [slice_of("all", piece)], DOMAIN)
    pointers = [one for one in merged(both).values() if one.type == "PTR"]
    assert [one.values for one in pointers] == [
        ("db-0.all.shop.svc.first.corp.example.", "db-0.db.shop.svc.first.corp.example.")
    ]


def test_only_a_cluster_s_own_addresses_point_back() -> None:
    own = ClusterDomain(DOMAIN.name, networks=("10.4.0.0/16", "10.3.0.0/24"))
    slices = [slice_of("db", endpoint("10.4.0.1"), endpoint("10.128.16.1"))]
    found = lines(
        [*service_records(headless("db"), slices, own), *service_records(service("web", "10.3.0.1"), [], own)]
    )
    pointers = {line.split()[0] for line in found if " PTR " in line}
    assert pointers == {"1.0.4.10.in-addr.arpa.", "1.0.3.10.in-addr.arpa."}
    assert "db.shop.svc.first.corp.example. A 10.128.16.1" in found


@pytest.mark.parametrize(("cluster", "zone"), [("a.b", "corp"), ("", "corp"), ("first", ""), ("first", "x" * 40)])
def test_domains_that_cannot_be(cluster: str, zone: str) -> None:
    with pytest.raises(InvalidInputError):
        ClusterDomain.of(cluster, zone)


LABEL = st.from_regex(r"[a-zA-Z]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?", fullmatch=True)
ADDRESS = st.ip_addresses().map(str)
ENDPOINT = st.builds(
    lambda addresses, host, ready: endpoint(*addresses, hostname=host, ready=ready),
    st.lists(ADDRESS, min_size=1, max_size=3),
    st.one_of(st.just(""), LABEL),
    st.sampled_from([True, False, None]),
)
PORT = st.fixed_dictionaries(
    {"port": st.integers(1, 65535)},
    optional={
        "name": st.from_regex(r"[a-z]([-a-z0-9]{0,13}[a-z0-9])?", fullmatch=True),
        "protocol": st.sampled_from(["TCP", "UDP", "SCTP"]),
    },
)


@st.composite
def services(draw: Any) -> tuple[Manifest, list[Manifest]]:
    name, namespace = draw(LABEL), draw(LABEL)
    addresses = draw(st.one_of(st.just(["None"]), st.lists(ADDRESS, max_size=2)))
    made = service(name, *addresses, namespace=namespace, ports=draw(st.lists(PORT, max_size=3)))
    slices = [
        slice_of(name, *endpoints, namespace=namespace, name=str(number), ports=draw(st.lists(PORT, max_size=3)))
        for number, endpoints in enumerate(draw(st.lists(st.lists(ENDPOINT, max_size=3), max_size=3)))
    ]
    return made, slices


@given(services())
def test_whatever_a_cluster_has_its_records_hold_together(made: tuple[Manifest, list[Manifest]]) -> None:
    manifest, slices = made
    domain = ClusterDomain("d" * (LONGEST_DOMAIN - 5) + ".test.")
    records = service_records(manifest, slices, domain)
    addresses = {one.name: one for one in records if one.type in ("A", "AAAA")}
    assert len({one.key for one in records}) == len(records)
    for one in records:
        assert one.name == one.name.lower()
        assert len(one.name.removesuffix(".")) <= 253 - len("_haneul-cname.")
        assert all(0 < len(label) <= 63 for label in one.name.removesuffix(".").split("."))
        assert one.values == tuple(sorted(set(one.values)))
        if one.type == "SRV":
            # Whoever follows a service record finds an address.
            assert {value.split()[-1] for value in one.values} <= addresses.keys()
        if one.type == "PTR":
            for target in one.values:
                pointed = [value for found in records if found.name == target for value in found.values]
                assert one.name in {reverse_name(value) for value in pointed}
        if one.type in ("A", "AAAA"):
            assert all((ipaddress.ip_address(value).version == 6) == (one.type == "AAAA") for value in one.values)


@given(services(), st.randoms())
def test_the_order_of_things_does_not_matter(made: tuple[Manifest, list[Manifest]], chance: Any) -> None:
    manifest, slices = made
    shuffled = list(slices)
    chance.shuffle(shuffled)
    before, after = (service_records(manifest, pieces, DOMAIN) for pieces in (slices, shuffled))
    assert sorted(before) == sorted(after)


class TestIngress:
    """Hosts of the cluster's own domain, where the object's status says that they are served."""

    def test_hosts_have_the_addresses_of_the_status(self) -> None:
        made = ingress("Web.first.corp.example", "*.apps.first.corp.example", served_at=["10.198.0.1", "2001:db8::1"])
        assert lines(ingress_records(made, DOMAIN)) == {
            "web.first.corp.example. A 10.198.0.1",
            "web.first.corp.example. AAAA 2001:db8::1",
            "*.apps.first.corp.example. A 10.198.0.1",
            "*.apps.first.corp.example. AAAA 2001:db8::1",
        }

    @pytest.mark.parametrize(
        "host",
        [
            "first.corp.example",
            "web.other.corp.example",
            "web.prod.svc.first.corp.example",
            "10-0-0-1.prod.pod.first.corp.example",
            "web.prod.lb.first.corp.example",
            "dns-version.first.corp.example",
            "a..first.corp.example",
            "-.first.corp.example",
            'a"b.first.corp.example',
            "",
        ],
    )
    def test_other_hosts_have_none(self, host: str) -> None:
        assert ingress_records(ingress(host, served_at=["10.198.0.1"]), DOMAIN) == []

    def test_what_is_served_nowhere_has_none(self) -> None:
        assert ingress_records(ingress("web.first.corp.example"), DOMAIN) == []
        assert ingress_records(ingress("web.first.corp.example", served_at=["lb.example"]), DOMAIN) == []
