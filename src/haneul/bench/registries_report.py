"""What the figures of ``haneul bench d2hub`` mean: tables, promises kept or not, drawings. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Final

from haneul.bench.chart import BarChart, Series, draw_bars
from haneul.bench.registry_figures import CASES, Case, RegistryFigures
from haneul.bench.report import Report, Table

NAME: Final = "d2hub"
OURS: Final = "D2Hub"
_NONE: Final = "-"
#: What the design promises against the peer: pulls and pushes.
_PULLS, _PUSHES = 2.0, 1.2
_MEMORY_MIB: Final = 200.0


def report(figures: RegistryFigures, *, at: datetime, machine: Mapping[str, str]) -> Report:
    """Return the report of a run, also of one that was cut short."""
    peers = _peers(figures)
    tables = [_promises(figures, peers), _rates(figures, peers), _latencies(figures, peers)]
    measured = {
        "rounds": {
            case: {name: [asdict(one) for one in rounds] for name, rounds in by_name.items()}
            for case, by_name in figures.rounds.items()
        },
        "memory_mib": dict(figures.memory),
    }
    return Report(NAME, at, machine, tuple(tables), measured)


def drawings(figures: RegistryFigures) -> dict[str, str]:
    """Return the drawings by name."""
    names = [OURS, *_peers(figures)]
    drawn = {}
    for key, title, unit, what, groups in (
        ("d2hub-requests", "Manifests and small blobs", "answers a second", "rate", ("manifests", "blobs")),
        ("d2hub-large", "Blobs of 100 MiB", "MiB a second", "mib", ("large blobs",)),
        ("d2hub-pushes", "Images pushed", "images a second", "rate", ("pushes",)),
    ):
        cases = [case for case in CASES if case.group in groups and case.name in figures.rounds]
        if cases:
            series = tuple(
                Series(name, tuple(figures.middle(case.name, name, what) for case in cases)) for name in names
            )
            drawn[key] = draw_bars(BarChart(title, unit, tuple(case.name for case in cases), series))
    return drawn


def _promises(figures: RegistryFigures, peers: list[str]) -> Table:
    rows = []
    for case in CASES:
        for peer in peers:
            ratio = _ratio(figures, case, peer)
            if ratio is not None:
                limit = _PUSHES if case.image else _PULLS
                verdict = "met" if ratio >= limit else "NOT met"
                rows.append((f"{case.name}: times {peer}", f"≥ {limit}", f"{ratio:.2f}", verdict))
    memory = figures.memory.get(OURS)
    if memory is not None:
        verdict = "met" if memory <= _MEMORY_MIB else "NOT met"
        rows.append(("memory after all load", f"≤ {_MEMORY_MIB:.0f} MiB", f"{memory:.0f} MiB", verdict))
    note = "Medians of all rounds. Authorisation is on in every request, at every registry."
    return Table("Promises of the registry", ("promise", "limit", "measured", "verdict"), tuple(rows), note)


def _rates(figures: RegistryFigures, peers: list[str]) -> Table:
    names = [OURS, *peers]
    rows = []
    for case in CASES:
        cells = [case.name]
        for name in names:
            rate, mib = figures.middle(case.name, name, "rate"), figures.middle(case.name, name, "mib")
            cells += [_NONE if rate is None else f"{rate:.0f}", _NONE if mib is None else f"{mib:.0f}"]
        rows.append(tuple(cells))
    columns = ["case", *(f"{name} {unit}" for name in names for unit in ("/s", "MiB/s"))]
    return Table(
        "Answers a second",
        tuple(columns),
        tuple(rows),
        "Of pushes, images: a fresh layer, a configuration and a manifest each.",
        ("d2hub-requests", "d2hub-large", "d2hub-pushes"),
    )


def _latencies(figures: RegistryFigures, peers: list[str]) -> Table:
    names = [OURS, *peers]
    rows = []
    for case in CASES:
        cells = [case.name]
        for name in names:
            for what in ("p50", "p99"):
                value = figures.middle(case.name, name, what)
                cells.append(_NONE if value is None else f"{value:.2f} ms")
            cells.append(str(figures.failures(case.name, name)))
        rows.append(tuple(cells))
    columns = ["case", *(f"{name} {what}" for name in names for what in ("p50", "p99", "failed"))]
    note = "Percentiles are nearest rank, within a round; shown is the median of the rounds."
    return Table("Time of one answer", tuple(columns), tuple(rows), note)


def _ratio(figures: RegistryFigures, case: Case, peer: str) -> float | None:
    ours, theirs = figures.middle(case.name, OURS, "rate"), figures.middle(case.name, peer, "rate")
    return None if ours is None or not theirs else ours / theirs


def _peers(figures: RegistryFigures) -> list[str]:
    names = dict.fromkeys(name for by_name in figures.rounds.values() for name in by_name)
    return [name for name in names if name != OURS]
