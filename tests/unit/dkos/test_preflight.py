"""What of a machine's facts lets it become a node, and what does not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from haneul.dkos.preflight import MachineFacts, Wanted, examine, parse_facts, refusal

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
WANTED = Wanted("192.0.2.11", "amd64", "uid/shop/metal/default-rack1")
GOOD = MachineFacts(
    root=True,
    kernel="6.1.0-26-amd64",
    architecture="x86_64",
    clock=int(NOW.timestamp()),
    cgroup=2,
    memory=64000,
    cores=16,
    disk=100000,
    systemd=True,
    controllers=frozenset({"cpu", "cpuset", "memory", "pids", "io"}),
    addresses=frozenset({"127.0.0.1", "192.0.2.11"}),
    tcp=frozenset({22}),
    links=frozenset({"lo", "eno1"}),
    processes=frozenset({"systemd", "sshd"}),
)


def test_good_machine_fits() -> None:
    findings = examine(GOOD, WANTED, NOW)
    assert refusal(findings) == ""
    assert all(found.good for found in findings)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"root": False}, "root"),
        ({"kernel": "4.19.0-21-amd64"}, "kernel"),
        ({"architecture": "aarch64"}, "architecture"),
        ({"cgroup": 1}, "cgroups"),
        ({"controllers": frozenset({"cpu", "pids"})}, "cgroups"),
        ({"memory": 256}, "memory"),
        ({"disk": 500}, "disk"),
        ({"clock": int(NOW.timestamp()) - 31}, "clock"),
        ({"clock": int(NOW.timestamp()) + 31}, "clock"),
        ({"missing": frozenset({"unshare"})}, "tools"),
        ({"addresses": frozenset({"127.0.0.1", "10.0.0.5"})}, "address"),
        ({"processes": frozenset({"systemd", "kubelet"})}, "foreign Kubernetes"),
        ({"processes": frozenset({"containerd"})}, "foreign Kubernetes"),
        ({"folders": frozenset({"/etc/kubernetes"})}, "foreign Kubernetes"),
        ({"tcp": frozenset({22, 10250})}, "ports"),
        ({"udp": frozenset({8472})}, "ports"),
        ({"links": frozenset({"lo", "flannel.1"})}, "interfaces"),
        ({"owner": "uid/lab/other/default-rack1"}, "owner"),
    ],
)
def test_one_thing_that_is_wrong_is_named_alone_with_what_to_do(changes: dict[str, Any], name: str) -> None:
    findings = examine(replace(GOOD, **changes), WANTED, NOW)
    bad = [found for found in findings if not found.good]
    assert [found.name for found in bad] == [name]
    assert bad[0].hint and name in refusal(findings)


def test_machine_without_systemd_may_have_the_old_cgroups() -> None:
    assert refusal(examine(replace(GOOD, cgroup=1, systemd=False), WANTED, NOW)) == ""


def test_what_runs_on_a_machine_that_is_the_node_already_is_its_own() -> None:
    busy = replace(
        GOOD,
        owner=WANTED.owner,
        processes=frozenset({"kubelet", "containerd"}),
        tcp=frozenset({10250}),
        links=frozenset({"flannel.1"}),
    )
    assert refusal(examine(busy, WANTED, NOW)) == ""


def test_facts_are_read_as_the_machine_tells_them() -> None:
    told = """user 0
kernel 6.1.0
architecture x86_64
clock 1795521600
init systemd
systemd yes
cgroup 2
controller cpu
controller memory
memory 64000
cores 16
disk 100000
address 127.0.0.1
address 192.0.2.11
tcp 0016
tcp 280A
udp 2118
link lo
process sshd
folder /etc/kubernetes
missing gzip
owner uid/shop/metal/default-rack1"""
    facts = parse_facts(told)
    assert facts.root and facts.systemd and (facts.memory, facts.cores, facts.disk) == (64000, 16, 100000)
    assert facts.tcp == {22, 10250} and facts.udp == {8472}
    assert facts.addresses == {"127.0.0.1", "192.0.2.11"} and facts.controllers == {"cpu", "memory"}
    assert facts.folders == {"/etc/kubernetes"} and facts.missing == {"gzip"} and facts.owner.startswith("uid/")


def test_answer_that_lacks_a_fact_is_no_answer() -> None:
    with pytest.raises(ValueError, match="kernel"):
        parse_facts("user 0\n")
