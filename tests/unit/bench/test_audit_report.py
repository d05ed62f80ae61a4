"""What is said of the audit trail's figures."""

from __future__ import annotations

from datetime import UTC, datetime

from haneul.bench.audit_figures import WITH, WITHOUT, AuditFigures, AuditPlan, AuditRound, Kept, Searched, Stored
from haneul.bench.audit_report import report
from haneul.bench.report import as_markdown

AT = datetime(2026, 11, 27, tzinfo=UTC)


def rounds(*times: float) -> list[AuditRound]:
    return [AuditRound(100, one, 2 * one, one / 2, one / 4, {}) for one in times]


def figures() -> AuditFigures:
    return AuditFigures(
        {WITHOUT: rounds(1.0, 2.0, 3.0), WITH: rounds(2.0, 4.0, 6.0)},
        Kept(100, 4, 1 << 20, 1 << 18, 1 << 15),
        Stored(1000, 1 << 30, 1 << 27, 1 << 26),
        [Searched("one client", 3, (0.1, 0.2, 2.5)), Searched("one path", 1, (0.1, 0.2, 0.3))],
    )


def test_what_is_added_is_of_rounds_that_followed_each_other() -> None:
    assert figures().added(lambda one: one.p50) == 2.0
    assert AuditFigures().added(lambda one: one.p50) is None


def test_a_search_that_once_took_too_long_has_not_met_the_goal() -> None:
    cost, kept, search = report(figures(), AuditPlan(), at=AT, machine={}).tables
    assert [row[-1] for row in search.rows] == ["NOT met", "met"]
    assert kept.rows[0][-1] == "3.12 %"
    assert cost.rows[-1][:2] == ("added", "2.00 ms")


def test_a_run_that_was_cut_short_has_a_report_too() -> None:
    made = report(AuditFigures({WITHOUT: rounds(1.0)}), AuditPlan(), at=AT, machine={})
    assert "without" in as_markdown(made, figures="figures")
