"""Counts of requests and bytes for Prometheus (text exposition format 0.0.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from haneul.d2hub.exchange import Reply

_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"})


#: What is counted of mirrors, by project.
_OF_MIRRORS: Final = {
    "manifests_fetched": "Manifests that came from upstreams.",
    "blobs_fetched": "Blobs that came from upstreams.",
    "tags_moved": "Tags that were seen to name something else at their upstream than before.",
    "tags_gone": "Tags that upstreams were seen to have no more.",
    "stale": "Pulls of a tag whose upstream was asked and did not say what it names.",
}


class MirrorCounts:
    """What mirrors of this process have done since it began."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._failures: Counter[tuple[str, str]] = Counter()
        self._received: Counter[str] = Counter()

    def count(self, what: str, project: str) -> None:
        """Count one of what mirrors do."""
        self._counts[what, project] += 1

    def failed(self, project: str, code: str) -> None:
        """Count a request that an upstream did not answer as it should, or whose answer could not be kept."""
        self._failures[project, code] += 1

    def received(self, project: str, count: int) -> None:
        """Count bytes of blobs."""
        self._received[project] += count

    def lines(self) -> list[str]:
        """Return everything for Prometheus; nothing where there are no mirrors."""
        lines = []
        for what, words in _OF_MIRRORS.items():
            found = {f'project="{key}"': n for (name, key), n in sorted(self._counts.items()) if name == what}
            lines += _if_any(f"d2hub_mirror_{what}_total", words, found)
        failures = {f'project="{key}",code="{code}"': n for (key, code), n in sorted(self._failures.items())}
        lines += _if_any(
            "d2hub_mirror_failures_total", "Requests that upstreams did not answer well, or in vain.", failures
        )
        received = {f'project="{key}"': count for key, count in sorted(self._received.items())}
        return lines + _if_any("d2hub_mirror_received_bytes_total", "Bytes of blobs from upstreams.", received)


class Metrics:
    """What this process has done since it began."""

    media_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._sent = 0
        self._received = 0
        self._sources: list[Callable[[], Iterable[str]]] = []

    def also(self, source: Callable[[], Iterable[str]]) -> None:
        """Take up lines that another part of this process knows, as :func:`family` makes them."""
        self._sources.append(source)

    def count(self, method: str, reply: Reply) -> None:
        """Count a request that was answered."""
        self._requests[method if method in _METHODS else "other", reply.status] += 1
        if method == "GET" and reply.content is not None:
            if reply.part is not None:
                self._sent += reply.part[1] - reply.part[0] + 1
            else:
                self._sent += len(reply.content) if isinstance(reply.content, bytes) else reply.content.size

    def received(self, count: int) -> None:
        """Count bytes of bodies."""
        self._received += count

    def text(self) -> bytes:
        """Return everything for Prometheus."""
        lines = ["# HELP d2hub_requests_total Requests that were answered.", "# TYPE d2hub_requests_total counter"]
        lines += [
            f'd2hub_requests_total{{method="{method}",status="{status}"}} {count}'
            for (method, status), count in sorted(self._requests.items())
        ]
        for name, what, value in (
            ("d2hub_sent_bytes_total", "Bytes of content in answers.", self._sent),
            ("d2hub_received_bytes_total", "Bytes of bodies that arrived.", self._received),
        ):
            lines += [f"# HELP {name} {what}", f"# TYPE {name} counter", f"{name} {value}"]
        for source in self._sources:
            lines += source()
        return ("\n".join(lines) + "\n").encode()


def family(name: str, kind: str, what: str, values: Mapping[str, float]) -> list[str]:
    """Return the lines of one metric; ``values`` are by labels, such as ``result="done"``, or nothing."""
    lines = [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
    return lines + [f"{name}{{{labels}}} {value}" if labels else f"{name} {value}" for labels, value in values.items()]


def _if_any(name: str, what: str, values: Mapping[str, float]) -> list[str]:
    return family(name, "counter", what, values) if values else []
