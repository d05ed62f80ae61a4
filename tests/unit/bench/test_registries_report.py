"""What is told of registries' figures; and the load that makes them, against a server of a few lines."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import json
import os
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from haneul.bench.cli import RunRegistries, bench_app
from haneul.bench.registries_report import drawings, report
from haneul.bench.registry_connection import header
from haneul.bench.registry_figures import (
    BARE,
    CASES,
    DEBIAN,
    DISTRIBUTION,
    FILLED,
    OURS,
    RegistryFigures,
    RegistryPlan,
    Round,
)
from haneul.bench.registry_load import fill, first, pull, push
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import UnavailableError

AT = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def one(rate: float, p99: float = 9.5, failed: int = 0, cpu: float = 0.4) -> Round:
    return Round(rate, rate / 2, 1.5, p99, {"500": failed} if failed else {}, cpu)


def fill_in(figures: RegistryFigures, ours: float, theirs: float) -> RegistryFigures:
    """Give every case three rounds; the registry that is full has three quarters of the speed."""
    for case in CASES:
        figures.rounds[case.name] = {
            OURS: [one(ours + turn, cpu=0.2) for turn in (-1, 0, 1)],
            DISTRIBUTION: [one(theirs, 9.0)] * 3,
            DEBIAN: [one(theirs / 2)] * 3,
        }
        if case.grows:
            figures.rounds[case.name][FILLED] = [one((ours + turn) * 0.75) for turn in (-1, 0, 1)]
    figures.rounds["blob 4 KiB"][BARE] = [one(9000)] * 3
    figures.memory |= {OURS: 150.0, DISTRIBUTION: 90.0, FILLED: 210.0, BARE: 10.0}
    figures.tags, figures.filled_per_second = 100_000, 800.0
    return figures


def goals_of(figures: RegistryFigures) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[2:] for row in report(figures, at=AT, machine={}).tables[0].rows}


def test_goals_are_judged_beside_distribution_alone() -> None:
    goals = goals_of(fill_in(RegistryFigures(), 150, 100))
    assert goals["manifest by tag: times Distribution"] == ("1.50", "NOT met")
    assert goals["first pulls, 1 MiB: times Distribution"] == ("1.50", "NOT met")
    assert goals["push 1 MiB, one repository: times Distribution"] == ("1.50", "met")
    assert goals["blob 4 KiB: p99 of Distribution's"] == ("1.06", "NOT met")
    assert goals["memory of D2Hub under load"] == ("150 MiB", "met")
    assert goals["memory of D2Hub, filled under load"] == ("210 MiB", "NOT met")
    assert not any(DEBIAN in goal or goal.startswith("list of 100 tags: times") for goal in goals)


def test_a_full_registry_keeps_four_fifths_of_its_speed_or_misses_its_goal() -> None:
    figures = fill_in(RegistryFigures(), 150, 100)
    figures.rounds["blob 1 MiB"][FILLED] = [one(120 + turn) for turn in (-1, 0, 1)]
    goals = goals_of(figures)
    assert goals["manifest HEAD: 100,000 tags, times empty"] == ("0.75", "NOT met")
    assert goals["list of repositories: 100,000 tags, times empty"] == ("0.75", "NOT met")
    assert goals["blob 1 MiB: 100,000 tags, times empty"] == ("0.80", "met")
    assert "blob 100 MiB: 100,000 tags, times empty" not in goals
    scale = report(figures, at=AT, machine={}).tables[-1]
    assert scale.rows[0] == ("manifest by tag", "150", "112", "9.50 ms", "9.50 ms", "0.20 ms", "0.40 ms", "0.75")
    assert "800 manifests a second" in scale.note


def test_ratios_are_of_rounds_that_followed_each_other() -> None:
    figures = RegistryFigures(rounds={"blob 4 KiB": {OURS: [one(20), one(200), one(90)], DISTRIBUTION: [one(10)] * 3}})
    assert figures.ratio("blob 4 KiB", OURS, DISTRIBUTION) == 9
    figures.rounds["blob 4 KiB"][DISTRIBUTION] = [one(10), one(100)]
    assert figures.ratio("blob 4 KiB", OURS, DISTRIBUTION) == 2
    assert figures.ratio("blob 1 MiB", OURS, DISTRIBUTION) is None


def test_the_tables_show_every_side() -> None:
    _, rates, latencies, processors, memory, _ = report(fill_in(RegistryFigures(), 150, 100), at=AT, machine={}).tables
    assert rates.columns == ("case", OURS, DISTRIBUTION, DEBIAN, BARE, "times Distribution", "times docker-registry")
    rows = {row[0]: row[1:] for row in rates.rows}
    assert rows["blob 4 KiB"] == ("150 (75.0)", "100 (50.0)", "50.0 (25.0)", "9,000 (4,500)", "1.50", "3.00")
    assert rows["blob 1 MiB"][3] == "-"
    assert latencies.rows[0][:7] == ("manifest by tag", "1.50 ms", "9.50 ms", "0", "1.50 ms", "9.00 ms", "0")
    assert processors.rows[0] == ("manifest by tag", "0.20 ms", "0.40 ms", "0.40 ms", "0.50", "0.50")
    assert "first pulls, 1 MiB" not in [row[0] for row in processors.rows]
    assert memory.rows == ((OURS, "150 MiB"), (DISTRIBUTION, "90 MiB"), (FILLED, "210 MiB"))


def test_failures_are_counted() -> None:
    figures = fill_in(RegistryFigures(), 150, 100)
    figures.rounds[CASES[0].name][OURS].append(one(1, failed=7))
    assert report(figures, at=AT, machine={}).tables[2].rows[0][3] == "7"


def test_a_run_cut_short_tells_what_it_has() -> None:
    figures = RegistryFigures(rounds={CASES[0].name: {OURS: [one(100)]}})
    goals, rates, *_ = report(figures, at=AT, machine={}).tables
    assert goals.rows == ()
    assert rates.rows == ((CASES[0].name, "100 (50.0)"),)
    assert list(drawings(figures)) == ["d2hub-requests"]


def test_the_drawings_are_svg() -> None:
    drawn = drawings(fill_in(RegistryFigures(), 150, 100))
    assert sorted(drawn) == ["d2hub-images", "d2hub-large", "d2hub-requests"]
    for document in drawn.values():
        ElementTree.fromstring(document)  # noqa: S314 - made a moment ago
        assert BARE not in document


async def no_clusters(*_: object) -> None:
    raise AssertionError("clusters are another command's")


def invoke(run: RunRegistries, results: Path, *arguments: str) -> Result:
    """Run the command in this thread, the only one that signals come to."""
    app = bench_app(no_clusters, run, VirtualClock(AT))
    return CliRunner().invoke(app, ["d2hub", "--results", str(results), *arguments])


def test_the_command_records(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "benchmarks.md"
    page.parent.mkdir()
    page.write_text("<!-- d2hub: begin -->\n<!-- d2hub: end -->\n")

    async def run(
        plan: RegistryPlan, peer: bool, figures: RegistryFigures, machine: dict[str, str], folder: Path | None
    ) -> None:
        assert (plan, peer, folder) == (RegistryPlan(tls=False), True, None)
        fill_in(figures, 150, 100)
        machine["cores"] = "2"

    done = invoke(run, tmp_path / "results", "--plain-http", "--record", str(page.parent))
    assert done.exit_code == 0, done.output
    assert "| manifest by tag | 150 (75.0) | 100 (50.0) | 50.0 (25.0) |" in page.read_text()
    assert (page.parent / "figures" / "d2hub-images.svg").exists()
    assert len(list((tmp_path / "results").glob("d2hub-*"))) == 4


def test_a_run_that_is_told_to_end_stops_its_registries_and_keeps_its_figures(tmp_path: Path) -> None:
    stopped = []

    async def run(
        plan: RegistryPlan, peer: bool, figures: RegistryFigures, machine: dict[str, str], folder: Path | None
    ) -> None:
        fill_in(figures, 150, 100)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            stopped.append(True)

    ended = invoke(run, tmp_path / "results")
    assert isinstance(ended.exception, UnavailableError)
    assert stopped == [True]
    assert len(list((tmp_path / "results").glob("*.json"))) == 1


class _Answers(http.server.BaseHTTPRequestHandler):
    """Takes every push and keeps it; whose token is "none" gets nothing."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._reply(200, self.server.kept.get(self.path, b""))

    def do_POST(self) -> None:
        self._reply(202, location=f"http://elsewhere{self.path}1?state=x")

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if "&digest=" in self.path:
            path, _, digest = self.path.partition("?state=x&digest=")
            assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest
            self.server.kept[path.replace("uploads/1", digest)] = content
        else:
            self.server.kept[self.path] = content
        self._reply(201)

    def _reply(self, status: int, content: bytes = b"", location: str = "") -> None:
        if self.headers["Authorization"] == "none":
            status, content = 401, b""
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(http.server.ThreadingHTTPServer):
    kept: dict[str, bytes]


