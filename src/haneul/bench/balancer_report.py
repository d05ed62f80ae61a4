"""What the figures of ``haneul bench balancer`` mean: tables, the promise kept or not. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Final

from haneul.bench.balancer_figures import CASES, DIRECT, THROUGH, BalancerFigures, Change
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
        if case.name not in figures.rounds:
            continue
        cells = [case.name]
        for what, unit in (("rate", "/s"), ("p50", " ms"), ("p99", " ms")):
            for side in (DIRECT, THROUGH):
                value = figures.middle(case.name, side, what)
                cells.append(
                    _NONE if value is None else f"{value:,.0f}{unit}" if unit == "/s" else f"{value:.2f}{unit}"
                )
        direct, through = (figures.middle(case.name, side, "p50") for side in (DIRECT, THROUGH))
        cells.append(_NONE if direct is None or through is None else f"{through - direct:+.2f} ms")
        rows.append(tuple(cells))
    columns = (
        "load",
        *(f"{what} {side}" for what in ("answers", "p50", "p99") for side in ("direct", "through")),
        "added at p50",
    )
    note = "Medians of the rounds, the sides taking turns. One member answers, the same for both sides."
    return Table("What the way through the balancer costs", columns, tuple(rows), note)
