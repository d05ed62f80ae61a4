"""Medians and percentiles of a few samples."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.bench.statistics import median, percentile, spread

SAMPLES = st.lists(st.floats(min_value=-1e6, max_value=1e6), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("samples", "expected"), [([3], 3), ([1, 9], 5), ([9, 1, 2], 2), ([4, 1, 3, 2], 2.5), ([5, 1, 4, 2, 3], 3)]
)
def test_median(samples: list[float], expected: float) -> None:
    assert median(samples) == expected


@pytest.mark.parametrize(
    ("share", "expected"), [(0.9, 9), (0.91, 10), (1, 10), (0.1, 1), (0.11, 2), (0.5, 5), (0.001, 1)]
)
def test_percentile_is_the_nearest_rank(share: float, expected: float) -> None:
    assert percentile(range(10, 0, -1), share) == expected


def test_the_ninetieth_percentile_of_five_is_the_slowest() -> None:
    assert percentile([2, 9, 4, 1, 3], 0.9) == 9


@pytest.mark.parametrize("share", [0, -0.1, 1.01, math.nan])
def test_a_share_outside_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="a share lies"):
        percentile([1], share)


def test_nothing_has_no_statistics() -> None:
    for function in (median, lambda samples: percentile(samples, 0.5)):
        with pytest.raises(ValueError, match="no samples"):
            function([])


@given(SAMPLES)
def test_a_spread_is_in_order_and_its_percentile_was_seen(samples: list[float]) -> None:
    seen = spread(samples)
    assert seen.least <= seen.median <= seen.greatest
    assert seen.least <= seen.p90 <= seen.greatest
    assert seen.p90 in samples
    assert sum(sample <= seen.p90 for sample in samples) >= 0.9 * len(samples)
    assert seen.count == len(samples)
