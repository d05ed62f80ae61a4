"""What the figures of ``haneul bench audit`` mean: tables, and the goal met or not. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Final

from haneul.bench.audit_figures import SIDES, AuditFigures, AuditPlan
from haneul.bench.report import Report, Table
from haneul.bench.statistics import median

NAME: Final = "audit"
#: Seconds in which a search is to answer.
_GOAL: Final = 2.0
_MIB: Final = 1 << 20


def report(figures: AuditFigures, plan: AuditPlan, *, at: datetime, machine: Mapping[str, str]) -> Report:
    """Return the report of a run, also of one that was cut short."""
    measured = {"plan": asdict(plan), **asdict(figures)}
    return Report(NAME, at, machine, (_cost(figures, plan), _kept(figures), _search(figures)), measured)


def _cost(figures: AuditFigures, plan: AuditPlan) -> Table:
    rows = []
    for side in SIDES:
        rounds = figures.rounds.get(side, [])
        if rounds:
            cells = [
                figures.middle(side, what) or 0.0
                for what in (lambda one: one.p50, lambda one: one.p99, lambda one: one.nginx, lambda one: one.reader)
            ]
            failed = sum(sum(one.failures.values()) for one in rounds)
            answers = sum(one.answers for one in rounds)
            rows.append((side, *(f"{cell:.2f} ms" for cell in cells), str(answers), str(failed)))
    added = [
        figures.added(what) or 0.0
        for what in (lambda one: one.p50, lambda one: one.p99, lambda one: one.nginx, lambda one: one.reader)
    ]
    if len(rows) == len(SIDES):
        rows.append(("added", *(f"{cell:.2f} ms" for cell in added), "", ""))
    note = (
        f"At {plan.rate:,.0f} requests a second on {plan.connections} kept connections, {plan.rounds} rounds of "
        f"{plan.seconds:.0f} s on each side in turn; medians. Processor time is for each request; the reader is what "
        "masks records and keeps them."
    )
    columns = ("side", "p50", "p99", "nginx's processor time", "the reader's", "answers", "failed")
    return Table("What the trail costs a request", columns, tuple(rows), note)


def _kept(figures: AuditFigures) -> Table:
    rows = []
    if kept := figures.kept:
        rows = [
            (
                f"{kept.requests:,}",
                f"{kept.kept:,}",
                f"{kept.seen_bytes / 1024:,.1f} KiB",
                f"{kept.kept_bytes / 1024:,.1f} KiB",
                f"{kept.stored_bytes / 1024:,.1f} KiB",
                f"{100 * kept.stored_bytes / max(kept.seen_bytes, 1):.2f} %",
            )
        ]
    note = "Of 100 requests one is an error and two are attacks; the policy is the one that holds if nothing is said."
    columns = ("requests", "kept", "written by ModSecurity", "records kept", "in the store", "of what was written")
    return Table("Bytes kept of bytes seen", columns, tuple(rows), note)


def _search(figures: AuditFigures) -> Table:
    rows = []
    for one in figures.searched:
        verdict = "met" if max(one.seconds) <= _GOAL else "NOT met"
        times = f"{1000 * median(one.seconds):.0f} ms", f"{1000 * max(one.seconds):.0f} ms"
        rows.append((one.question, str(one.found), *times, f"≤ {_GOAL:.0f} s", verdict))
    note = ""
    if stored := figures.stored:
        note = (
            f"Over {stored.records:,} records of {stored.size / (1 << 30):.2f} GiB, {stored.stored / _MIB:,.0f} MiB in "
            f"the store; the catalogue has {stored.catalogue / _MIB:,.0f} MiB. At most 100 records are asked for."
        )
    return Table("Search", ("question", "records", "median", "slowest", "goal", "verdict"), tuple(rows), note)
