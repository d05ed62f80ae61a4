"""What is told of the figures: verdicts, tables, drawings."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from haneul.bench.cli import Outcome, RunDkos, bench_app
from haneul.bench.dkos import BenchPlan, Creation, DkosBench, Figures, Idle, Waking
from haneul.bench.dkos_report import drawings, report, verdicts
from haneul.bench.process_usage import Usage
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import InvalidInputError, UnavailableError

AT = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
MACHINE = {"cores": "2", "memory": "24.0 GiB"}


def creation(api: float, pod: float, network: str = "native") -> Creation:
    return Creation(network, api, api + 1, api + 2, pod, 0.8, 5.0)


def words(figures: Figures) -> dict[str, str]:
    return {verdict.promise: verdict.word for verdict in verdicts(figures)}


def test_what_was_not_measured_is_not_called_met() -> None:
    assert set(words(Figures()).values()) == {"not measured"}


def test_medians_are_held_against_the_promises() -> None:
    figures = Figures(creations=[creation(4, 9), creation(4.9, 10.5), creation(7, 11)])
    assert words(figures)["native: API answers"] == "met"
    assert words(figures)["native: first pod runs"] == "NOT met"
    assert words(figures)["cilium: first pod runs"] == "not measured"


def test_ten_at_once_is_the_time_of_the_last_by_ten() -> None:
    many = [creation(float(number), 60) for number in range(20, 30)]
    verdict = next(one for one in verdicts(Figures(at_once=many)) if one.promise.startswith("ten at once"))
    assert verdict.measured == pytest.approx(2.9)
    assert words(Figures(at_once=many[:9]))[verdict.promise] == "not measured"


@pytest.mark.parametrize(("size", "word"), [(399.0, "met"), (400.0, "NOT met")])
def test_memory_is_judged_by_all_that_is_resident(size: float, word: str) -> None:
    usages = (Usage("kube-apiserver", 1, size - 50, 10, 10, 0.01), Usage("etcd", 1, 50, 10, 10, 0.01))
    assert words(Figures(one={"native": Idle(1, usages)}))["one tenant's masters at rest, RSS"] == word


def test_what_a_cluster_costs_beside_others_is_judged_with_ten() -> None:
    idle = [Idle(number, (Usage("etcd", number, 0, 0, 390.0 * number, 0.01),)) for number in range(1, 11)]
    promise = "each of ten tenants' masters at rest, PSS"
    assert words(Figures(growth=idle))[promise] == "met"
    assert words(Figures(growth=idle[:9]))[promise] == "not measured"


def test_a_run_that_was_ended_before_its_last_cluster_was_watched_is_told() -> None:
    usages = (Usage("etcd", 1, 50, 10, 10, 0.01),)
    figures = Figures(growth=[Idle(1, usages)], growing=[creation(4, 9), creation(5, 10)])
    (table,) = [one for one in report(figures, at=AT, machine=MACHINE).tables if one.columns[0] == "clusters"]
    assert [row[0] for row in table.rows] == ["1"]


@pytest.mark.parametrize(("api", "word"), [(9.9, "met"), (10.0, "NOT met")])
def test_waking_is_held_against_its_promise(api: float, word: str) -> None:
    figures = Figures(wakings=[Waking("native", 12, api, api + 5)] * 3)
    assert words(figures)["native: woken from sleep, API answers"] == word
    assert words(figures)["cilium: woken from sleep, API answers"] == "not measured"


async def measured(bench: DkosBench, plan: BenchPlan) -> Figures:
    figures = Figures()
    await bench.run(plan, figures)
    return figures


async def test_a_full_run_has_all_tables_and_drawings(bench: DkosBench) -> None:
    figures = await measured(bench, BenchPlan(rounds=2, clusters=2, at_once=2))
    made = report(figures, at=AT, machine=MACHINE)
    assert [table.title for table in made.tables] == [
        "Promises",
        "From the request to a running pod",
        "To sleep, and from the request to wake on",
        "Beside plain processes",
        "Memory of one cluster's masters at rest",
        "Processor time of one cluster's masters at rest",
        "From 1 to 2 clusters",
        "2 clusters at once",
    ]
    drawn = drawings(figures)
    assert {figure for table in made.tables for figure in table.figures} == set(drawn)
    for document in drawn.values():
        ElementTree.fromstring(document)  # noqa: S314 - made a moment ago
    beside = made.tables[3].rows
    assert beside[0] == ("API answers", "4.00 s", "2.00 s", "2.00")


async def test_a_run_without_its_peer_has_no_comparison(bench: DkosBench) -> None:
    figures = await measured(bench, BenchPlan(rounds=1, clusters=1, at_once=0))
    figures.peer_starts.clear()
    figures.peer_idle = ()
    made = report(figures, at=AT, machine=MACHINE)
    assert "Beside plain processes" not in [table.title for table in made.tables]
    masters = next(table for table in made.tables if table.title.startswith("Memory of one"))
    assert not any("plain" in column for column in masters.columns)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    page = tmp_path / "docs" / "benchmarks.md"
    page.parent.mkdir()
    page.write_text("# Benchmarks\n\n<!-- dkos: begin -->\n<!-- dkos: end -->\n")
    return page


async def no_registries(*_: object) -> None:
    raise AssertionError("registries are another command's")


def invoke(run: RunDkos, results: Path, *arguments: str) -> Result:
    """Run the command in this thread, the only one that signals come to."""
    app = bench_app(run, no_registries, VirtualClock(AT))
    return CliRunner().invoke(app, ["dkos", "--results", str(results), *arguments])


def test_the_command_prints_writes_and_records(bench: DkosBench, page: Path, tmp_path: Path) -> None:
    asked: list[Any] = []

    async def run(plan: BenchPlan, peer: bool, outcome: Outcome) -> None:
        asked.append((plan.rounds, peer))
        outcome.machine |= MACHINE
        await bench.run(BenchPlan(rounds=1, clusters=1, at_once=2), outcome.figures)

    ended = invoke(run, tmp_path / "results", "--no-peer", "--record", str(page.parent))
    assert ended.exit_code == 0, ended.output
    assert asked == [(5, False)]
    assert "From the request to a running pod" in ended.output
    document = json.loads((tmp_path / "results" / "dkos-2026-11-01-120000.json").read_text())
    assert document["machine"] == MACHINE
    assert document["measured"]["creations"][0]["api"] == 4
    assert (tmp_path / "results" / "dkos-2026-11-01-120000-create.svg").is_file()
    assert "### Promises" in page.read_text()
    assert len(list((page.parent / "figures").iterdir())) == 5


def test_a_trial_is_not_recorded(page: Path, tmp_path: Path) -> None:
    async def run(plan: BenchPlan, peer: bool, outcome: Outcome) -> None:
        raise AssertionError("refused before anything is measured")

    ended = invoke(run, tmp_path / "results", "--quick", "--record", str(page.parent))
    assert isinstance(ended.exception, InvalidInputError)
    assert "### Promises" not in page.read_text()


def test_a_run_that_is_told_to_end_clears_up_and_keeps_its_figures(page: Path, tmp_path: Path) -> None:
    cleared = []

    async def run(plan: BenchPlan, peer: bool, outcome: Outcome) -> None:
        outcome.figures.creations.append(creation(4, 9))
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            cleared.append(True)

    ended = invoke(run, tmp_path / "results", "--record", str(page.parent))
    assert isinstance(ended.exception, UnavailableError)
    assert cleared == [True]
    assert len(list((tmp_path / "results").glob("*.json"))) == 1
    assert "### Promises" not in page.read_text()


def test_a_run_that_measured_nothing_writes_nothing(tmp_path: Path) -> None:
    async def run(plan: BenchPlan, peer: bool, outcome: Outcome) -> None:
        raise UnavailableError("no platform here")

    ended = invoke(run, tmp_path / "results")
    assert isinstance(ended.exception, UnavailableError)
    assert not (tmp_path / "results").exists()
