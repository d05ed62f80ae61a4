"""What the figures of ``haneul bench d2hub`` mean: tables, goals met or not, drawings. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Final

from haneul.bench.chart import BarChart, Series, draw_bars
from haneul.bench.registry_figures import BARE, CASES, DEBIAN, DISTRIBUTION, FILLED, OURS, Case, RegistryFigures
from haneul.bench.report import Report, Table

NAME: Final = "d2hub"
_NONE: Final = "-"
#: Goals beside CNCF Distribution: how many times its pulls and its pushes.
_PULLS, _PUSHES = 2.0, 1.2
_MEMORY_MIB: Final = 200.0
#: What is left of the speed when the registry is full.
_FILLED: Final = 0.8
_LISTS: Final = "lists"
_ORDER: Final = (OURS, DISTRIBUTION, DEBIAN, FILLED, BARE)


def report(figures: RegistryFigures, *, at: datetime, machine: Mapping[str, str]) -> Report:
    """Return the report of a run, also of one that was cut short."""
    cases = [case for case in CASES if case.name in figures.rounds]
    tables = [
        _goals(figures, cases),
        _rates(figures, cases),
        _latencies(figures, cases),
        _processors(figures, cases),
        _memory(figures),
    ]
    if FILLED in _sides(figures):
        tables.append(_scale(figures, cases))
    measured = {
        "rounds": {
            case: {name: [asdict(one) for one in rounds] for name, rounds in by_name.items()}
            for case, by_name in figures.rounds.items()
        },
        "memory_mib": dict(figures.memory),
        "tags": figures.tags,
        "filled_per_second": figures.filled_per_second,
    }
    return Report(NAME, at, machine, tuple(tables), measured)


def drawings(figures: RegistryFigures) -> dict[str, str]:
    """Return the drawings by name."""
    names = [name for name in _sides(figures) if name in (OURS, DISTRIBUTION, DEBIAN)]
    drawn = {}
    for key, title, unit, what, groups in (
        ("d2hub-requests", "Manifests and small blobs", "answers a second", "rate", ("manifests", "blobs")),
        ("d2hub-large", "Blobs of 100 MiB", "MiB a second", "mib", ("large blobs",)),
        ("d2hub-images", "Images pulled first, and pushed", "images a second", "rate", ("first pulls", "pushes")),
    ):
        cases = [case for case in CASES if case.group in groups and case.name in figures.rounds]
        if cases:
            series = tuple(
                Series(name, tuple(figures.middle(case.name, name, what) for case in cases)) for name in names
            )
            drawn[key] = draw_bars(BarChart(title, unit, tuple(case.name for case in cases), series))
    return drawn


def _goals(figures: RegistryFigures, cases: list[Case]) -> Table:
    rows = [row for case in cases for row in _goals_of(figures, case)]
    for name in (OURS, FILLED):
        if (memory := figures.memory.get(name)) is not None:
            verdict = _met(memory <= _MEMORY_MIB)
            rows.append((f"memory of {name} under load", f"≤ {_MEMORY_MIB:.0f} MiB", f"{memory:.0f} MiB", verdict))
    note = (
        "Times, and p99 as a share, of CNCF Distribution: medians of the ratios of rounds that followed each other. "
        "Authorisation is on in every request, at every registry."
    )
    return Table("Goals of the registry", ("goal", "limit", "measured", "verdict"), tuple(rows), note)


def _goals_of(figures: RegistryFigures, case: Case) -> Iterator[tuple[str, str, str, str]]:
    times = figures.ratio(case.name, OURS, DISTRIBUTION)
    if times is not None and case.group != _LISTS:
        limit = _PUSHES if case.pushes else _PULLS
        yield f"{case.name}: times Distribution", f"≥ {limit}", f"{times:.2f}", _met(times >= limit)
        late = figures.ratio(case.name, OURS, DISTRIBUTION, "p99")
        if late is not None:
            yield f"{case.name}: p99 of Distribution's", "≤ 1", f"{late:.2f}", _met(late <= 1)
    left = figures.ratio(case.name, FILLED, OURS)
    if left is not None:
        yield f"{case.name}: {figures.tags:,} tags, times empty", f"≥ {_FILLED}", f"{left:.2f}", _met(left >= _FILLED)


def _rates(figures: RegistryFigures, cases: list[Case]) -> Table:
    names = [name for name in _sides(figures) if name != FILLED]
    peers = [name for name in (DISTRIBUTION, DEBIAN) if name in names]
    rows = []
    for case in cases:
        cells = [case.name]
        for name in names:
            rate, mib = figures.middle(case.name, name, "rate"), figures.middle(case.name, name, "mib")
            cells.append(_NONE if rate is None or mib is None else f"{_short(rate)} ({_short(mib)})")
        for peer in peers:
            times = figures.ratio(case.name, OURS, peer)
            cells.append(_NONE if times is None else f"{times:.2f}")
        rows.append(tuple(cells))
    columns = ("case", *names, *(f"times {peer}" for peer in peers))
    note = (
        "Answers a second, and in parentheses MiB a second. Of pushes and first pulls, images. The bare responder does "
        "nothing but answer: it shows what the load itself can do beside a server on this machine."
    )
    figures_shown = tuple(drawings(figures))
    return Table("Answers a second", columns, tuple(rows), note, figures_shown)


def _latencies(figures: RegistryFigures, cases: list[Case]) -> Table:
    names = [name for name in _sides(figures) if name not in (FILLED, BARE)]
    rows = []
    for case in cases:
        cells = [case.name]
        for name in names:
            for what in ("p50", "p99"):
                value = figures.middle(case.name, name, what)
                cells.append(_NONE if value is None else f"{_short(value)} ms")
            cells.append(str(figures.failures(case.name, name)))
        rows.append(tuple(cells))
    columns = ["case", *(f"{name} {what}" for name in names for what in ("p50", "p99", "failed"))]
    note = "Percentiles are nearest rank, within a round; shown is the median of the rounds."
    return Table("Time of one answer", tuple(columns), tuple(rows), note)


def _processors(figures: RegistryFigures, cases: list[Case]) -> Table:
    names = [name for name in _sides(figures) if name not in (FILLED, BARE)]
    peers = [name for name in (DISTRIBUTION, DEBIAN) if name in names]
    rows = []
    for case in cases:
        if case.first:
            continue
        cells = [figures.middle(case.name, name, "cpu") for name in names]
        shares = [figures.ratio(case.name, OURS, peer, "cpu") for peer in peers]
        shown = [_NONE if value is None else f"{_short(value)} ms" for value in cells]
        rows.append((case.name, *shown, *(_NONE if share is None else f"{share:.2f}" for share in shares)))
    columns = ("case", *names, *(f"share of {peer}'s" for peer in peers))
    note = (
        "What the registry's process used of a processor for one answer, or image; the load's own is not in it. It "
        "changes less than speed with what else the machine does."
    )
    return Table("Processor time of one answer", columns, tuple(rows), note)


def _memory(figures: RegistryFigures) -> Table:
    rows = [(name, f"{figures.memory[name]:.0f} MiB") for name in _sides(figures) if name in figures.memory]
    rows = [row for row in rows if row[0] != BARE]
    return Table(
        "Memory under load",
        ("registry", "most RSS"),
        tuple(rows),
        "The most resident memory of all looks, two a second, while the registry was under load. One process each.",
    )


def _scale(figures: RegistryFigures, cases: list[Case]) -> Table:
    rows = []
    for case in cases:
        left = figures.ratio(case.name, FILLED, OURS)
        if left is None:
            continue
        cells = [case.name]
        for what, unit in (("rate", ""), ("p99", " ms"), ("cpu", " ms")):
            for name in (OURS, FILLED):
                value = figures.middle(case.name, name, what)
                cells.append(f"{_short(value)}{unit}" if value else _NONE)
        rows.append((*cells, f"{left:.2f}"))
    speed = figures.filled_per_second
    pace = "" if speed is None else f" It was filled through its API, {speed:.0f} manifests a second."
    note = "Two registries of ours in turn: one with nothing but what the cases need, and one that is full." + pace
    kinds = ("/s", "p99", "processor")
    columns = ("case", *(f"{side} {kind}" for kind in kinds for side in ("empty", "filled")), "filled / empty")
    return Table(f"With {figures.tags:,} tags", columns, tuple(rows), note)


def _sides(figures: RegistryFigures) -> list[str]:
    found = {name for by_name in figures.rounds.values() for name in by_name}
    return [name for name in _ORDER if name in found]


def _met(kept: bool) -> str:
    return "met" if kept else "NOT met"


def _short(value: float) -> str:
    """Return a figure as it is read: three digits of it."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
