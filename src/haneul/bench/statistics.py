"""The few statistics that a handful of measurements bear. Pure.

With five samples an interpolated percentile would invent a value that nobody saw, so percentiles are nearest-rank: one
of the samples. The 90th percentile of five is the slowest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


def median(samples: Iterable[float]) -> float:
    """Return the middle sample, or the mean of the two in the middle. Raises ValueError without samples."""
    ordered = _ordered(samples)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def percentile(samples: Iterable[float], share: float) -> float:
    """Return the smallest sample that at least ``share`` (above 0, at most 1) of all samples do not exceed."""
    if not 0 < share <= 1:
        raise ValueError(f"a share lies above 0 and is at most 1, not {share}")
    ordered = _ordered(samples)
    # 0.9 * 10 is a little more than 9 in floating point, which must not become rank 10.
    rank = math.ceil(round(share * len(ordered), 9))
    return ordered[rank - 1]


@dataclass(frozen=True)
class Spread:
    """What is told of some samples: how many, their median, their 90th percentile, the least and the greatest."""

    count: int
    median: float
    p90: float
    least: float
    greatest: float


def spread(samples: Sequence[float]) -> Spread:
    """Return the spread of ``samples``. Raises ValueError without samples."""
    return Spread(len(samples), median(samples), percentile(samples, 0.9), min(samples), max(samples))


def _ordered(samples: Iterable[float]) -> list[float]:
    ordered = sorted(samples)
    if not ordered:
        raise ValueError("there are no samples")
    return ordered
