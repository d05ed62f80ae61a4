"""What is measured of networks, and the figures of it. Pure.

A way is how packets get from a pod on one node to a pod on another. Ways of one kind of cluster are measured on the
same cluster, in turns with a plain veth pair between two namespaces, than which nothing between two pods is cheaper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from haneul.bench.statistics import median

_GIGA: Final = 1e9


@dataclass(frozen=True)
class Way:
    """How packets travel.

    ``device`` of the client's node they must leave by, else something else was measured. ``linked``: the two nodes
    have a link of their own that carries addresses of pods, as machines on one switch have. ``policy``: a NetworkPolicy
    lets in just this client.
    """

    name: str
    device: str
    linked: bool = False
    policy: bool = False


@dataclass(frozen=True)
class Setup:
    """A kind of cluster: its plugin and tunnel as the cluster's spec has them, and the ways to measure on it."""

    name: str
    plugin: str
    tunnel: str
    ways: tuple[Way, ...]


# "Routed": Cilium in its mode of native routing, or flannel's routes, over a link that carries addresses of pods.
# "flannel's VXLAN": the same mode of Cilium over flannel's device, as sandbox nodes have it; "its own": mode tunnel.
#: The device of a link that the measurement gives two nodes.
LINK: Final = "bench0"
PLAIN: Final = Way("plain veth", "")
SETUPS: Final = (
    Setup(
        "native",
        "native",
        "needed",
        (Way("native, routed", LINK, linked=True), Way("native, VXLAN", "flannel.1")),
    ),
    Setup(
        "cilium",
        "cilium",
        "needed",
        (
            Way("cilium, routed", LINK, linked=True),
            Way("cilium, routed, policy", LINK, linked=True, policy=True),
            Way("cilium, flannel's VXLAN", "flannel.1"),
        ),
    ),
    Setup("cilium-vxlan", "cilium", "always", (Way("cilium, its own VXLAN", "cilium_vxlan"),)),
)
WAYS: Final = (PLAIN, *(way for setup in SETUPS for way in setup.ways))


@dataclass(frozen=True)
class NetworkPlan:
    """How often each way is measured, for how many seconds each of the four figures, with how many askers at once."""

    rounds: int = 3
    seconds: float = 2.0
    askers: int = 16


QUICK: Final = NetworkPlan(rounds=1, seconds=0.5)


@dataclass(frozen=True)
class Sample:
    """One round of one way.

    ``whole`` is the throughput in Gbit/s where the link takes what TCP hands down in pieces of up to 64 KiB, ``split``
    where each packet goes alone, as behind a card that cannot cut what is wrapped. ``cpu`` and ``split_cpu`` are
    processor seconds of the whole machine for each 10^9 bytes. ``requests`` a second come of all askers together;
    ``p50`` and ``p99`` are microseconds of one asker alone.
    """

    whole: float
    cpu: float
    split: float
    split_cpu: float
    requests: float
    p50: float
    p99: float

    @classmethod
    def of(
        cls,
        whole: Mapping[str, float],
        split: Mapping[str, float],
        many: Mapping[str, float],
        one: Mapping[str, float],
    ) -> Sample:
        """Return the figures of what :mod:`haneul.bench.network_peer` said."""
        return cls(
            whole["bytes"] * 8 / whole["seconds"] / _GIGA,
            whole["busy"] / (whole["bytes"] / _GIGA),
            split["bytes"] * 8 / split["seconds"] / _GIGA,
            split["busy"] / (split["bytes"] / _GIGA),
            many["answers"] / many["seconds"],
            one["p50"] * 1e6,
            one["p99"] * 1e6,
        )


@dataclass
class NetworkFigures:
    """What a run has measured so far; filled as it goes on, so that a run cut short loses nothing."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def add(self, way: Way, sample: Sample) -> None:
        """Take in a round."""
        self.samples.setdefault(way.name, []).append(sample)

    def middle(self, way: Way, what: str) -> float | None:
        """Return the median of a figure over the rounds; None without rounds."""
        samples = self.samples.get(way.name, [])
        return median(getattr(one, what) for one in samples) if samples else None

    def ratio(self, way: Way, what: str) -> float | None:
        """Return a way's figure divided by the plain pair's; None where one of them is missing."""
        mine, plain = self.middle(way, what), self.middle(PLAIN, what)
        return mine / plain if mine is not None and plain else None
