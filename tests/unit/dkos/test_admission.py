"""What is refused before anything is made, and which ranges are given to what is not."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
import yaml

from haneul.dkos import control_plane
from haneul.dkos.admission import TakenRange, admit, admit_change
from haneul.dkos.confinement import POLICY_FILES_GATE
from haneul.dkos.control_plane import Images
from haneul.dkos.credentials import Endpoints
from haneul.dkos.model import (
    Cluster,
    ClusterSpec,
    Hibernation,
    LoadBalancing,
    Network,
    NetworkPlugin,
    NodePool,
    NodeProviderName,
    Settings,
    SleepRule,
    Tunnel,
)
from haneul.dkos.node_files import node_files
from haneul.kernel.errors import ConflictError, HaneulError, InvalidInputError

RESERVED = [TakenRange(IPv4Network("10.192.0.0/16"), "the management cluster's pods")]
ROLES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


def admitted(spec: ClusterSpec, *others: Cluster, name: str = "first") -> ClusterSpec:
    return admit(name, spec, project="shop", others=others, reserved=RESERVED)


def test_the_lowest_free_ranges_are_given(native: Cluster) -> None:
    first = admitted(ClusterSpec()).network
    assert (first.pods, first.services) == ("10.0.0.0/18", "10.128.0.0/20")
    # The fixture's cluster has the second of both pools.
    made = native.model_copy(update={"spec": native.spec.model_copy(update={"network": first})})
    third = admitted(ClusterSpec(), native, made).network
    assert (third.pods, third.services) == ("10.0.128.0/18", "10.128.32.0/20")


def test_ranges_that_are_named_are_kept() -> None:
    network = Network(plugin=NetworkPlugin.CILIUM, pods="172.20.0.0/18", services="172.21.0.0/20")
    assert admitted(ClusterSpec(network=network)).network == network


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        (ClusterSpec(version="1.2.3"), "1.2.3"),
        (ClusterSpec(network=Network(pods="10.0.64.0/20")), "overlaps"),
        (ClusterSpec(network=Network(services="10.192.1.0/24")), "management"),
        (ClusterSpec(network=Network(pods="172.20.0.0/18", services="172.20.0.0/20")), "this cluster's pods"),
        (ClusterSpec(network=Network(pods="8.8.0.0/18")), "does not fit"),
        (ClusterSpec(network=Network(pods="172.20.0.0/24")), "does not fit"),
        (ClusterSpec(network=Network(pods="127.0.0.0/18")), "does not fit"),
        (ClusterSpec(network=Network(pods="169.254.0.0/18")), "does not fit"),
        (ClusterSpec(network=Network(services="224.0.0.0/20")), "does not fit"),
        (ClusterSpec(network=Network(services="240.0.0.0/20")), "does not fit"),
        (ClusterSpec(network=Network(services="0.0.0.0/20")), "does not fit"),
        (ClusterSpec(network=Network(pods="172.20.0.0/22"), node_pools=(NodePool(count=5),)), "room for 4 nodes"),
        (ClusterSpec(node_pools=(NodePool(count=64), NodePool(name="more", count=1))), "65 nodes"),
        (ClusterSpec(node_pools=(NodePool(), NodePool())), "same name"),
        (ClusterSpec(settings=Settings(feature_gates={"no gate": True})), "no gate"),
        (ClusterSpec(settings=Settings(feature_gates={POLICY_FILES_GATE: False})), POLICY_FILES_GATE),
        (ClusterSpec(settings=Settings(node_monitor_grace_seconds=39)), "silent after 39 s"),
    ],
)
def test_what_cannot_be_is_refused_with_a_hint(spec: ClusterSpec, word: str, native: Cluster) -> None:
    with pytest.raises(InvalidInputError) as caught:
        admitted(spec, native)
    assert word in caught.value.detail
    assert caught.value.hint


@pytest.mark.parametrize("name", ["", "First", "1st", "a" * 31, "a_b", "a-"])
def test_a_name_is_a_short_dns_label(name: str) -> None:
    with pytest.raises(InvalidInputError):
        admitted(ClusterSpec(), name=name)


def test_names_and_namespaces_are_taken_once(native: Cluster) -> None:
    with pytest.raises(ConflictError):
        admitted(ClusterSpec(), native, name=native.name)
    # a + b-c and a-b + c have the same namespace.
    other = native.model_copy(update={"project": "shop-web", "name": "one"})
    with pytest.raises(ConflictError, match="namespace"):
        admitted(ClusterSpec(), other, name="web-one")


@pytest.mark.parametrize(
    ("network", "word"),
    [
        (Network(load_balancing=LoadBalancing.DSR), "kube-proxy"),
        (
            Network(plugin=NetworkPlugin.CILIUM, load_balancing=LoadBalancing.DSR, tunnel=Tunnel.ALWAYS),
            "exclude each other",
        ),
        (Network(plugin=NetworkPlugin.CILIUM, load_balancing=LoadBalancing.DSR), "sandbox nodes cannot"),
    ],
)
def test_direct_server_return_is_refused_where_answers_would_not_arrive(network: Network, word: str) -> None:
    with pytest.raises(InvalidInputError, match=word) as refused:
        admitted(ClusterSpec(network=network))
    assert "loadBalancing" in refused.value.hint


@pytest.mark.parametrize("plugin", list(NetworkPlugin))
@pytest.mark.parametrize("tunnel", list(Tunnel))
def test_every_network_may_wrap_everything_or_what_it_must(plugin: NetworkPlugin, tunnel: Tunnel) -> None:
    assert admitted(ClusterSpec(network=Network(plugin=plugin, tunnel=tunnel))).network.tunnel is tunnel


def test_a_living_cluster_keeps_its_tunnel() -> None:
    """Nodes that wrap and nodes that do not would not meet while one after the other is changed."""
    before = admitted(ClusterSpec(network=Network(plugin=NetworkPlugin.CILIUM)))
    network = before.network.model_copy(update={"tunnel": Tunnel.ALWAYS})
    with pytest.raises(InvalidInputError, match="network of a cluster cannot change") as refused:
        admit_change(before, before.model_copy(update={"network": network}))
    assert "another cluster" in refused.value.hint


def test_a_living_cluster_keeps_its_network_and_its_room() -> None:
    before = admitted(ClusterSpec(network=Network(pods="172.20.0.0/22")))
    admit_change(before, before.model_copy(update={"node_pools": (NodePool(count=4),)}))
    for update in ({"node_pools": (NodePool(count=5),)}, {"network": Network(pods="172.24.0.0/18")}):
        with pytest.raises(HaneulError):
            admit_change(before, before.model_copy(update=update))


def test_health_check_settings_reach_the_programs(native: Cluster, endpoints: Endpoints, images: Images) -> None:
    settings = Settings(node_status_update_seconds=2, node_monitor_grace_seconds=8, pod_eviction_seconds=30)
    cluster = native.model_copy(update={"spec": native.spec.model_copy(update={"settings": settings})})
    manifest = control_plane.apiserver(cluster, endpoints, images, dict.fromkeys(ROLES, "digest"))
    arguments = manifest["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--default-not-ready-toleration-seconds=30" in arguments
    assert "--default-unreachable-toleration-seconds=30" in arguments
    kubelet = yaml.safe_load(node_files(cluster, NodePool(), "default-0", pause_image="pause")["kubelet.yaml"])
    # A lease is renewed after a quarter of its duration: every two seconds here, as asked.
    assert (kubelet["nodeStatusUpdateFrequency"], kubelet["nodeLeaseDurationSeconds"]) == ("2s", 8)


def test_no_cluster_begins_asleep_but_with_a_schedule_it_may() -> None:
    with pytest.raises(InvalidInputError, match="cannot begin asleep"):
        admitted(ClusterSpec(hibernation=Hibernation(asleep=True)))
    nights = Hibernation(schedule=(SleepRule(sleep="0 20 * * *"),))
    assert admitted(ClusterSpec(hibernation=nights)).hibernation == nights


@pytest.mark.parametrize(
    "wish", [Hibernation(asleep=True), Hibernation(schedule=(SleepRule(sleep="0 20 * * *"),))], ids=["word", "schedule"]
)
def test_a_cluster_whose_nodes_are_machines_does_not_sleep_as_haneul_does_not_end_machines(wish: Hibernation) -> None:
    racks = NodePool(name="racks", provider=NodeProviderName.SSH, machines=("rack1",))
    before = ClusterSpec(node_pools=(racks,))
    admit_change(before, before)
    refusal = (
        "cannot sleep whose pool racks has nodes of the provider ssh: Haneul does not start and end their machines"
    )
    with pytest.raises(InvalidInputError, match=refusal):
        admit_change(before, before.model_copy(update={"hibernation": wish}))
    # Nor does one that sleeps, or will, without nodes get machines.
    empty = ClusterSpec(node_pools=(), hibernation=wish)
    admit_change(empty, empty)
    with pytest.raises(InvalidInputError, match=refusal):
        admit_change(empty, empty.model_copy(update={"node_pools": (racks,)}))
