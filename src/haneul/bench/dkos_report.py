"""What the figures of ``haneul bench dkos`` mean: tables, promises kept or not, drawings. Pure.

Published figures are what others have said of their own systems on their own machines; they stand in the tables as an
order of magnitude. Only the peer was measured here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from haneul.bench.chart import BarChart, LineChart, Series, draw_bars, draw_lines
from haneul.bench.dkos import Creation, Figures, Waking
from haneul.bench.process_usage import Usage, total
from haneul.bench.report import Report, Table
from haneul.bench.statistics import median, percentile

NAME: Final = "dkos"
_NONE: Final = "-"

_STAGES: Final[tuple[tuple[str, Callable[[Creation], float | None], str], ...]] = (
    ("API answers", lambda one: one.api, "Kamaji 16 s, EKS 9 to 21 min"),
    ("default ServiceAccount", lambda one: one.account, _NONE),
    ("node Ready", lambda one: one.node, "EKS 45 to 65 s, the node alone"),
    ("first pod runs", lambda one: one.pod, _NONE),
    ("one pod on the ready cluster", lambda one: one.pod_alone, "Kubernetes' objective: p99 below 5 s"),
    ("deleted, nothing left", lambda one: one.gone, _NONE),
)


_WAKING_STAGES: Final[tuple[tuple[str, Callable[[Waking], float]], ...]] = (
    ("asleep, nothing runs", lambda one: one.asleep),
    ("woken: API answers", lambda one: one.api),
    ("woken: node Ready", lambda one: one.node),
)


@dataclass(frozen=True)
class Verdict:
    """A promise of the design, and what was measured of it; None when the run did not measure it."""

    promise: str
    limit: float
    measured: float | None
    unit: str

    @property
    def word(self) -> str:
        """Return the verdict in words."""
        if self.measured is None:
            return "not measured"
        return "met" if self.measured < self.limit else "NOT met"


def verdicts(figures: Figures) -> list[Verdict]:
    """Return every promise that this benchmark can judge; of times, the medians are judged."""

    def middle(network: str, pick: Callable[[Creation], float | None]) -> float | None:
        samples = _samples(figures.creations, network, pick)
        return median(samples) if samples else None

    memory = figures.one.get("native")
    count = len(figures.at_once)
    last = max((one.api for one in figures.at_once), default=None)
    each = last / count if last is not None else None
    return [
        Verdict("native: API answers", 5, middle("native", lambda one: one.api), "s"),
        Verdict("native: first pod runs", 10, middle("native", lambda one: one.pod), "s"),
        Verdict("cilium: API answers", 5, middle("cilium", lambda one: one.api), "s"),
        Verdict("cilium: first pod runs", 20, middle("cilium", lambda one: one.pod), "s"),
        *(
            Verdict(f"{network}: woken from sleep, API answers", 10, _woken(figures, network), "s")
            for network in ("native", "cilium")
        ),
        Verdict("ten at once: API answers, each on average", 5, each if count == 10 else None, "s"),
        Verdict("one tenant's masters at rest, RSS", 400, total(memory.usages).rss_mib if memory else None, "MiB"),
        Verdict("each of ten tenants' masters at rest, PSS", 400, _share_of_ten(figures), "MiB"),
    ]


def _woken(figures: Figures, network: str) -> float | None:
    samples = [one.api for one in figures.wakings if one.network == network]
    return median(samples) if samples else None


def _share_of_ten(figures: Figures) -> float | None:
    ten = next((idle for idle in figures.growth if idle.clusters == 10), None)
    return total(ten.usages).pss_mib / ten.clusters if ten else None


def report(figures: Figures, *, at: datetime, machine: Mapping[str, str]) -> Report:
    """Return the report of a run."""
    tables = [
        _promises_table(figures),
        _creation_table(figures),
        _waking_table(figures),
        _peer_start_table(figures),
        _memory_table(figures),
        _processor_table(figures),
        _growth_table(figures),
        _at_once_table(figures),
    ]
    measured: dict[str, Any] = asdict(figures)
    measured["verdicts"] = [{**asdict(one), "verdict": one.word} for one in verdicts(figures)]
    return Report(NAME, at, machine, tuple(table for table in tables if table is not None), measured)


def drawings(figures: Figures) -> dict[str, str]:
    """Return SVG documents by name, of what was measured."""
    drawn = {}
    if figures.creations:
        drawn["dkos-create"] = draw_bars(_creation_chart(figures))
    if figures.one or figures.peer_idle:
        drawn["dkos-masters"] = draw_bars(_masters_chart(figures))
    if figures.growth:
        drawn["dkos-memory"] = draw_lines(_memory_chart(figures))
        drawn["dkos-processor"] = draw_lines(_processor_chart(figures))
    if figures.at_once:
        drawn["dkos-at-once"] = draw_bars(_at_once_chart(figures))
    return drawn


def _promises_table(figures: Figures) -> Table:
    rows = [
        (one.promise, f"< {one.limit:g} {one.unit}", _quantity(one.measured, one.unit), one.word)
        for one in verdicts(figures)
    ]
    note = "Times are medians. Ten at once, on average: until the last of the ten APIs answered, divided by ten."
    return Table("Promises", ("promise", "limit", "measured", "verdict"), tuple(rows), note)


def _creation_table(figures: Figures) -> Table | None:
    rows = []
    for title, pick, published in _STAGES:
        for network in _networks(figures.creations):
            samples = _samples(figures.creations, network, pick)
            if samples:
                middle, p90 = median(samples), percentile(samples, 0.9)
                rows.append((title, network, f"{middle:.2f} s", f"{p90:.2f} s", str(len(samples)), published))
    if not rows:
        return None
    note = (
        "From the request on, as a client outside sees it, one cluster after the other with one node each. "
        "The 90th percentile is the nearest rank: of five, the slowest."
    )
    columns = ("step", "network", "median", "p90", "runs", "published by others")
    return Table("From the request to a running pod", columns, tuple(rows), note, ("dkos-create",))


def _waking_table(figures: Figures) -> Table | None:
    if not figures.wakings:
        return None
    rows = []
    for title, pick in _WAKING_STAGES:
        for network in dict.fromkeys(one.network for one in figures.wakings):
            samples = [pick(one) for one in figures.wakings if one.network == network]
            middle, p90 = median(samples), percentile(samples, 0.9)
            rows.append((title, network, f"{middle:.2f} s", f"{p90:.2f} s", str(len(samples))))
    note = (
        "One cluster of one node, put to sleep and woken again and again: from the request for sleep until it has no "
        "pod left, and from the request to wake on, as a client outside sees it."
    )
    return Table(
        "To sleep, and from the request to wake on", ("step", "network", "median", "p90", "runs"), tuple(rows), note
    )


def _peer_start_table(figures: Figures) -> Table | None:
    ours = [one for one in figures.creations if one.network == "native"]
    if not figures.peer_starts or not ours:
        return None
    pairs = (
        ("API answers", [one.api for one in ours], [one.api for one in figures.peer_starts]),
        ("default ServiceAccount", [one.account for one in ours], [one.account for one in figures.peer_starts]),
    )
    rows = tuple(
        (title, f"{median(mine):.2f} s", f"{median(theirs):.2f} s", f"{median(mine) / median(theirs):.2f}")
        for title, mine, theirs in pairs
    )
    note = (
        "The peer, measured in the same run: the same etcd, kube-apiserver, kube-controller-manager and "
        "kube-scheduler started by hand on loopback, upstream's defaults, without pods, encryption at rest, audit log "
        "or network policies."
    )
    return Table("Beside plain processes", ("step", "native", "plain processes", "ratio"), rows, note)


def _sides(figures: Figures) -> list[tuple[str, tuple[Usage, ...]]]:
    """Return whose masters were at rest: one cluster's of each network, and the peer's."""
    sides = [(name, idle.usages) for name, idle in figures.one.items()]
    return [*sides, ("plain", figures.peer_idle)] if figures.peer_idle else sides


def _memory_table(figures: Figures) -> Table | None:
    sides = _sides(figures)
    if not sides:
        return None
    columns = ["MiB", *(f"{name} {kind}" for name, _ in sides for kind in ("RSS", "own", "PSS"))]
    ratio = "native" in figures.one and bool(figures.peer_idle)
    rows = []
    for program in [*_programs(usages for _, usages in sides), "together"]:
        found = [_named(usages, program) for _, usages in sides]
        cells = [program, *(cell for usage in found for cell in _memory_cells(usage))]
        if ratio:
            cells.append(_ratio(_named(figures.one["native"].usages, program), found[-1]))
        rows.append(tuple(cells))
    note = (
        "RSS is everything resident; own is what the process made itself, without the pages of the program's file; PSS "
        "divides pages among all processes that share them, of other clusters too. Pods have a pause process and a "
        "containerd-shim each, which plain processes do not need; they are counted. Published by others: k0smotron "
        "210 to 560 MiB for each of 100 clusters."
    )
    if ratio:
        columns.append("RSS native/plain")
    return Table("Memory of one cluster's masters at rest", tuple(columns), tuple(rows), note, ("dkos-masters",))


def _processor_table(figures: Figures) -> Table | None:
    sides = _sides(figures)
    if not sides:
        return None
    rows = []
    for program in [*_programs(usages for _, usages in sides), "together"]:
        found = [_named(usages, program) for _, usages in sides]
        rows.append((program, *(f"{usage.cores * 1000:.1f}" if usage else _NONE for usage in found)))
    columns = ("thousandths of a core", *(name for name, _ in sides))
    note = "The average of the time watched. Published by others: k0smotron 0.4 to 1.3 cores for each of 100 clusters."
    return Table("Processor time of one cluster's masters at rest", columns, tuple(rows), note)


def _growth_table(figures: Figures) -> Table | None:
    if not figures.growth:
        return None
    rows = []
    # A run that was ended may have made one more cluster than it had watched.
    for idle, created in zip(figures.growth, figures.growing, strict=False):
        whole = total(idle.usages)
        rows.append(
            (
                str(idle.clusters),
                f"{whole.rss_mib:.0f}",
                f"{whole.pss_mib:.0f}",
                f"{whole.pss_mib / idle.clusters:.0f}",
                f"{whole.cores * 1000:.0f}",
                f"{whole.cores * 1000 / idle.clusters:.0f}",
                f"{created.api:.2f} s",
                f"{created.pod:.2f} s",
            )
        )
    columns = (
        "clusters",
        "RSS MiB",
        "PSS MiB",
        "PSS each",
        "CPU m",
        "CPU each",
        "newest: API answers",
        "first pod runs",
    )
    note = (
        "All clusters' masters together, at rest. RSS counts what clusters share once for each of them, PSS once; "
        "PSS is what the machine gives up."
    )
    title = f"From 1 to {len(rows)} clusters"
    return Table(title, columns, tuple(rows), note, ("dkos-memory", "dkos-processor"))


def _at_once_table(figures: Figures) -> Table | None:
    made = figures.at_once
    if not made:
        return None
    rows = []
    for title, samples, published in (
        ("API answers", [one.api for one in made], "Kamaji: 100 in 450 s, 4.5 s each, on one shared etcd"),
        ("node Ready", [one.node for one in made], _NONE),
        ("first pod runs", [one.pod for one in made], _NONE),
    ):
        rows.append(
            (
                title,
                f"{min(samples):.1f} s",
                f"{median(samples):.1f} s",
                f"{max(samples):.1f} s",
                f"{max(samples) / len(samples):.2f} s",
                published,
            )
        )
    columns = ("step", "first", "median", "last", "last / count", "published by others")
    return Table(f"{len(made)} clusters at once", columns, tuple(rows), figures=("dkos-at-once",))


def _creation_chart(figures: Figures) -> BarChart:
    steps = [(title, pick) for title, pick, _ in _STAGES]
    series = []
    for network in _networks(figures.creations):
        samples = [_samples(figures.creations, network, pick) for _, pick in steps]
        middles = tuple(median(found) if found else None for found in samples)
        highs = tuple(percentile(found, 0.9) if found else None for found in samples)
        series.append(Series(network, middles, highs))
    if figures.peer_starts:
        known = {"API answers": [one.api for one in figures.peer_starts]}
        known["default ServiceAccount"] = [one.account for one in figures.peer_starts]
        middles = tuple(median(known[title]) if title in known else None for title, _ in steps)
        highs = tuple(percentile(known[title], 0.9) if title in known else None for title, _ in steps)
        series.append(Series("plain processes", middles, highs))
    groups = ("API answers", "account", "node Ready", "first pod", "pod alone", "deleted")
    return BarChart("From the request to a running pod: median, and p90 as a line", "seconds", groups, tuple(series))


def _masters_chart(figures: Figures) -> BarChart:
    sides = _sides(figures)
    programs = [*_programs(usages for _, usages in sides), "together"]
    series = []
    for name, usages in sides:
        found = [_named(usages, program) for program in programs]
        series.append(Series(name, tuple(usage.rss_mib if usage else None for usage in found)))
    shown = tuple(program.removeprefix("kube-").removesuffix("-generic") for program in programs)
    return BarChart("Memory of one cluster's masters at rest", "MiB of RSS", shown, tuple(series))


def _memory_chart(figures: Figures) -> LineChart:
    wholes = [total(idle.usages) for idle in figures.growth]
    series = (
        Series("PSS, shared pages once", tuple(whole.pss_mib for whole in wholes)),
        Series("RSS, shared pages for each", tuple(whole.rss_mib for whole in wholes)),
    )
    return LineChart("Memory of all masters at rest", "clusters", "MiB", _counts(figures), series)


def _processor_chart(figures: Figures) -> LineChart:
    cores = tuple(total(idle.usages).cores * 1000 for idle in figures.growth)
    series = (Series("all masters", cores),)
    return LineChart("Processor time of all masters at rest", "clusters", "thousandths", _counts(figures), series)


def _at_once_chart(figures: Figures) -> BarChart:
    def ordered(pick: Callable[[Creation], float]) -> tuple[float, ...]:
        return tuple(sorted(pick(one) for one in figures.at_once))

    series = (
        Series("API answers", ordered(lambda one: one.api)),
        Series("first pod runs", ordered(lambda one: one.pod)),
    )
    groups = tuple(str(number + 1) for number in range(len(figures.at_once)))
    return BarChart(f"{len(groups)} clusters asked for at once, in the order they came", "seconds", groups, series)


def _counts(figures: Figures) -> tuple[float, ...]:
    return tuple(float(idle.clusters) for idle in figures.growth)


def _networks(creations: Iterable[Creation]) -> list[str]:
    return list(dict.fromkeys(one.network for one in creations))


def _samples(creations: Iterable[Creation], network: str, pick: Callable[[Creation], float | None]) -> list[float]:
    picked = [pick(one) for one in creations if one.network == network]
    return [value for value in picked if value is not None]


def _programs(sides: Iterable[Sequence[Usage]]) -> list[str]:
    """Return all programs, those with the most memory first."""
    most: dict[str, float] = {}
    for usages in sides:
        for usage in usages:
            most[usage.name] = max(most.get(usage.name, 0), usage.rss_mib)
    return sorted(most, key=lambda name: (-most[name], name))


def _named(usages: Sequence[Usage], name: str) -> Usage | None:
    if name == "together":
        return total(usages)
    return next((usage for usage in usages if usage.name == name), None)


def _memory_cells(usage: Usage | None) -> list[str]:
    if usage is None:
        return [_NONE, _NONE, _NONE]
    return [f"{usage.rss_mib:.0f}", f"{usage.anonymous_mib:.0f}", f"{usage.pss_mib:.0f}"]


def _ratio(mine: Usage | None, theirs: Usage | None) -> str:
    return f"{mine.rss_mib / theirs.rss_mib:.2f}" if mine and theirs and theirs.rss_mib else _NONE


def _quantity(value: float | None, unit: str) -> str:
    if value is None:
        return _NONE
    return f"{value:.2f} {unit}" if unit == "s" else f"{value:.0f} {unit}"
