"""What a run leaves for people and programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from haneul.bench.report import as_json, as_markdown, as_text
from haneul.chaos.cli import add_chaos_command
from haneul.chaos.faults import CATALOGUE
from haneul.chaos.outcome import Outcome
from haneul.chaos.plan import Round, named_plan
from haneul.chaos.report import catalogue_markdown, drawings, report
from haneul.chaos.run import ChaosRun
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import HaneulError
from haneul.kernel.progress import SilentProgress
from tests.unit.chaos.memory import MemoryPlatform

START = datetime(2026, 11, 27, tzinfo=UTC)


async def break_in_memory(plan: Sequence[Round], outcome: Outcome, *, mending: float = 1) -> None:
    platform = MemoryPlatform(VirtualClock(START), mending=mending)
    await ChaosRun(platform, platform, clock=platform.clock, progress=SilentProgress()).run(plan, outcome)


async def test_the_table_says_what_broke_who_noticed_and_the_verdict() -> None:
    outcome = Outcome()
    await break_in_memory(named_plan(["etcd-killed", "scheduler-killed"]), outcome)
    made = report(outcome, at=START, machine={"cores": "2"})
    faults = made.tables[0]
    etcd, scheduler = faults.rows
    assert etcd[0] == "etcd-killed" and etcd[2].startswith("victim's API") and etcd[4] == "kept"
    assert scheduler[2] == "nobody"
    assert "### The outage ledger" in as_markdown(made, figures="figures")
    assert "Nothing acknowledged is lost" in as_text(made)
    measured = json.loads(as_json(made))["measured"]
    assert measured["broken"] == [] and measured["complete"]
    assert measured["rounds"][0]["asked"]["victim's API"]["failed"] > 0


async def test_the_drawing_shows_recoveries_and_gaps() -> None:
    outcome = Outcome()
    await break_in_memory(named_plan(["etcd-killed", "scheduler-killed"]), outcome)
    drawn = drawings(outcome)["chaos-recovery"]
    assert drawn.startswith("<svg") and "longest gap of anybody" in drawn
    assert drawings(Outcome()) == {}


def test_the_catalogue_names_every_fault() -> None:
    table = catalogue_markdown()
    assert all(f"`{fault.name}`" in table for fault in CATALOGUE)


def application(mending: float = 1) -> typer.Typer:
    app = typer.Typer()

    @app.callback()
    def group() -> None:
        pass

    async def run(plan: Sequence[Round], beside_others: bool, outcome: Outcome) -> None:
        await break_in_memory(plan, outcome, mending=mending)

    add_chaos_command(app, run, VirtualClock(START))
    return app


def test_the_command_writes_json_and_ends_well(tmp_path: Path) -> None:
    done = CliRunner().invoke(application(), ["chaos", "--only", "etcd-killed", "--results", str(tmp_path)])
    assert done.exit_code == 0, done.output
    (written,) = tmp_path.glob("chaos-*.json")
    assert json.loads(written.read_text())["measured"]["leftOver"] == []


def test_a_broken_promise_is_an_error_and_is_written_down_all_the_same(tmp_path: Path) -> None:
    done = CliRunner().invoke(application(45), ["chaos", "--only", "etcd-killed", "--results", str(tmp_path)])
    assert isinstance(done.exception, HaneulError)
    assert "promises were not kept" in str(done.exception)
    (written,) = tmp_path.glob("chaos-*.json")
    assert json.loads(written.read_text())["measured"]["broken"]


@pytest.mark.parametrize("arguments", [["--quick"], ["--only", "etcd-killed"]])
def test_only_the_whole_suite_is_recorded(arguments: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(application(), ["chaos", *arguments, "--record", str(tmp_path)])
    assert isinstance(done.exception, HaneulError)
    assert list(tmp_path.iterdir()) == []


def test_the_whole_suite_replaces_the_figures_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "faults.md"
    page.write_text("# Faults\n\n<!-- chaos: begin -->\nold\n<!-- chaos: end -->\nafter\n")
    results = tmp_path / "results"
    done = CliRunner().invoke(application(), ["chaos", "--record", str(tmp_path), "--results", str(results)])
    assert done.exit_code == 0, done.exception
    assert "old" not in page.read_text()
    assert "power-cut" in page.read_text() and page.read_text().endswith("after\n")
    assert (tmp_path / "figures/chaos-recovery.svg").exists()
