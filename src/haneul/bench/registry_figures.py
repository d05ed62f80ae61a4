"""What is measured of registries, and the figures of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from haneul.bench.statistics import median

_MIB: Final = 1 << 20
#: Names of the sides; those of the peers are their programs' own.
OURS: Final = "D2Hub"
FILLED: Final = "D2Hub, filled"
DISTRIBUTION: Final = "Distribution"
DEBIAN: Final = "docker-registry"
BARE: Final = "bare responder"


@dataclass(frozen=True)
class Case:
    """One kind of load. ``blob`` is a pulled blob's size, ``image`` a pushed layer's.

    ``reference`` says what is asked for that is no blob. With ``first`` images that nobody has pulled yet are pulled,
    each on a connection of its own. A case that ``grows`` is also measured on a registry that is full of tags.
    """

    name: str
    group: str
    connections: int
    method: str = "GET"
    reference: str = ""
    blob: int = 0
    image: int = 0
    many: bool = False
    first: bool = False
    grows: bool = True

    @property
    def pushes(self) -> bool:
        """Say whether it is pushes that are measured."""
        return bool(self.image) and not self.first

    @property
    def repeats(self) -> bool:
        """Say whether it is one request that is sent over and over."""
        return not self.image


CASES: Final = (
    Case("manifest by tag", "manifests", 8, reference="tag"),
    Case("manifest by digest", "manifests", 8, reference="digest"),
    Case("manifest HEAD", "manifests", 8, method="HEAD", reference="tag"),
    Case("blob 4 KiB", "blobs", 8, blob=4096),
    Case("blob 1 MiB", "blobs", 8, blob=_MIB),
    Case("blob 100 MiB", "large blobs", 4, blob=100 * _MIB, grows=False),
    Case("first pulls, 1 MiB", "first pulls", 16, image=_MIB, first=True),
    Case("push 1 MiB, one repository", "pushes", 4, image=_MIB),
    Case("push 1 MiB, many repositories", "pushes", 4, image=_MIB, many=True),
    Case("push 10 MiB, one repository", "pushes", 4, image=10 * _MIB, grows=False),
    Case("push 10 MiB, many repositories", "pushes", 4, image=10 * _MIB, many=True, grows=False),
    Case("list of 100 tags", "lists", 4, reference="tags"),
    Case("list of repositories", "lists", 4, reference="catalog"),
)


@dataclass(frozen=True)
class RegistryPlan:
    """How long and how often each case is measured, and how full a registry is made.

    A round of pushes also ends when ``push_mib`` are pushed, so that a fast disk is not filled; in a round of first
    pulls each client pulls ``images`` images. Without ``tags`` no registry is filled. Without ``tls`` all speak plain
    HTTP.
    """

    seconds: float = 4.0
    rounds: int = 5
    push_mib: int = 256
    images: int = 16
    repositories: int = 1_000
    tags: int = 100_000
    tls: bool = True
    cases: tuple[Case, ...] = CASES


QUICK: Final = RegistryPlan(seconds=1.0, rounds=1, push_mib=64, images=4, repositories=20, tags=1_000)


@dataclass(frozen=True)
class Round:
    """One round of one case at one registry: answers a second, MiB a second, milliseconds, failures by kind.

    ``cpu`` is what the registry used of processors, in milliseconds for each answer; 0 where that is not known.
    """

    rate: float
    mib: float
    p50: float
    p99: float
    failures: Mapping[str, int]
    cpu: float = 0.0


@dataclass
class RegistryFigures:
    """Rounds by case and side, the most memory that each side had (MiB), and how fast one was filled (tags/s)."""

    rounds: dict[str, dict[str, list[Round]]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    tags: int = 0
    filled_per_second: float | None = None

    def middle(self, case: str, registry: str, what: str) -> float | None:
        """Return the median of one figure over the rounds."""
        rounds = self.rounds.get(case, {}).get(registry, [])
        return median(getattr(one, what) for one in rounds) if rounds else None

    def failures(self, case: str, registry: str) -> int:
        """Return how many requests failed."""
        return sum(sum(one.failures.values()) for one in self.rounds.get(case, {}).get(registry, []))

    def ratio(self, case: str, one: str, other: str, what: str = "rate") -> float | None:
        """Return one side's figure in those of another: the median of the ratios of rounds that followed each other.

        What else the machine did in a round met both, so their ratio says more than that of two medians.
        """
        sides = self.rounds.get(case, {})
        pairs = zip(sides.get(one, []), sides.get(other, []), strict=False)
        ratios = [getattr(mine, what) / getattr(theirs, what) for mine, theirs in pairs if getattr(theirs, what)]
        return median(ratios) if ratios else None
