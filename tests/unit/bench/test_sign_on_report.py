"""What the figures of sign-on mean."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import typer
from typer.testing import CliRunner, Result

from haneul.bench.sign_on_cli import RunSignOn, add_auth_command
from haneul.bench.sign_on_figures import GUARDED, OPEN, QUICK, Round, SignOnFigures, SignOnPlan
from haneul.bench.sign_on_report import report
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import InvalidInputError

AT = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)


def one(p50: float, p99: float, *, failed: int = 0) -> Round:
    return Round(1000, 999.5, p50, p99, 0.05, {"503": failed} if failed else {})


def fill_in(figures: SignOnFigures, added: float) -> SignOnFigures:
    figures.rounds[OPEN] = [one(1.0, 3.0), one(5.0, 9.0), one(2.0, 4.0)]
    figures.rounds[GUARDED] = [one(before.p50 + added, before.p99 + 2 * added) for before in figures.rounds[OPEN]]
    figures.memory = 60.2
    return figures


def test_the_goal_is_judged_by_rounds_that_followed_each_other() -> None:
    for added, verdict in ((0.9, "met"), (1.1, "NOT met")):
        goal, _ = report(fill_in(SignOnFigures(), added), SignOnPlan(), at=AT, machine={}).tables
        assert goal.rows[0] == ("added to half of the answers (p50)", "≤ 1 ms", f"{added:.2f} ms", verdict)
        assert goal.rows[1][2] == f"{2 * added:.2f} ms"


def test_both_sides_and_failures_are_told() -> None:
    figures = fill_in(SignOnFigures(), 0.5)
    figures.rounds[GUARDED].append(one(2.0, 4.0, failed=3))
    _, sides = report(figures, SignOnPlan(), at=AT, machine={}).tables
    assert sides.rows[0] == ("open", "1,000", "2.00 ms", "4.00 ms", "0.050 ms", "3000", "0")
    assert sides.rows[1][-2:] == ("4000", "3")
    assert "60 MiB" in sides.note


def test_a_run_cut_short_tells_what_it_has() -> None:
    goal, sides = report(SignOnFigures(rounds={OPEN: [one(1, 2)]}), QUICK, at=AT, machine={}).tables
    assert (goal.rows, len(sides.rows)) == ((), 1)


def invoke(run: RunSignOn, results: Path, *arguments: str) -> Result:
    app = typer.Typer()
    app.callback()(lambda: None)
    add_auth_command(app, run, VirtualClock(AT))
    return CliRunner().invoke(app, ["auth", "--results", str(results), *arguments])


async def measured(plan: SignOnPlan, figures: SignOnFigures, machine: dict[str, str]) -> None:
    fill_in(figures, 0.5)
    machine["cores"] = "2"


def test_the_command_records(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "benchmarks.md"
    page.parent.mkdir()
    page.write_text("<!-- auth: begin -->\n<!-- auth: end -->\n")
    done = invoke(measured, tmp_path / "results", "--record", str(page.parent))
    assert done.exit_code == 0, done.output
    assert "| added to half of the answers (p50) | ≤ 1 ms | 0.50 ms | met |" in page.read_text()
    assert len(list((tmp_path / "results").glob("auth-*.json"))) == 1


def test_a_trial_is_not_recorded(tmp_path: Path) -> None:
    refused = invoke(measured, tmp_path, "--quick", "--record", str(tmp_path))
    assert isinstance(refused.exception, InvalidInputError)
