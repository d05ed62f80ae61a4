"""The benchmark's run on a platform in memory: what it measures, in which state, and that it leaves nothing."""

from __future__ import annotations

from typing import Any

import pytest

from haneul.bench.dkos import QUICK, BenchPlan, DkosBench, Figures, Waking
from haneul.bench.process_usage import total
from haneul.kernel.errors import DeadlineExceededError

PLAN = BenchPlan(rounds=3, clusters=3, at_once=4, wakes=2, settle=20, window=20)


async def measured(bench: DkosBench, plan: BenchPlan) -> Figures:
    figures = Figures()
    await bench.run(plan, figures)
    return figures


async def test_a_run_measures_everything_that_was_planned(bench: DkosBench, lab: Any, peers: list[Any]) -> None:
    figures = await measured(bench, PLAN)
    assert [one.network for one in figures.creations] == ["native"] * 3 + ["cilium"] * 3
    assert [idle.clusters for idle in figures.growth] == [1, 2, 3]
    assert len(figures.growing) == 3
    assert len(figures.at_once) == 4
    assert [one.network for one in figures.wakings] == ["native"] * 2 + ["cilium"] * 2
    assert len(figures.peer_starts) == len(peers) == 3
    assert set(figures.one) == {"native", "cilium"}


async def test_times_run_from_the_request_on(bench: DkosBench) -> None:
    figures = await measured(bench, BenchPlan(rounds=1, clusters=0, at_once=0))
    native, cilium = figures.creations
    assert native.api == 4
    assert cilium.api == 6
    # The pod is asked for as soon as the API answers, beside the wait for the node.
    assert native.pod >= native.node > native.api
    assert native.pod_alone == 2
    assert native.gone == 3
    assert figures.growth == []
    assert figures.at_once == []


async def test_waking_is_timed_from_the_request_on(bench: DkosBench, lab: Any) -> None:
    figures = await measured(bench, BenchPlan(rounds=0, networks=("native",), clusters=0, at_once=0, wakes=2))
    assert figures.wakings == [Waking("native", asleep=7, api=6.5, node=7.5)] * 2
    assert lab.clusters == {}


async def test_the_masters_of_all_clusters_are_counted(bench: DkosBench) -> None:
    figures = await measured(bench, PLAN)
    sizes = [total(idle.usages).rss_mib for idle in figures.growth]
    assert sizes == [400, 800, 1200]
    assert total(figures.growth[2].usages).cores == pytest.approx(0.12)
    assert total(figures.peer_idle).rss_mib == 100


async def test_clusters_of_one_part_do_not_stand_in_the_way_of_the_next(bench: DkosBench, lab: Any) -> None:
    await measured(bench, PLAN)
    assert lab.most == 4
    assert lab.clusters == {}


async def test_peers_are_ended_before_our_own_clusters_start(bench: DkosBench, peers: list[Any]) -> None:
    await measured(bench, QUICK)
    assert peers
    assert not any(peer.running for peer in peers)


@pytest.mark.parametrize("silent", ["native-2", "grow-2", "once-3"])
async def test_a_cluster_that_never_answers_ends_the_run_and_nothing_is_left(
    bench: DkosBench, lab: Any, silent: str
) -> None:
    lab.silent = silent
    figures = Figures()
    with pytest.raises(DeadlineExceededError, match=silent):
        await bench.run(PLAN, figures)
    # What was measured before is kept.
    assert figures.creations
    assert lab.clusters == {}
    assert lab.cleared == 2
