"""What is measured of registries, and the figures of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from haneul.bench.statistics import median

_MIB: Final = 1 << 20


@dataclass(frozen=True)
class Case:
    """One kind of load. ``blob`` is a pulled blob's size, ``image`` a pushed layer's."""

    name: str
    group: str
    connections: int
    method: str = "GET"
    reference: str = ""
    blob: int = 0
    image: int = 0
    many: bool = False


CASES: Final = (
    Case("manifest by tag", "manifests", 8, reference="tag"),
    Case("manifest by digest", "manifests", 8, reference="digest"),
    Case("manifest HEAD", "manifests", 8, method="HEAD", reference="tag"),
    Case("blob 4 KiB", "blobs", 8, blob=4096),
    Case("blob 1 MiB", "blobs", 8, blob=_MIB),
    Case("blob 100 MiB", "large blobs", 4, blob=100 * _MIB),
    Case("push 1 MiB, one repository", "pushes", 4, image=_MIB),
    Case("push 1 MiB, many repositories", "pushes", 4, image=_MIB, many=True),
    Case("push 10 MiB, one repository", "pushes", 4, image=10 * _MIB),
)


@dataclass(frozen=True)
class RegistryPlan:
    """How long and how often each case is measured."""

    seconds: float = 6.0
    rounds: int = 5


QUICK: Final = RegistryPlan(seconds=1.0, rounds=1)


@dataclass(frozen=True)
class Round:
    """One round of one case at one registry: answers a second, MiB a second, milliseconds, failures by kind."""

    rate: float
    mib: float
    p50: float
    p99: float
    failures: Mapping[str, int]


@dataclass
class RegistryFigures:
    """Rounds by case and registry, and memory after everything."""

    rounds: dict[str, dict[str, list[Round]]] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)

    def middle(self, case: str, registry: str, what: str) -> float | None:
        """Return the median of one figure over the rounds."""
        rounds = self.rounds.get(case, {}).get(registry, [])
        return median(getattr(one, what) for one in rounds) if rounds else None

    def failures(self, case: str, registry: str) -> int:
        """Return how many requests failed."""
        return sum(sum(one.failures.values()) for one in self.rounds.get(case, {}).get(registry, []))
