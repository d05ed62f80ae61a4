"""Findings from facts: each row changes one thing of a machine that lacks nothing."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.host.doctor import Finding, findings, worst
from haneul.host.doctor_facts import HostFacts, ListeningPort, MissingProgram, Route

GIB = 1 << 30
PERFECT = HostFacts(
    architecture="x86_64",
    kernel_release="6.12.9-amd64",
    features=frozenset({"bpf", "overlay", "veth", "bridge", "nf_tables", "vxlan", "loop", "fuse", "user_namespaces"}),
    cgroups="v2",
    controllers=frozenset({"cpu", "cpuset", "io", "memory", "pids"}),
    root=True,
    capabilities=frozenset({"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_BPF", "CAP_SYS_RESOURCE"}),
    systemd=True,
    host_name="node-1",
    address="192.0.2.2",
    cores=4,
    memory=16 * GIB,
    memory_available=12 * GIB,
    disk_free=100 * GIB,
    disk_path="/var/lib",
    swap=False,
    clock_synchronised=True,
    kernel_settings_writable=True,
    low_inotify_limits=(),
    foreign_kubernetes=False,
    ports=(),
    ranges=(("pods", "10.192.0.0/16"), ("services", "10.193.0.0/16")),
    routes=(Route("192.0.2.0/24", "eth0"),),
    nameservers=("192.0.2.53",),
    missing_programs=(),
    missing_packages=(),
)


def without(name: str) -> frozenset[str]:
    return PERFECT.features - {name}


def port(ours: bool) -> tuple[ListeningPort, ...]:
    return (ListeningPort(6443, "the API server", "haproxy (process 7)", ours),)


def test_a_machine_that_lacks_nothing_has_no_findings() -> None:
    assert findings(PERFECT) == []
    assert worst([]) is None


@pytest.mark.parametrize(
    ("change", "code", "severity"),
    [
        ({"root": False}, "not-root", "error"),
        ({"capabilities": PERFECT.capabilities - {"CAP_SYS_ADMIN"}}, "no-cap-sys-admin", "error"),
        ({"capabilities": PERFECT.capabilities - {"CAP_NET_ADMIN"}}, "no-cap-net-admin", "error"),
        ({"capabilities": PERFECT.capabilities - {"CAP_BPF"}}, "no-cap-bpf", "warning"),
        ({"capabilities": PERFECT.capabilities - {"CAP_SYS_RESOURCE"}}, "no-cap-sys-resource", "info"),
        ({"kernel_settings_writable": False}, "kernel-settings-read-only", "error"),
        ({"kernel_release": "4.19.0-27-amd64"}, "kernel-too-old", "error"),
        ({"kernel_release": "5.9.16"}, "kernel-too-old", "error"),
        ({"kernel_release": "6.1.0-40-amd64"}, "kernel-without-mapped-mounts", "warning"),
        ({"kernel_release": "6.4.0"}, "kernel-old", "info"),
        ({"features": without("bpf")}, "no-bpf", "error"),
        ({"features": without("overlay")}, "no-overlay", "error"),
        ({"features": without("veth")}, "no-veth", "error"),
        ({"features": without("bridge")}, "no-bridge", "warning"),
        ({"features": without("nf_tables")}, "no-nf-tables", "warning"),
        ({"features": without("vxlan")}, "no-vxlan", "warning"),
        ({"features": without("user_namespaces")}, "no-user-namespaces", "warning"),
        ({"features": without("loop")}, "no-loop", "info"),
        ({"features": without("fuse")}, "no-fuse", "info"),
        ({"architecture": "riscv64"}, "architecture", "error"),
        ({"cgroups": "none"}, "no-cgroups", "error"),
        ({"cgroups": "v1"}, "cgroup-v1-only", "error"),
        ({"cgroups": "hybrid"}, "cgroup-hybrid", "info"),
        ({"controllers": frozenset({"cpu", "pids", "cpuset"})}, "cgroup-controllers", "error"),
        ({"missing_programs": (MissingProgram("tc", "iproute2"),)}, "no-program-tc", "error"),
        ({"missing_packages": ("buildah", "gcc")}, "missing-packages", "warning"),
        ({"cores": 1}, "few-cores", "warning"),
        ({"memory": 2 * GIB}, "little-memory", "error"),
        ({"memory": 4 * GIB}, "modest-memory", "warning"),
        ({"disk_free": 5 * GIB}, "little-disk", "warning"),
        ({"disk_free": 2 * GIB}, "little-disk", "error"),
        ({"host_name": "my_host"}, "host-name", "error"),
        ({"address": None}, "no-address", "error"),
        ({"foreign_kubernetes": True}, "foreign-kubernetes", "error"),
        ({"ports": port(ours=False)}, "port-taken-6443", "error"),
        ({"routes": (Route("10.0.0.0/8", "tun0"),)}, "range-overlap", "error"),
        ({"routes": (Route("10.192.3.0/24", "eth1"),)}, "range-overlap", "error"),
        ({"routes": (Route("10.193.0.1", "eth1"),)}, "range-overlap", "error"),
        ({"nameservers": ("10.192.0.53",)}, "nameserver-in-range", "warning"),
        ({"clock_synchronised": False}, "clock-not-synchronised", "warning"),
        ({"swap": True}, "swap", "warning"),
        ({"low_inotify_limits": ("fs.inotify.max_user_instances = 128",)}, "low-inotify-limits", "info"),
        ({"systemd": False}, "no-systemd", "info"),
    ],
)
def test_each_lack_is_found(change: dict[str, Any], code: str, severity: str) -> None:
    found = {finding.code: finding for finding in findings(replace(PERFECT, **change))}
    assert set(found) == {code} or (code == "range-overlap" and code in found)
    assert found[code].severity == severity
    assert found[code].what and found[code].consequence
    assert found[code].mend or severity != "error"


@pytest.mark.parametrize(
    "change",
    [
        {"ports": port(ours=True)},
        {"routes": (Route("10.1.0.0/16", "eth1"), Route("172.16.0.0/12", "eth1"))},
        {"nameservers": ("2001:db8::53", "127.0.0.53")},
        {"clock_synchronised": None},
        {"controllers": PERFECT.controllers | {"rdma"}},
    ],
)
def test_what_is_no_trouble_is_not_reported(change: dict[str, Any]) -> None:
    assert findings(replace(PERFECT, **change)) == []


def test_without_root_nothing_is_said_of_its_capabilities() -> None:
    found = findings(replace(PERFECT, root=False, capabilities=frozenset(), kernel_settings_writable=False))
    assert [finding.code for finding in found] == ["not-root"]


def test_a_small_machine_is_told_how_much_fits() -> None:
    (finding,) = findings(replace(PERFECT, memory=4 * GIB))
    assert "about 1 tenant cluster with" in finding.consequence
    (finding,) = findings(replace(PERFECT, memory=7 * GIB))
    assert "about 4 tenant clusters with" in finding.consequence


def test_errors_come_first() -> None:
    found = findings(replace(PERFECT, systemd=False, swap=True, address=None))
    assert [finding.severity for finding in found] == ["error", "warning", "info"]


@given(st.lists(st.sampled_from(["error", "warning", "info"])))
def test_the_worst_is_the_most_severe(severities: list[Any]) -> None:
    found = [Finding("x", severity, "", "") for severity in severities]
    expected = next((level for level in ("error", "warning", "info") if level in severities), None)
    assert worst(found) == expected
