"""``haneul bench chaos``: break things, print the ledger, write JSON, record the page of faults.

What is broken comes from the composition root; here is what happens to the figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from haneul.bench.cli import record_in, tell, until_told
from haneul.chaos.outcome import Outcome
from haneul.chaos.plan import Round, named_plan, short_plan, whole_plan
from haneul.chaos.report import drawings, report
from haneul.chaos.verdicts import broken_in_all
from haneul.kernel.clock import Clock
from haneul.kernel.errors import InvalidInputError, UnavailableError

#: Breaks what the plan says into the outcome; the flag lets it do so beside other people's clusters.
RunChaos = Callable[[Sequence[Round], bool, Outcome], Coroutine[Any, Any, None]]
PAGE = "faults.md"


def add_chaos_command(app: typer.Typer, run_chaos: RunChaos, clock: Clock) -> None:
    """Add the command to the group of benchmarks."""

    @app.command("chaos")
    def chaos(
        quick: Annotated[bool, typer.Option("--quick", help="The four most telling faults: two minutes.")] = False,
        only: Annotated[
            list[str] | None, typer.Option(help="A fault, or a pair as one+other; several times for several rounds.")
        ] = None,
        beside_others: Annotated[
            bool, typer.Option("--beside-others", help="Break the platform although others have clusters on it.")
        ] = False,
        results: Annotated[Path, typer.Option(help="Folder for JSON and charts.")] = Path("bench-results"),
        record: Annotated[
            Path | None, typer.Option(help="Folder of the page faults.md, in which the figures are replaced.")
        ] = None,
    ) -> None:
        """Break the running platform piece by piece and count who notices: isolation and self-healing, proven.

        Two clusters are made in a project of their own. Each fault strikes one of them or what all clusters share,
        alone and in pairs, at last everything at once. All the while every API and workload is asked twenty times a
        second. It ends with exit code 6 if a promise was not kept, with nothing left behind.

        Examples:

            haneul bench chaos --quick

            haneul bench chaos --only etcd-killed --only etcd-killed+host-kubelet-killed

            haneul bench chaos --record docs/reference
        """
        if record is not None and (quick or only):
            raise InvalidInputError(
                "only the whole suite has figures to record", hint="leave out --quick and --only, or --record"
            )
        plan = named_plan(only) if only else short_plan() if quick else whole_plan()
        at, outcome = clock.now(), Outcome()
        try:
            asyncio.run(until_told(run_chaos(plan, beside_others, outcome)))
        finally:
            told = report(outcome, at=at, machine=outcome.machine)
            drawn = drawings(outcome)
            if outcome.results:
                tell(told, drawn, results)
        if record is not None:
            record_in(told, drawn, record, page_name=PAGE)
        if broken := broken_in_all(outcome.results, outcome.written, outcome.left):
            raise UnavailableError(
                f"{len(broken)} promises were not kept, the first: {broken[0]}",
                hint="the table above and the JSON beside it tell all of them",
            )
