"""What is behind a Service's port."""

from __future__ import annotations

import pytest

from haneul.balancer.members import Behind, Ground, Targets, behind
from haneul.balancer.model import Member
from haneul.kernel.kube import Manifest
from tests.unit.balancer.objects import endpoint, node, port, service, site, slice_of

PODS: Ground = site().ground
NODES: Ground = site(targets=Targets.NODES).ground
NODE_LIST = [node("n1", "10.0.0.1"), node("n2", "10.0.0.2"), node("n3", "10.0.0.3")]


def pods(*slices: Manifest, of: Manifest | None = None) -> Behind:
    return behind(of or service(), port(), slices, (), PODS)


def addresses(found: Behind) -> list[str]:
    return [member.address for member in found.members]


def test_pods_that_are_ready() -> None:
    found = pods(
        slice_of("web", endpoint("10.1.0.2", ready=True), endpoint("10.1.0.3", ready=False)),
        slice_of("web", endpoint("10.1.0.1"), name="web-2", number=8081),
    )
    assert found.members == (Member("10.1.0.1", 8081), Member("10.1.0.2", 8080))


def test_a_pod_that_ends_leaves_while_another_is_ready() -> None:
    ending = endpoint("10.1.0.1", ready=False, serving=True, terminating=True)
    assert addresses(pods(slice_of("web", ending, endpoint("10.1.0.2", ready=True)))) == ["10.1.0.2"]
    assert addresses(pods(slice_of("web", endpoint("10.1.0.2", ready=True)), slice_of("web", ending))) == ["10.1.0.2"]


def test_when_no_pod_is_ready_those_that_serve_while_they_end_are_used() -> None:
    found = pods(
        slice_of(
            "web",
            endpoint("10.1.0.1", ready=False, serving=True, terminating=True),
            endpoint("10.1.0.2", ready=False, serving=False, terminating=True),
            endpoint("10.1.0.3", ready=False, serving=True, terminating=False),
        )
    )
    assert addresses(found) == ["10.1.0.1"]


def test_only_slices_with_the_port_and_with_addresses_count() -> None:
    named = slice_of("web", endpoint("10.1.0.1"), endpoint("10.1.0.2"), port_name="other")
    names = {**slice_of("web", endpoint("10.1.0.1")), "addressType": "FQDN"}
    udp = slice_of("web", endpoint("10.1.0.1"), protocol="UDP")
    assert pods(named, names, udp, {**slice_of("web"), "endpoints": None, "ports": None}) == Behind()


def test_addresses_that_are_not_the_clusters_are_left_out_and_told_of() -> None:
    found = pods(
        slice_of(
            "web", *map(endpoint, ("10.1.0.1", "127.0.0.1", "192.0.2.1", "fd00::1", "fe80::1%eth0", "no\naddress"))
        )
    )
    assert addresses(found) == ["10.1.0.1", "fd00::1"]
    assert "127.0.0.1" in found.strangers
    assert "192.0.2.1" in found.strangers
    assert not any("\n" in stranger for stranger in found.strangers)


def nodes(of: Manifest, *slices: Manifest, among: list[Manifest] | None = None) -> list[str]:
    return addresses(behind(of, port(node_port=30080), slices, NODE_LIST if among is None else among, NODES))


def test_with_the_policy_cluster_all_nodes_take_part() -> None:
    assert nodes(service()) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_with_the_policy_local_the_nodes_of_usable_pods_take_part() -> None:
    of = service(externalTrafficPolicy="Local")
    ready = endpoint("10.1.0.1", "n1", ready=True)
    ending = endpoint("10.1.0.2", "n2", ready=False, serving=True, terminating=True)
    assert nodes(of, slice_of("web", ready, ending)) == ["10.0.0.1"]
    assert nodes(of, slice_of("web", ending)) == ["10.0.0.2"]
    assert nodes(of) == []


@pytest.mark.parametrize(
    "leaving",
    [
        node("n9", "10.0.0.9", deletionTimestamp="2026-11-27T12:00:00Z"),
        node("n9", "10.0.0.9", labels={"node.kubernetes.io/exclude-from-external-load-balancers": ""}),
        node("n9", "10.0.0.9", taints=[{"key": "ToBeDeletedByClusterAutoscaler"}]),
        {"metadata": {"name": "n9"}},
    ],
)
def test_nodes_that_do_not_take_part(leaving: Manifest) -> None:
    assert nodes(service(), among=[leaving, node("n1", "10.0.0.1")]) == ["10.0.0.1"]


def test_without_a_node_port_there_is_nothing() -> None:
    assert behind(service(), port(), [], NODE_LIST, NODES) == Behind()


@pytest.mark.parametrize("number", [0, -1, 65536, "80", None])
def test_what_is_no_port_is_nobodys(number: object) -> None:
    strange = slice_of("web", endpoint("10.1.0.1"))
    strange["ports"][0]["port"] = number
    assert pods(strange) == Behind()
    found = behind(service(), {**port(), "nodePort": number}, [], NODE_LIST, NODES)
    assert found == Behind()
