"""A run on a platform in memory: what it measures, in which order, and that nothing is left of it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from haneul.chaos.faults import BY_NAME, Asked
from haneul.chaos.outcome import Outcome
from haneul.chaos.plan import Round, named_plan, short_plan
from haneul.chaos.run import ChaosRun
from haneul.chaos.verdicts import broken_in_all, broken_promises
from haneul.kernel.errors import UnavailableError
from haneul.kernel.progress import SilentProgress
from tests.unit.chaos.memory import MemoryPlatform, OrderedClock

START = datetime(2026, 11, 27, tzinfo=UTC)


async def ran(platform: MemoryPlatform, plan: tuple[Round, ...]) -> Outcome:
    outcome = Outcome()
    run = ChaosRun(platform, platform, clock=platform.clock, progress=SilentProgress())
    await run.run(plan, outcome)
    return outcome


async def test_a_platform_that_mends_in_time_keeps_every_promise() -> None:
    platform = MemoryPlatform(OrderedClock(START))
    outcome = await ran(platform, short_plan())
    assert outcome.complete
    assert [result.round.name for result in outcome.results] == [one.name for one in short_plan()]
    assert broken_in_all(outcome.results, outcome.written, outcome.left) == []
    assert not platform.clusters
    assert platform.log[0] == "prepare" and platform.log[-1] == "leave"


async def test_a_rounds_figures_are_of_its_own_time() -> None:
    outcome = await ran(MemoryPlatform(OrderedClock(START)), named_plan(["etcd-killed", "scheduler-killed"]))
    killed, harmless = outcome.results
    assert killed.recovered == pytest.approx(3, abs=0.5)
    assert killed.tallies[Asked.VICTIM_API].failed > 0
    assert killed.tallies[Asked.VICTIM_API].longest_gap == pytest.approx(3, abs=0.5)
    assert killed.tallies[Asked.NEIGHBOUR_API].failed == 0
    assert all(tally.failed == 0 for tally in harmless.tallies.values())
    assert outcome.whole_time[Asked.VICTIM_API].failed == killed.tallies[Asked.VICTIM_API].failed


async def test_a_fault_that_lasts_is_held_and_its_recovery_counts_from_its_end() -> None:
    platform = MemoryPlatform(OrderedClock(START))
    (result,) = (await ran(platform, named_plan(["etcd-frozen"]))).results
    assert result.recovered == pytest.approx(3, abs=0.5)
    assert result.tallies[Asked.VICTIM_API].longest_gap == pytest.approx(18, abs=0.5)
    assert platform.log == ["prepare", "inject etcd-frozen", "heal etcd-frozen", "leave"]


async def test_both_faults_of_a_pair_strike_before_one_is_taken_back() -> None:
    platform = MemoryPlatform(OrderedClock(START))
    await ran(platform, named_plan(["etcd-frozen+node-cut-off"]))
    assert [entry.split()[0] for entry in platform.log[1:5]] == ["inject", "inject", "heal", "heal"]


async def test_a_neighbour_that_notices_breaks_the_promise() -> None:
    platform = MemoryPlatform(OrderedClock(START), notices=frozenset({Asked.NEIGHBOUR_WORKLOAD}))
    (result,) = (await ran(platform, named_plan(["scheduler-killed"]))).results
    (words,) = broken_promises(result)
    assert "neighbour's workload" in words and "none may" in words


async def test_a_slow_return_breaks_the_promise() -> None:
    platform = MemoryPlatform(OrderedClock(START), mending=45)
    (result,) = (await ran(platform, named_plan(["etcd-killed"]))).results
    assert any("silent for" in words for words in broken_promises(result))
    assert any("as before only after" in words for words in broken_promises(result))


async def test_a_platform_that_does_not_come_back_ends_the_run_and_is_left_clean() -> None:
    platform = MemoryPlatform(OrderedClock(START), stays="etcd-killed")
    outcome = Outcome()
    run = ChaosRun(platform, platform, clock=platform.clock, progress=SilentProgress())
    with pytest.raises(UnavailableError, match="etcd-killed"):
        await run.run(named_plan(["etcd-killed", "scheduler-killed"]), outcome)
    (result,) = outcome.results
    assert result.recovered is None
    assert any("not as before" in words for words in broken_promises(result))
    assert not outcome.complete and not platform.clusters and platform.log[-1] == "leave"


async def test_trouble_that_somebody_tells_of_delays_the_recovery() -> None:
    platform = MemoryPlatform(OrderedClock(START), trouble_until=20)
    outcome = await ran(platform, named_plan(["scheduler-killed"]))
    # It was there before the round, which therefore waited for calm.
    assert outcome.results[0].recovered == pytest.approx(0, abs=0.5)
    assert platform.clock.monotonic() > 20


async def test_what_a_killed_run_left_is_taken_back_first() -> None:
    platform = MemoryPlatform(OrderedClock(START), lasting={"node-cut-off"})
    outcome = await ran(platform, named_plan(["scheduler-killed"]))
    assert outcome.cleared == ["node-cut-off"]
    assert outcome.left == []


async def test_lost_writes_and_leftovers_are_told() -> None:
    platform = MemoryPlatform(OrderedClock(START), loses=2, left=["table haneul_chaos"])
    outcome = await ran(platform, named_plan(["etcd-killed"]))
    broken = broken_in_all(outcome.results, outcome.written, outcome.left)
    assert "victim: 2 acknowledged writes are lost" in broken
    assert "left over: table haneul_chaos" in broken
    assert outcome.written["victim"].acknowledged < outcome.written["victim"].tried


def test_an_address_that_was_not_asked_is_no_kept_promise() -> None:
    from haneul.chaos.ledger import Ledger
    from haneul.chaos.verdicts import RoundResult

    result = RoundResult(Round((BY_NAME["etcd-killed"],)), 1.0, {Asked.VICTIM_API: Ledger("one").tally()})
    assert broken_promises(result) == ["victim's API was not asked"]
