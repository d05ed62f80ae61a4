"""``haneul bench balancer``: measure, print tables, write JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from haneul.bench.balancer_figures import QUICK, BalancerFigures, BalancerPlan
from haneul.bench.balancer_report import report
from haneul.bench.cli import record_in, tell, until_told
from haneul.kernel.clock import Clock
from haneul.kernel.errors import InvalidInputError

#: Measures into the figures and facts that it is given.
RunBalancer = Callable[[BalancerPlan, BalancerFigures, dict[str, str]], Coroutine[Any, Any, None]]


def add_balancer_command(app: typer.Typer, run: RunBalancer, clock: Clock) -> None:
    """Add the command to the group of measurements."""

    @app.command("balancer")
    def balancer(
        requests: Annotated[
            int, typer.Option(min=100, help="Requests during the rolling update.")
        ] = BalancerPlan.requests,
        quick: Annotated[bool, typer.Option("--quick", help="A few requests: a trial, no figure.")] = False,
        results: Annotated[Path, typer.Option(help="Folder for JSON.")] = Path("bench-results"),
        record: Annotated[
            Path | None, typer.Option(help="Folder of the page benchmarks.md, in which the figures are replaced.")
        ] = None,
    ) -> None:
        """Measure the load balancer: requests that fail while members roll, and what the way through it costs.

        It needs no platform: HAProxy and its members run as processes of this run, on addresses of loopback. Where root
        runs it, the kernel's balancer is measured beside it, in a table of its own that is gone afterwards.

        Examples:

            haneul bench balancer --quick

            haneul bench balancer --requests 100000 --record docs/reference
        """
        if quick and record is not None:
            raise InvalidInputError("a trial has no figures to record", hint="leave out --quick or --record")
        at, figures, machine = clock.now(), BalancerFigures(), dict[str, str]()
        plan = QUICK if quick else replace(BalancerPlan(), requests=requests)
        try:
            asyncio.run(until_told(run(plan, figures, machine)))
        finally:
            measured = report(figures, at=at, machine=machine)
            if figures.rolled is not None:
                tell(measured, {}, results)
        if record is not None:
            record_in(measured, {}, record)
