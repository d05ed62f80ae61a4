"""What the network does with packets of pods that leave a machine as they are, by the machine's preset. Pure.

A switch between physical machines looks at hardware addresses and carries whatever they send. A virtual machine's card
is usually a port of its host's switch, which drops addresses that the machine was not given; a function of the host's
card (SR-IOV), which the machine has to itself, is a card like a physical one's. Which of the two a virtual machine has
cannot be seen from its preset, so its packets are wrapped unless somebody says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from haneul.dkos.machines import Machine, NetworkPreset
from haneul.dkos.model import ClusterSpec, Tunnel


@dataclass(frozen=True)
class LinkPreset:
    """A kind of machine: its link in words, and when packets between nodes are wrapped if nobody says it."""

    link: str
    tunnel: Tunnel
    otherwise: str


PRESETS: Final[Mapping[NetworkPreset, LinkPreset]] = {
    NetworkPreset.PM: LinkPreset(
        "its own network card", Tunnel.NEEDED, "`always` where switches or routers between them check addresses"
    ),
    NetworkPreset.VM: LinkPreset(
        "a port of its host's switch, or a function of its host's card (SR-IOV)",
        Tunnel.ALWAYS,
        "`needed` where every machine has a function of a card, whose check of addresses is off",
    ),
}


def with_tunnel(spec: ClusterSpec, machines: Iterable[Machine]) -> ClusterSpec:
    """Return a new cluster's spec with its tunnel given, if it was left out and there are nodes to know it by.

    ``machines`` are those that its project registered. One whose packets must be wrapped decides for all: who wraps and
    who does not would not meet.
    """
    unknown = spec.outside and not spec.machines
    if spec.network.tunnel is not None or not spec.node_pools or unknown:
        return spec
    presets = {machine.name: machine.spec.preset for machine in machines}
    wanted = {PRESETS[presets[name]].tunnel for name in spec.machines}
    tunnel = Tunnel.ALWAYS if Tunnel.ALWAYS in wanted else Tunnel.NEEDED
    return spec.model_copy(update={"network": spec.network.model_copy(update={"tunnel": tunnel})})
