"""What the management cluster is made with, as reviewed files."""

import contextlib
import os
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from haneul.host.services import HostService
from haneul.host.systemd import render_unit
from haneul.kernel.errors import HostNotReadyError, InvalidInputError
from haneul.management import cilium, kubeadm, name_server, runtime
from haneul.management.certificates import STATIC_PODS
from haneul.management.settings import ManagementSettings

Golden = Callable[[str, str], None]
SETTINGS = ManagementSettings(address="192.0.2.2", host_name="node-1")
ON_SYSTEMD = replace(SETTINGS, systemd=True, restrict_oom_score=True, state=Path("/srv/haneul"))


def dumped(*documents: Any) -> str:
    return str(yaml.safe_dump_all(documents, sort_keys=False))


@pytest.mark.parametrize(("name", "settings"), [("plain", SETTINGS), ("systemd", ON_SYSTEMD)])
def test_container_runtime(golden: Golden, name: str, settings: ManagementSettings) -> None:
    golden(
        f"containerd-{name}.toml", runtime.containerd_configuration(settings, pause_image="haneul.local/pause:v3.10")
    )


@pytest.mark.parametrize(("name", "settings"), [("plain", SETTINGS), ("systemd", ON_SYSTEMD)])
def test_kubeadm_and_kubelet(golden: Golden, name: str, settings: ManagementSettings) -> None:
    golden(f"kubeadm-{name}.yaml", kubeadm.configuration(settings, kubernetes="1.37.2", etcd="3.7.0"))


def test_patches_of_static_pods(golden: Golden) -> None:
    digests = {name: f"digest-of-{name}" for name in STATIC_PODS}
    golden("kubeadm-patches.yaml", "---\n".join(f"# {name}\n{text}" for name, text in kubeadm.patches(digests).items()))


def test_network(golden: Golden) -> None:
    golden("cilium.yaml", dumped(*cilium.manifests(SETTINGS, image="haneul.local/cilium:v1.19.1")))


def test_host_services(golden: Golden) -> None:
    services: list[HostService] = [
        runtime.containerd_service(
            SETTINGS, program=Path("/c/containerd"), search_path="/c:/usr/bin", configuration="version = 3"
        ),
        runtime.kubelet_service(SETTINGS, program=Path("/k/kubelet"), search_path="/k:/usr/bin"),
    ]
    golden("services.txt", "\n".join(f"# {service.name}\n{render_unit(service)}" for service in services))


def test_name_server(golden: Golden) -> None:
    known = replace(SETTINGS, host_networks=(("192.0.2.0/24", "eth0"),), resolvers=("198.51.100.53", "2001:db8::53"))
    golden("dns-zones.conf", name_server.keeper_configuration(known, key="the-key"))
    golden("dns-zones-second.conf", name_server.second_keeper_configuration(known))
    golden("dns.conf", name_server.recursor_configuration(known))


def test_a_host_without_resolvers_but_itself_asks_the_root() -> None:
    for resolvers in ((), (SETTINGS.address,), ("fe80::1",)):
        told = name_server.recursor_configuration(replace(SETTINGS, resolvers=resolvers))
        assert "forward-zones-recurse" not in told


def test_the_key_of_zones_is_no_argument_and_no_variable_s_source() -> None:
    services = (*name_server.keeper_services(SETTINGS, key="the-key"), *name_server.recursor_services(SETTINGS))
    assert [service.name for service in services] == ["dns-zones", "dns-zones-second", "dns", "dns-second"]
    moved = replace(SETTINGS, zone="k8s.example")
    others = (*name_server.keeper_services(moved, key="the-key"), *name_server.recursor_services(moved))
    for service, other in zip(services, others, strict=True):
        assert service.argv == other.argv
        assert service.environment != other.environment
        assert "the-key" not in str(service)


def test_another_key_makes_another_keeper_of_the_first_alone() -> None:
    first, second = name_server.keeper_services(SETTINGS, key="the-key")
    renewed, same = name_server.keeper_services(SETTINGS, key="another")
    assert first != renewed
    assert second == same


def test_a_host_that_asks_nobody_but_itself_asks_whom_it_asked_before(tmp_path: Path) -> None:
    files = name_server.NameFiles(tmp_path)
    own = SETTINGS.address
    assert name_server.resolvers_of(tmp_path, (own,), address=own) == ()
    files.resolvers.parent.mkdir()
    files.resolvers.write_text(f"198.51.100.53\n{own}\n2001:db8::53\n")
    assert name_server.resolvers_of(tmp_path, (own,), address=own) == ("198.51.100.53", "2001:db8::53")
    assert name_server.resolvers_of(tmp_path, (own, "192.0.2.7"), address=own) == ("192.0.2.7",)


