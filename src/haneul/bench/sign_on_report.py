"""What the figures of ``haneul bench auth`` mean: tables, and the goal met or not. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Final

from haneul.bench.report import Report, Table
from haneul.bench.sign_on_figures import SIDES, SignOnFigures, SignOnPlan

NAME: Final = "auth"
_NONE: Final = "-"
#: Milliseconds that sign-on may add to the time of half the answers.
_ADDED: Final = 1.0


def report(figures: SignOnFigures, plan: SignOnPlan, *, at: datetime, machine: Mapping[str, str]) -> Report:
    """Return the report of a run, also of one that was cut short."""
    measured = {
        "plan": asdict(plan),
        "rounds": {side: [asdict(one) for one in rounds] for side, rounds in figures.rounds.items()},
        "memory_mib": figures.memory,
    }
    return Report(NAME, at, machine, (_goal(figures, plan), _sides(figures, plan)), measured)


def _goal(figures: SignOnFigures, plan: SignOnPlan) -> Table:
    half, late = figures.added(lambda one: one.p50), figures.added(lambda one: one.p99)
    rows = []
    if half is not None and late is not None:
        verdict = "met" if half <= _ADDED else "NOT met"
        rows = [
            ("added to half of the answers (p50)", f"≤ {_ADDED:.0f} ms", f"{half:.2f} ms", verdict),
            ("added to the slowest hundredth (p99)", _NONE, f"{late:.2f} ms", _NONE),
        ]
    note = (
        f"At {plan.rate:,.0f} requests a second. Medians of the differences of rounds that followed each other, "
        f"{plan.rounds} of {plan.seconds:.0f} s on each side."
    )
    return Table("What sign-on adds", ("goal", "limit", "measured", "verdict"), tuple(rows), note)


def _sides(figures: SignOnFigures, plan: SignOnPlan) -> Table:
    rows = []
    for side in SIDES:
        rounds = figures.rounds.get(side, [])
        if not rounds:
            continue
        cells = [figures.middle(side, what) or 0.0 for what in (lambda one: one.p50, lambda one: one.p99)]
        times = [f"{cell:.2f} ms" for cell in cells]
        failed = sum(sum(one.failures.values()) for one in rounds)
        rate, cpu = figures.middle(side, lambda one: one.rate) or 0.0, figures.middle(side, lambda one: one.cpu) or 0.0
        rows.append(
            (side, f"{rate:,.0f}", *times, f"{cpu:.3f} ms", str(sum(one.answers for one in rounds)), str(failed))
        )
    columns = ("side", "answers a second", "p50", "p99", "gate's processor time", "answers", "failed")
    memory = "" if figures.memory is None else f" The gate had {figures.memory:.0f} MiB at the end."
    note = (
        f"The time of an answer counts from the moment at which its request was due, on {plan.connections} kept "
        f"connections. Processor time is for each answer. Shown are medians of the rounds.{memory}"
    )
    return Table("Both sides", columns, tuple(rows), note)
