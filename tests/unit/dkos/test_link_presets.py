"""Which tunnel a cluster gets that does not name one."""

from __future__ import annotations

import pytest

from haneul.dkos.link_presets import PRESETS, with_tunnel
from haneul.dkos.machines import Machine, MachineSpec, NetworkPreset
from haneul.dkos.model import ClusterSpec, Network, NodePool, NodeProviderName, Tunnel

PIN = "SHA256:" + "A" * 43


def machine(name: str, preset: NetworkPreset) -> Machine:
    spec = MachineSpec(address="192.0.2.11", host_key=PIN, preset=preset)
    return Machine(project="shop", name=name, uid=name, spec=spec)


MACHINES = (machine("rack", NetworkPreset.PM), machine("guest", NetworkPreset.VM))


def metal(*names: str, tunnel: Tunnel | None = None) -> ClusterSpec:
    pool = NodePool(provider=NodeProviderName.SSH, machines=names, count=len(names))
    return ClusterSpec(network=Network(tunnel=tunnel), node_pools=(pool,))


@pytest.mark.parametrize(
    ("spec", "tunnel"),
    [
        (ClusterSpec(), Tunnel.NEEDED),
        (ClusterSpec(network=Network(tunnel=Tunnel.ALWAYS)), Tunnel.ALWAYS),
        (metal("rack"), Tunnel.NEEDED),
        (metal("guest"), Tunnel.ALWAYS),
        (metal("rack", "guest"), Tunnel.ALWAYS),
        (metal("rack", "guest", tunnel=Tunnel.NEEDED), Tunnel.NEEDED),
        # What it will have is not known yet; until somebody says it, everything is wrapped.
        (metal(), None),
        (ClusterSpec(node_pools=()), None),
    ],
)
def test_what_is_named_is_kept_and_what_is_not_is_given(spec: ClusterSpec, tunnel: Tunnel | None) -> None:
    assert with_tunnel(spec, MACHINES).network.tunnel is tunnel


@pytest.mark.parametrize(
    ("spec", "wraps"),
    [
        (ClusterSpec(), False),
        (metal(), True),
        (metal("rack"), True),
        (with_tunnel(metal("rack"), MACHINES), False),
        (with_tunnel(metal("guest"), MACHINES), True),
    ],
)
def test_a_cluster_on_machines_wraps_everything_unless_somebody_said_it_need_not(
    spec: ClusterSpec, wraps: bool
) -> None:
    assert spec.wraps_all is wraps


def test_every_kind_of_machine_has_a_preset() -> None:
    assert set(PRESETS) == set(NetworkPreset)
