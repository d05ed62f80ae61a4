"""What the figures of ``haneul bench network`` mean: tables with ratios to a plain veth pair, and charts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Final

from haneul.bench.chart import BarChart, Series, draw_bars
from haneul.bench.network_figures import PLAIN, WAYS, NetworkFigures, Way
from haneul.bench.report import Report, Table

NAME: Final = "network"
_NONE: Final = "-"
_THROUGHPUT, _LATENCY = f"{NAME}-throughput", f"{NAME}-latency"
_WHOLE: Final = "large pieces"
_SPLIT: Final = "each packet alone"


def report(figures: NetworkFigures, *, at: datetime, machine: Mapping[str, str]) -> Report:
    """Return the report of a run, also of one that was cut short."""
    raw = {name: [asdict(one) for one in samples] for name, samples in figures.samples.items()}
    return Report(NAME, at, machine, (_throughput(figures), _requests(figures)), raw)


def drawings(figures: NetworkFigures) -> dict[str, str]:
    """Return the charts of a run by name; none of one that measured nothing."""
    ways = _measured(figures)
    if not ways:
        return {}
    groups = tuple(way.name for way in ways)

    def series(name: str, what: str) -> Series:
        return Series(name, tuple(figures.middle(way, what) for way in ways))

    throughput = (series(_WHOLE, "whole"), series(_SPLIT, "split"))
    latency = (series("p50", "p50"), series("p99", "p99"))
    return {
        _THROUGHPUT: draw_bars(BarChart("Throughput from pod to pod", "Gbit/s", groups, throughput)),
        _LATENCY: draw_bars(BarChart("Time of an answer, pod to pod", "microseconds", groups, latency)),
    }


def _measured(figures: NetworkFigures) -> list[Way]:
    return [way for way in WAYS if figures.samples.get(way.name)]


def _throughput(figures: NetworkFigures) -> Table:
    rows = tuple(
        (
            way.name,
            _figure(figures, way, "whole", "{:.2f}"),
            _ratio(figures, way, "whole"),
            _figure(figures, way, "cpu", "{:.2f} s"),
            _figure(figures, way, "split", "{:.2f}"),
            _ratio(figures, way, "split"),
            _figure(figures, way, "split_cpu", "{:.2f} s"),
        )
        for way in _measured(figures)
    )
    columns = (
        "way",
        f"Gbit/s, {_WHOLE}",
        "of plain",
        "CPU for a GB",
        f"Gbit/s, {_SPLIT}",
        "of plain",
        "CPU for a GB",
    )
    note = (
        "Medians of the rounds, in turns with the plain pair. Both nodes are on this machine, so no wire bounds what "
        "is sent: the processors do. Large pieces of up to 64 KiB stay whole to the end, as behind a card that cuts "
        "them in hardware, wrapped or not; each packet alone is what is left behind one that cannot cut what is "
        "wrapped. CPU is all that the machine did meanwhile, for 10^9 bytes. Routed: over a link of the two nodes that "
        "carries addresses of pods, as between machines on one switch; sandbox nodes have VXLAN."
    )
    return Table("Throughput from pod to pod", columns, rows, note, (_THROUGHPUT,))


def _requests(figures: NetworkFigures) -> Table:
    rows = tuple(
        (
            way.name,
            _figure(figures, way, "requests", "{:,.0f}"),
            _ratio(figures, way, "requests"),
            _figure(figures, way, "p50", "{:.0f} µs"),
            _ratio(figures, way, "p50"),
            _figure(figures, way, "p99", "{:.0f} µs"),
            _ratio(figures, way, "p99"),
        )
        for way in _measured(figures)
    )
    columns = ("way", "requests/s", "of plain", "p50", "of plain", "p99", "of plain")
    note = (
        "64 bytes there and back on kept connections: requests a second of 16 askers at once, the time of an answer of "
        "one alone. Asker and answerer are a small Python program, which takes its share of every figure."
    )
    return Table("Requests from pod to pod", columns, rows, note, (_LATENCY,))


def _figure(figures: NetworkFigures, way: Way, what: str, shape: str) -> str:
    value = figures.middle(way, what)
    return _NONE if value is None else shape.format(value)


def _ratio(figures: NetworkFigures, way: Way, what: str) -> str:
    ratio = figures.ratio(way, what)
    return _NONE if ratio is None or way == PLAIN else f"{ratio:.0%}"
