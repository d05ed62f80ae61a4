"""``haneul bench network``: measure, print tables, write JSON, draw charts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from haneul.bench.cli import record_in, tell, until_told
from haneul.bench.network_figures import QUICK, NetworkFigures, NetworkPlan
from haneul.bench.network_report import drawings, report
from haneul.kernel.clock import Clock
from haneul.kernel.errors import InvalidInputError

#: Measures into the figures and facts that it is given.
RunNetwork = Callable[[NetworkPlan, NetworkFigures, dict[str, str]], Coroutine[Any, Any, None]]


def add_network_command(app: typer.Typer, run: RunNetwork, clock: Clock) -> None:
    """Add the command to the group of measurements."""

    @app.command("network")
    def network(
        quick: Annotated[bool, typer.Option("--quick", help="One short round: a trial, no figure.")] = False,
        results: Annotated[Path, typer.Option(help="Folder for JSON and charts.")] = Path("bench-results"),
        record: Annotated[
            Path | None, typer.Option(help="Folder of the page benchmarks.md, in which the figures are replaced.")
        ] = None,
    ) -> None:
        """Measure networks: from pod to pod on two nodes, on each way that there is, beside a plain veth pair.

        It makes a cluster for each network in a project of its own, one after the other, and deletes it again. Let
        nothing else run on the host meanwhile.

        Examples:

            haneul bench network --quick

            haneul bench network --record docs/reference
        """
        if quick and record is not None:
            raise InvalidInputError("a trial has no figures to record", hint="leave out --quick or --record")
        at, figures, machine = clock.now(), NetworkFigures(), dict[str, str]()
        try:
            asyncio.run(until_told(run(QUICK if quick else NetworkPlan(), figures, machine)))
        finally:
            measured, drawn = report(figures, at=at, machine=machine), drawings(figures)
            if drawn:
                tell(measured, drawn, results)
        if record is not None:
            record_in(measured, drawn, record)