@pytest.mark.parametrize("text", ["", ".", "k8s..example", "K8S_example", "a" * 64, "-a.example"])
def test_a_zone_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "zone").write_text(text)
    with pytest.raises(InvalidInputError, match="names no zone"):
        name_server.zone_of(tmp_path)


def test_the_zone_is_the_one_that_somebody_wrote_down(tmp_path: Path) -> None:
    assert name_server.zone_of(tmp_path) == "haneul.internal"
    (tmp_path / "zone").write_text("K8s.Example.com.\n")
    assert name_server.zone_of(tmp_path) == "k8s.example.com"


def test_zones_that_are_there_stay_and_missing_ones_are_made(tmp_path: Path) -> None:
    tables = tmp_path / "tables.sql"
    tables.write_text(
        "CREATE TABLE domains (id INTEGER PRIMARY KEY, name TEXT, type TEXT);"
        "CREATE TABLE domainmetadata (domain_id INTEGER, kind TEXT, content TEXT);"
        "CREATE TABLE records (domain_id INTEGER, name TEXT, type TEXT, content TEXT, ttl INTEGER, auth INTEGER);"
    )
    database, owner = tmp_path / "zones.sqlite3", (os.getuid(), os.getgid())

    def ensure(*zones: str, address: str) -> None:
        name_server.ensure_zones(database, zones, address=address, owner=owner, schema=tables)

    ensure("one.example", address="192.0.2.1")
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("INSERT INTO records VALUES (1, 'a.one.example', 'A', '10.0.0.1', 5, 1)")
    ensure("one.example", "10.in-addr.arpa", address="192.0.2.2")
    with contextlib.closing(sqlite3.connect(database)) as connection:
        zones = connection.execute("SELECT name FROM domains ORDER BY id").fetchall()
        found = set(connection.execute("SELECT name, type, content FROM records WHERE type IN ('A', 'NS')"))
    assert zones == [("one.example",), ("10.in-addr.arpa",)]
    assert found == {
        ("a.one.example", "A", "10.0.0.1"),
        ("ns.one.example", "A", "192.0.2.2"),
        ("hub.one.example", "A", "192.0.2.2"),
        ("one.example", "NS", "ns.one.example"),
        ("10.in-addr.arpa", "NS", "ns.one.example"),
    }
    with pytest.raises(HostNotReadyError, match="backend is not installed"):
        name_server.ensure_zones(
            tmp_path / "other", ["a.example"], address="192.0.2.1", owner=owner, schema=tmp_path / "none"
        )


def test_a_changed_configuration_is_a_changed_service() -> None:
    def made(configuration: str) -> HostService:
        return runtime.containerd_service(
            SETTINGS, program=Path("/c/containerd"), search_path="/c", configuration=configuration
        )

    assert made("version = 3") == made("version = 3") != made("version = 4")
    services = [
        runtime.kubelet_service(settings, program=Path("/k/kubelet"), search_path="/k")
        for settings in (SETTINGS, replace(SETTINGS, systemd=not SETTINGS.systemd))
    ]
    assert services[0] != services[1]


def test_nothing_is_fetched_from_anywhere() -> None:
    text = dumped(*cilium.manifests(SETTINGS, image="haneul.local/cilium:v1"))
    images = [line.split(": ")[1] for line in text.splitlines() if line.strip().startswith("image: ")]
    assert set(images) == {"haneul.local/cilium:v1"}
    policies = [line.split(": ")[1] for line in text.splitlines() if "imagePullPolicy: " in line]
    assert policies == ["Never"] * len(images)


def test_cilium_reads_no_secrets_and_ends_no_pods() -> None:
    """Tenants' authorities are Secrets of the management cluster; neither L7 proxy nor ingress needs them here."""
    roles = [entry for entry in cilium.manifests(SETTINGS, image="i") if entry["kind"] == "ClusterRole"]
    rules = [rule for role in roles for rule in role["rules"]]
    assert len(roles) == 2 and len(rules) > 8
    for rule in rules:
        if "cilium.io" not in rule["apiGroups"]:
            assert not {"*", "secrets", "configmaps"} & set(rule["resources"]), rule
        if "pods" in rule["resources"]:
            assert set(rule["verbs"]) == {"get", "list", "watch"}
    # What would need Secrets must then be off.
    options = cilium.configuration(SETTINGS)
    assert (options["enable-l7-proxy"], options["enable-envoy-config"]) == ("false", "false")
    assert not {"enable-ingress-controller", "enable-gateway-api", "bgp-secrets-namespace"} & set(options)
    assert options["unmanaged-pod-watcher-interval"] == "0"
