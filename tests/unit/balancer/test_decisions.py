"""What a cluster's Services get, and what each is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from haneul.balancer.allocation import NONE_LEFT, OUTSIDE
from haneul.balancer.decisions import (
    BALANCED,
    NO_MEMBERS,
    NOT_SUPPORTED,
    REFUSED,
    WRONG_SETTING,
    Decision,
    Verdict,
    View,
    decide,
    refused,
)
from haneul.balancer.members import Targets
from haneul.balancer.model import (
    Abilities,
    Algorithm,
    Frontend,
    Listener,
    Member,
    Options,
    Present,
    Protocol,
    ProxyProtocol,
)
from haneul.kernel.kube import Manifest
from haneul.kernel.kube_objects import Place
from tests.unit.balancer.objects import endpoint, node, port, service, site, slice_of

OWNER, OTHER = "first/1", "second/2"
TCP_ONLY = Abilities(protocols=frozenset({Protocol.TCP}))
POD = Member("10.1.0.1", 8080)
HTTP = Listener("192.0.2.10", Protocol.TCP, 80)


def view(*services: Manifest, nodes: Sequence[Manifest] = ()) -> View:
    names = [one["metadata"]["name"] for one in services]
    return View(services, [slice_of(name, endpoint("10.1.0.1")) for name in names], nodes)


def decided(*services: Manifest, present: Sequence[Frontend] = (), owner: str = OWNER, **more: Any) -> Decision:
    there = {one.listener: Present(one, owner) for one in present}
    return decide(view(*services), there, OWNER, site(**more))


def told(decision: Decision, name: str = "web") -> Verdict:
    return decision.verdicts[Place("Service", "shop", name)]


def test_a_service_gets_a_listener_for_each_port() -> None:
    ports = [port(), port(8443, name="http"), port(53, protocol="UDP")]
    decision = decided(service(ports=ports))
    assert set(decision.frontends) == {
        HTTP,
        Listener("192.0.2.10", Protocol.TCP, 8443),
        Listener("192.0.2.10", Protocol.UDP, 53),
    }
    assert decision.frontends[HTTP] == Frontend(HTTP, "shop/web", Options(), (POD,))
    # Its UDP port has nothing behind it: the slice speaks of TCP.
    assert (told(decision).reason, told(decision).address) == (NO_MEMBERS, "192.0.2.10")
    assert "53/UDP" in told(decision).message


def test_a_service_that_is_served_as_it_asks() -> None:
    verdict = told(decided(service()))
    assert (verdict.balanced, verdict.reason, verdict.address) == (True, BALANCED, "192.0.2.10")


@pytest.mark.parametrize(
    "other",
    [
        service(type="ClusterIP"),
        service(loadBalancerClass="example.com/other"),
        {**service(), "metadata": {**service()["metadata"], "deletionTimestamp": "2026-11-27T12:00:00Z"}},
    ],
)
def test_services_that_are_not_ours(other: Manifest) -> None:
    assert decided(other) == Decision({}, {})


def test_services_of_a_class() -> None:
    ours = service("ours", loadBalancerClass="haneul.dev/balancer")
    decision = decided(ours, service("others"), load_balancer_class="haneul.dev/balancer")
    assert list(decision.verdicts) == [Place("Service", "shop", "ours")]


def test_one_that_is_wrong_takes_no_other_along() -> None:
    decision = decided(
        service("wrong", annotations={"algorithm": "fastest"}),
        service("outside", annotations={"address": "198.51.100.1"}),
        service("sctp", ports=[port(protocol="SCTP")]),
        service("none", ports=[port()]),
        service("web"),
    )
    assert told(decision).balanced
    assert {name: told(decision, name).reason for name in ("wrong", "outside", "sctp")} == {
        "wrong": WRONG_SETTING,
        "outside": OUTSIDE,
        "sctp": NOT_SUPPORTED,
    }
    assert all(told(decision, name).address == "" for name in ("wrong", "outside", "sctp"))
    assert {one.service for one in decision.frontends.values()} == {"shop/web", "shop/none"}


def test_wrong_settings_leave_a_served_one_as_it_was_set_with_its_members_of_now() -> None:
    options = Options(Algorithm.RANDOM)
    before = Frontend(replace(HTTP, address="192.0.2.12"), "shop/web", options, (Member("10.1.0.9", 8080),))
    decision = decided(service(annotations={"algorithm": "fastest", "address": "192.0.2.11"}), present=[before])
    assert list(decision.frontends.values()) == [replace(before, members=(POD,))]
    verdict = told(decision)
    assert (verdict.balanced, verdict.reason, verdict.address) == (False, WRONG_SETTING, "192.0.2.12")
    assert "as it was set before" in verdict.message


def test_what_the_balancer_cannot_do_is_told_and_the_rest_is_done() -> None:
    both = service(ports=[port(), port(53, protocol="UDP")])
    decision = decided(both, abilities=TCP_ONLY)
    assert list(decision.frontends) == [HTTP]
    verdict = told(decision)
    assert (verdict.reason, verdict.address) == (NOT_SUPPORTED, "192.0.2.10")
    assert [(slot.port, error) for slot, error in verdict.errors] == [(53, NOT_SUPPORTED)]

    plain = Abilities(algorithms=frozenset({Algorithm.SOURCE}), proxy_protocol=False)
    wants = service(annotations={"proxy-protocol": "v2"})
    verdict = told(decided(wants, abilities=plain))
    assert verdict.reason == WRONG_SETTING
    assert "PROXY protocol" in verdict.message
    before = Frontend(HTTP, "shop/web", Options(Algorithm.SOURCE), (POD,))
    assert list(decided(wants, present=[before], abilities=plain).frontends.values()) == [before]
    assert "algorithm" in verdict.message


def test_addresses_of_other_clusters_are_not_given() -> None:
    foreign = Frontend(HTTP, "shop/web", Options())
    decision = decided(service(), present=[foreign], owner=OTHER)
    assert told(decision).address == "192.0.2.11"
    assert told(decided(service(ingress="192.0.2.10"), present=[foreign], owner=OTHER)).address == "192.0.2.11"


@pytest.mark.parametrize("said", ["2001:DB8::80", "192.0.2.010", "192.0.2.10/32", "x", ""])
def test_whatever_a_status_says_nothing_of_others_is_given(said: str) -> None:
    foreign = Frontend(HTTP, "shop/web", Options())
    decision = decided(service(ingress=said), present=[foreign], owner=OTHER)
    assert told(decision).address == "192.0.2.11"


def test_a_restart_changes_nothing() -> None:
    services = [service(f"s{number}", created=str(number)) for number in range(4)]
    first = decided(*services)
    again = decided(*services, present=list(first.frontends.values()))
    assert again == first
    # Without its oldest, whether the balancer is asked or the Services' status alone.
    addresses = {place.name: verdict.address for place, verdict in first.verdicts.items()}
    for decision in (
        decided(*services[1:], present=list(first.frontends.values())),
        decided(*(service(f"s{number}", ingress=addresses[f"s{number}"]) for number in range(1, 4))),
    ):
        found = {place.name: verdict.address for place, verdict in decision.verdicts.items()}
        assert found == {name: address for name, address in addresses.items() if name != "s0"}


def test_more_services_than_addresses() -> None:
    decision = decided(*(service(f"s{number}") for number in range(5)))
    assert [one.reason for one in decision.verdicts.values()].count(NONE_LEFT) == 1


def test_nothing_behind_it_says_why() -> None:
    strange = decide(View([service()], [slice_of("web", endpoint("127.0.0.1"))]), {}, OWNER, site(targets=Targets.PODS))
    assert "127.0.0.1" in told(strange).message
    portless = decide(View([service()], [], [node("n1", "10.0.0.1")]), {}, OWNER, site(targets=Targets.NODES))
    assert "node ports" in told(portless).message
    assert told(decide(View([service()]), {}, OWNER, site())).reason == NO_MEMBERS


def test_members_need_not_be_told_the_clients_address_by_nodes() -> None:
    assert told(decided(service(annotations={"proxy-protocol": "v1"}))).proxied
    assert decided(service(annotations={"proxy-protocol": "v1"})).frontends[HTTP].options == Options(
        proxy_protocol=ProxyProtocol.V1
    )


def test_a_listener_that_cannot_be_takes_neither_its_neighbours_nor_others_along() -> None:
    decision = decided(service(ports=[port(), port(81, name="http")], created="1"), service("other", created="2"))
    first = refused(decision, HTTP, "192.0.2.10:80 cannot be opened")
    verdict = told(first)
    assert (verdict.reason, verdict.address, verdict.balanced) == (REFUSED, "192.0.2.10", False)
    assert len(first.frontends) == 2
    second = refused(first, replace(HTTP, port=81), "nor this one")
    assert (told(second).address, len(told(second).errors)) == ("", 2)
    assert told(second, "other") == told(decision, "other")


@pytest.mark.parametrize("number", [0, 65536, "80", None])
def test_a_service_whose_port_is_none(number: object) -> None:
    decision = decided(service(ports=[{**port(), "port": number}]))
    assert (decision.frontends, told(decision).reason) == ({}, NOT_SUPPORTED)
