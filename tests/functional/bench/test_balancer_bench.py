"""``haneul bench balancer`` with a few requests: that it measures what it says, not how good the figures are."""

from __future__ import annotations

import os
import shutil

import pytest

from haneul.app.balancer_lab import run_balancer_bench
from haneul.bench.balancer_figures import CASES, DIRECT, SIDES, THROUGH, BalancerFigures, BalancerPlan


async def test_a_small_run_measures_everything() -> None:
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not here: 'make system-packages'")
    plan = BalancerPlan(requests=200, killed_requests=50, members=2, clients=4, pre_stop=0.1, rounds=1, seconds=0.2)
    figures, machine = BalancerFigures(), dict[str, str]()
    await run_balancer_bench(plan, figures, machine)
    assert figures.rolled
    assert (figures.rolled.requests, figures.rolled.changed > 0) == (200, True)
    assert figures.killed
    assert figures.killed.requests == 50
    assert machine["HAProxy"]
    for case in CASES:
        for side in SIDES if os.geteuid() == 0 else (DIRECT, THROUGH):
            assert figures.middle(case.name, side, "rate")
            assert sum(one.failed for one in figures.rounds[case.name][side]) == 0
