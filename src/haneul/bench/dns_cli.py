"""``haneul bench dns``: measure names, print the figures, write JSON, record them in the page of benchmarks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from haneul.bench.cli import record_in, tell, until_told
from haneul.bench.dns import LARGE, QUICK, NamesFigures, NamesPlan, report
from haneul.kernel.clock import Clock
from haneul.kernel.errors import InvalidInputError

#: Measures, on a cluster of a project, with a peer or without, into the figures and the facts about the machine that it
#: is given.
RunNames = Callable[[NamesPlan, str, str, bool, NamesFigures, dict[str, str]], Coroutine[Any, Any, None]]


def add_dns_command(app: typer.Typer, run_names: RunNames, clock: Clock) -> None:
    """Add the command to the group of benchmarks."""

    @app.command("dns")
    def dns(
        cluster: Annotated[str, typer.Argument(help="Cluster that gets Services, in a namespace of their own.")],
        project: Annotated[str, typer.Option("--project", "-p", help="Its project; by default the one in use.")] = "",
        quick: Annotated[bool, typer.Option("--quick", help="Ten changes beside ten Services: a trial.")] = False,
        large: Annotated[bool, typer.Option("--large", help="Beside 10,000 Services too, which takes long.")] = False,
        peer: Annotated[bool, typer.Option(help="Ask CoreDNS too, which is built if it is not there.")] = True,
        results: Annotated[Path, typer.Option(help="Folder for JSON.")] = Path("bench-results"),
        record: Annotated[
            Path | None, typer.Option(help="Folder of the page benchmarks.md, in which the figures are replaced.")
        ] = None,
    ) -> None:
        """Measure names: from a Service to its answer outside, and answers a second.

        It makes up to 1,000 Services on a cluster that is there, and deletes them again; with --large 10,000, for which
        the cluster needs a range of services of at least /18. Answers are counted by dnsperf. Let nothing else run on
        the host meanwhile.

        Examples:

            haneul bench dns shop --quick

            haneul bench dns shop --large --record docs/reference
        """
        if quick and large:
            raise InvalidInputError("a trial is no large run", hint="leave out --quick or --large")
        if quick and record is not None:
            raise InvalidInputError("a trial has no figures to record", hint="leave out --quick or --record")
        at, figures, machine = clock.now(), NamesFigures(), dict[str, str]()
        try:
            plan = QUICK if quick else LARGE if large else NamesPlan()
            asyncio.run(until_told(run_names(plan, project, cluster, peer, figures, machine)))
        finally:
            told = report(figures, at=at, machine=machine)
            if told.tables:
                tell(told, {}, results)
        if record is not None:
            record_in(told, {}, record)
