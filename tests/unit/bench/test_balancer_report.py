"""What the figures of a balancer's run mean."""

from __future__ import annotations

from datetime import UTC, datetime

from haneul.bench.balancer_figures import CASES, DIRECT, THROUGH, BalancerFigures, Change, Round
from haneul.bench.balancer_report import report
from haneul.bench.report import as_json, as_markdown, as_text

AT = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


def figures(failed: int = 0) -> BalancerFigures:
    made = BalancerFigures()
    failures = {"closed": failed} if failed else {}
    made.rolled = Change(100_000, failures, 40, 60.0, 12.3, 45.6)
    made.killed = Change(10_000, {"reset": 3}, 1, 6.0, 1.0, 2.0)
    for p50 in (1.0, 2.0, 3.0):
        made.add(CASES[0].name, DIRECT, Round(1000 / p50, p50, p50 * 2, 0))
        made.add(CASES[0].name, THROUGH, Round(500 / p50, p50 + 0.25, p50 * 3, 0))
    return made


def test_the_promise_is_kept_or_not() -> None:
    assert "met" in as_text(report(figures(), at=AT, machine={}))
    broken = as_text(report(figures(1), at=AT, machine={}))
    assert "NOT met" in broken
    # Of a member that is killed nothing is promised.
    assert broken.count("met") == 1


def test_costs_are_medians_and_their_difference() -> None:
    page = as_markdown(report(figures(), at=AT, machine={"cores": "2"}), figures="figures")
    assert "| 1 client, kept connection | past any balancer | 500/s | 2.00 ms | 4.00 ms | - |" in page
    assert "| 1 client, kept connection | through HAProxy | 250/s | 2.25 ms | 6.00 ms | +0.25 ms |" in page
    # Where nobody was root, the kernel was not asked.
    assert "kernel (dnat)" not in page
    assert "100,000" in page


def test_a_run_that_was_cut_short_has_a_report_too() -> None:
    empty = report(BalancerFigures(), at=AT, machine={})
    assert empty.tables[0].rows == ()
    assert '"rolled": null' in as_json(empty)


def test_a_round_is_made_of_what_was_measured() -> None:
    assert Round.of([0.001, 0.002, 0.003], 0.5, 4) == Round(6.0, 2.0, 3.0, 4)
