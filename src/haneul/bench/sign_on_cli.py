"""``haneul bench auth``: what is measured comes from the composition root; here is what happens to the figures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from haneul.bench import sign_on_report
from haneul.bench.cli import record_in, tell, until_told
from haneul.bench.sign_on_figures import QUICK, SignOnFigures, SignOnPlan
from haneul.kernel.clock import Clock
from haneul.kernel.errors import InvalidInputError

#: Measures into the figures and facts that it is given.
RunSignOn = Callable[[SignOnPlan, SignOnFigures, dict[str, str]], Coroutine[Any, Any, None]]


def add_auth_command(app: typer.Typer, run_sign_on: RunSignOn, clock: Clock) -> None:
    """Add the command to the group of benchmarks."""

    @app.command("auth")
    def auth(
        quick: Annotated[bool, typer.Option("--quick", help="One short round: a trial, no figure.")] = False,
        results: Annotated[Path, typer.Option(help="Folder for JSON.")] = Path("bench-results"),
        record: Annotated[
            Path | None, typer.Option(help="Folder of the page benchmarks.md, in which the figures are replaced.")
        ] = None,
    ) -> None:
        """Measure what sign-on adds to the time of answers, through nginx at 1,000 requests a second.

        It needs no platform, but nginx. The same app is asked with and without sign-on, in turn. Let nothing else run
        on the host meanwhile.

        Examples:

            haneul bench auth --quick

            haneul bench auth --record docs/reference
        """
        if quick and record is not None:
            raise InvalidInputError("a trial has no figures to record", hint="leave out --quick or --record")
        at, plan = clock.now(), QUICK if quick else SignOnPlan()
        figures, machine = SignOnFigures(), dict[str, str]()
        try:
            asyncio.run(until_told(run_sign_on(plan, figures, machine)))
        finally:
            report = sign_on_report.report(figures, plan, at=at, machine=machine)
            if figures.rounds:
                tell(report, {}, results)
        if record is not None:
            record_in(report, {}, record)
