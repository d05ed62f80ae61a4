"""Counts of what is published, for Prometheus (text exposition format 0.0.4), by cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

#: Seconds between a change and its acknowledgement, at which figures of how many took no longer are told.
BOUNDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Figures:
    """What was done for one cluster since this process began; moments are of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self.written = 0
        self.conflicts = 0
        self.failures: Counter[str] = Counter()
        self.waits: Counter[float] = Counter()
        self.waited = 0.0
        #: When the oldest of the changes was seen that no server has acknowledged, and how many names have one.
        self.pending_since: float | None = None
        self.pending = 0

    def wrote(self, sets: int) -> None:
        """Count record sets that came, went or became others."""
        self.written += sets

    def took(self, seconds: Iterable[float]) -> None:
        """Count how long changes of names took from when they were seen until they were acknowledged."""
        for wait in seconds:
            self.waits[next((bound for bound in BOUNDS if wait <= bound), float("inf"))] += 1
            self.waited += wait

    def waits_for(self, pending: Mapping[str, float]) -> None:
        """Take note which names have changes that are not acknowledged, and since when."""
        self.pending, self.pending_since = len(pending), min(pending.values(), default=None)

    def failed(self, code: str) -> None:
        """Count an error, after which everything is tried again."""
        self.failures[code] += 1


class Metrics:
    """The figures of all clusters of this process; of one that is forgotten nothing is told any more."""

    def __init__(self, now: Callable[[], float]) -> None:
        """``now`` is the monotonic clock."""
        self._now = now
        self._clusters: dict[str, Figures] = {}

    def of(self, cluster: str) -> Figures:
        """Return the figures of a cluster, which begin at nothing."""
        return self._clusters.setdefault(cluster, Figures())

    def forget(self, cluster: str) -> None:
        """Let a cluster go."""
        self._clusters.pop(cluster, None)

    def text(self) -> str:
        """Return everything for Prometheus."""
        known = [(f'cluster="{name}"', figures) for name, figures in sorted(self._clusters.items())]
        lines = _family(
            "haneul_dns_record_sets_written_total",
            "counter",
            "Record sets that a server acknowledged to have come, gone or changed.",
            [("", labels, figures.written) for labels, figures in known],
        )
        lines += _family(
            "haneul_dns_failures_total",
            "counter",
            "Errors after which everything was tried again, by their code.",
            [
                ("", f'{labels},code="{code}"', count)
                for labels, figures in known
                for code, count in sorted(figures.failures.items())
            ],
        )
        lines += _family(
            "haneul_dns_conflicts",
            "gauge",
            "Record sets that somebody else's are in the way of.",
            [("", labels, figures.conflicts) for labels, figures in known],
        )
        lines += _family(
            "haneul_dns_pending_names",
            "gauge",
            "Names with changes that no server has acknowledged.",
            [("", labels, figures.pending) for labels, figures in known],
        )
        lines += _family(
            "haneul_dns_pending_seconds",
            "gauge",
            "How long ago the oldest change was seen that no server has acknowledged; 0 if there is none.",
            [("", labels, self._lag(figures)) for labels, figures in known],
        )
        lines += _family(
            "haneul_dns_publish_seconds",
            "histogram",
            "From when a name's change was seen until the server acknowledged it.",
            [line for labels, figures in known for line in _histogram(labels, figures)],
        )
        return "\n".join(lines) + "\n"

    def _lag(self, figures: Figures) -> float:
        return 0.0 if figures.pending_since is None else round(self._now() - figures.pending_since, 3)


def _histogram(labels: str, figures: Figures) -> list[tuple[str, str, float]]:
    lines: list[tuple[str, str, float]] = []
    total = 0
    for bound in BOUNDS:
        total += figures.waits[bound]
        lines.append(("_bucket", f'{labels},le="{bound}"', total))
    total += figures.waits[float("inf")]
    lines.append(("_bucket", f'{labels},le="+Inf"', total))
    return [*lines, ("_sum", labels, round(figures.waited, 6)), ("_count", labels, total)]


def _family(name: str, kind: str, what: str, values: Iterable[tuple[str, str, float]]) -> list[str]:
    """Return the lines of one metric; each value has an ending of the name, and labels."""
    lines = [f"{name}{ending}{{{labels}}} {value}" for ending, labels, value in values]
    return [f"# HELP {name} {what}", f"# TYPE {name} {kind}", *lines]