@pytest.fixture
def server() -> Iterator[_Server]:
    server = _Server(("127.0.0.1", 0), _Answers)
    server.kept = {"/one": b"x" * 100_000, "/two": b"y" * 10}
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def job(server: _Server, **more: Any) -> dict[str, Any]:
    target = {"address": "127.0.0.1", "port": server.server_address[1], "authority": "", "connections": 2}
    return {**target, "seconds": 30, "authorizations": {"shop/a": "some", "shop/b": "some"}, **more}


@pytest.mark.parametrize(("token", "fails"), [("some", False), ("none", True)])
def test_the_load_counts_answers_bytes_and_failures(server: _Server, token: str, fails: bool) -> None:
    load = pull(job(server, method="GET", paths=["/one", "/two"], authorization=token, seconds=0.2))
    assert len(load.latencies) >= 2
    assert (load.moved > 40_000 * len(load.latencies)) is not fails
    assert (load.failures == {"401": len(load.latencies)}) is fails


def test_pushed_images_are_whole_and_go_to_every_repository(server: _Server) -> None:
    load = push(job(server, bytes=50_000, most=4))
    assert (len(load.latencies), load.moved, load.failures) == (4, 200_000, {})
    manifests = {path: json.loads(kept) for path, kept in server.kept.items() if "/manifests/" in path}
    assert len(manifests) == 4
    for path, manifest in manifests.items():
        repository = path.split("/manifests/")[0]
        for entry in (manifest["config"], *manifest["layers"]):
            assert len(server.kept[f"{repository}/blobs/{entry['digest']}"]) == entry["size"]
    assert {path.split("/manifests/")[0] for path in manifests} == {"/v2/shop/a", "/v2/shop/b"}


def test_pushes_that_are_refused_are_failures(server: _Server) -> None:
    load = push(job(server, bytes=10, most=3, authorizations={"shop/a": "none"}))
    assert (load.latencies, load.failures) == ([], {"POST 401": 3})


def test_each_client_pulls_each_image_whole(server: _Server) -> None:
    load = first(job(server, bytes=1000, images=3, authorizations={"shop/a": "some"}))
    assert (len(load.latencies), load.failures) == (6, {})
    assert load.moved > 6 * 1000


def test_each_tag_of_a_filled_registry_names_a_manifest_of_its_own(server: _Server) -> None:
    load = fill(job(server, tags=5))
    assert (len(load.latencies), load.failures) == (10, {})
    manifests = [kept for path, kept in server.kept.items() if "/manifests/v" in path]
    assert len(manifests) == len(set(manifests)) == 10


def test_headers_are_found_whatever_their_case() -> None:
    head = b"HTTP/1.1 200 OK\r\nX-Content-Length: 9\r\nCONTENT-LENGTH:  42\r\nlocation: /a:b"
    assert (header(head, "content-length"), header(head, "location"), header(head, "etag")) == (b"42", b"/a:b", b"")
