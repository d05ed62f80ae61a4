"""What is told of registries' figures; and the load that makes them, against a server of a few lines."""

from __future__ import annotations

import asyncio
import http.server
import os
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from haneul.bench.cli import RunRegistries, bench_app
from haneul.bench.registries_report import OURS, drawings, report
from haneul.bench.registry_figures import CASES, RegistryFigures, RegistryPlan, Round
from haneul.bench.registry_load import pull
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import UnavailableError

AT = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
PEER = "docker-registry"


def one(rate: float, failed: int = 0) -> Round:
    return Round(rate, rate / 2, 1.5, 9.5, {"500": failed} if failed else {})


def fill(figures: RegistryFigures, ours: float, theirs: float) -> RegistryFigures:
    for case in CASES:
        figures.rounds[case.name] = {OURS: [one(ours - 1), one(ours), one(ours + 1)], PEER: [one(theirs)] * 3}
    figures.memory |= {OURS: 150.0, PEER: 90.0}
    return figures


def test_promises_are_judged_by_medians() -> None:
    promises, rates, latencies = report(fill(RegistryFigures(), 150, 100), at=AT, machine={}).tables
    verdicts = {row[0]: row[2:] for row in promises.rows}
    assert verdicts["manifest by tag: times docker-registry"] == ("1.50", "NOT met")
    assert verdicts["push 1 MiB, one repository: times docker-registry"] == ("1.50", "met")
    assert verdicts["memory after all load"] == ("150 MiB", "met")
    assert rates.rows[0] == ("manifest by tag", "150", "75", "100", "50")
    assert latencies.rows[0] == ("manifest by tag", "1.50 ms", "9.50 ms", "0", "1.50 ms", "9.50 ms", "0")


def test_failures_are_counted() -> None:
    figures = fill(RegistryFigures(), 150, 100)
    figures.rounds[CASES[0].name][OURS].append(one(1, failed=7))
    assert report(figures, at=AT, machine={}).tables[2].rows[0][3] == "7"


def test_a_run_cut_short_tells_what_it_has() -> None:
    figures = RegistryFigures(rounds={CASES[0].name: {OURS: [one(100)]}})
    promises, rates, _ = report(figures, at=AT, machine={}).tables
    assert promises.rows == ()
    assert rates.rows[1] == (CASES[1].name, "-", "-")
    assert list(drawings(figures)) == ["d2hub-requests"]


def test_the_drawings_are_svg() -> None:
    drawn = drawings(fill(RegistryFigures(), 150, 100))
    assert sorted(drawn) == ["d2hub-large", "d2hub-pushes", "d2hub-requests"]
    for document in drawn.values():
        ElementTree.fromstring(document)  # noqa: S314 - made a moment ago


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
        assert (plan, peer, folder) == (RegistryPlan(), True, None)
        fill(figures, 150, 100)
        machine["cores"] = "2"

    done = invoke(run, tmp_path / "results", "--record", str(page.parent))
    assert done.exit_code == 0, done.output
    assert "| manifest by tag | 150 | 75 | 100 | 50 |" in page.read_text()
    assert (page.parent / "figures" / "d2hub-pushes.svg").exists()
    assert len(list((tmp_path / "results").glob("d2hub-*"))) == 4


def test_a_run_that_is_told_to_end_stops_its_registries_and_keeps_its_figures(tmp_path: Path) -> None:
    stopped = []

    async def run(
        plan: RegistryPlan, peer: bool, figures: RegistryFigures, machine: dict[str, str], folder: Path | None
    ) -> None:
        fill(figures, 150, 100)
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
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        found = self.path == "/there"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(b"x" * 100_000)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("path", "fails"), [("/there", False), ("/missing", True)])
def test_the_load_counts_answers_bytes_and_failures(port: int, path: str, fails: bool) -> None:
    job = {"address": "127.0.0.1", "port": port, "host": "x", "authorization": "x", "method": "GET", "path": path}
    load = pull({**job, "connections": 2, "seconds": 0.2})
    assert len(load.latencies) >= 2
    assert load.moved > 100_000 * len(load.latencies)
    assert (sum(load.failures.values()) == len(load.latencies)) is fails
