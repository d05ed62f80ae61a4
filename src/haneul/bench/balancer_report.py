"""What the figures of ``haneul bench balancer`` mean: tables, the promise kept or not. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Final

from haneul.bench.balancer_figures import CASES, DIRECT, SIDES, BalancerFigures, Change
from haneul.bench.report import Report, Table

NAME: Final = "balancer"
_NONE: Final = "-"


def report(figures: BalancerFigures, *, at: datetime, machine: Mapping[str, str]) -> Report:
    """Return the report of a run, also of one that was cut short."""
    measured = {
        "rolled": asdict(figures.rolled) if figures.rolled else None,
        "killed": asdict(figures.killed) if figures.killed else None,
        "rounds": {
            case: {side: [asdict(one) for one in rounds] for side, rounds in sides.items()}
            for case, sides in figures.rounds.items()
        },
    }
    return Report(NAME, at, machine, (_changes(figures), _costs(figures)), measured)


def _changes(figures: BalancerFigures) -> Table:
    rows = []
    for name, what, limit in (
        ("rolling update", figures.rolled, 0),
        ("a member killed with SIGKILL", figures.killed, None),
    ):
        if what is not None:
            rows.append(_change(name, what, limit))
    columns = ("while", "failed", "of", "members changed", "p99", "longest", "promise", "verdict")
    note = (
        "A request fails if its answer is not whole; clients try nothing again. Half of the clients keep their "
        "connections. What a killed member was just answering is lost, whoever balances."
    )
    return Table("Requests while members change", columns, tuple(rows), note)


def _change(name: str, what: Change, limit: int | None) -> tuple[str, ...]:
    verdict = _NONE if limit is None else ("met" if what.failed <= limit else "NOT met")
    return (
        name,
        str(what.failed),
        f"{what.requests:,}",
        str(what.changed),
        f"{what.p99:.1f} ms",
        f"{what.longest:.0f} ms",
        _NONE if limit is None else f"{limit} failed",
        verdict,
    )


def _costs(figures: BalancerFigures) -> Table:
    rows = []
    for case in CASES:
        direct = figures.middle(case.name, DIRECT, "p50")
        for side in SIDES:
            rate, p50, p99 = (figures.middle(case.name, side, what) for what in ("rate", "p50", "p99"))
            if rate is None or p50 is None or p99 is None:
                continue
            added = _NONE if direct is None or side == DIRECT else f"{p50 - direct:+.2f} ms"
            rows.append((case.name, side, f"{rate:,.0f}/s", f"{p50:.2f} ms", f"{p99:.2f} ms", added))
    columns = ("load", "way", "answers", "p50", "p99", "added at p50")
    note = (
        "Medians of the rounds, the ways taking turns. One member answers, the same for all. The kernel is measured "
        "where root runs this; connection tracking is on for all ways then."
    )
    return Table("What the way through a balancer costs", columns, tuple(rows), note)
