"""``haneul bench audit``: what is measured comes from the composition root; here is what happens to the figures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from haneul.bench import audit_report
from haneul.bench.audit_figures import AuditFigures, AuditPlan
from haneul.bench.cli import record_in, tell, until_told
from haneul.kernel.clock import Clock
from haneul.kernel.errors import InvalidInputError

#: Measures into the figures and facts that it is given; the folder is where the store to search may lie.
RunAudit = Callable[[AuditPlan, AuditFigures, dict[str, str], Path | None], Coroutine[Any, Any, None]]


def add_audit_command(app: typer.Typer, run_audit: RunAudit, clock: Clock) -> None:
    """Add the command to the group of benchmarks."""

    @app.command("audit")
    def audit(
        quick: Annotated[bool, typer.Option("--quick", help="One short round, 64 MiB to search: a trial.")] = False,
        size: Annotated[int, typer.Option(min=1, help="MiB of records to search.")] = 10240,
        data: Annotated[Path | None, typer.Option(help="Folder for these; a temporary one if left out.")] = None,
        results: Annotated[Path, typer.Option(help="Folder for JSON.")] = Path("bench-results"),
        record: Annotated[
            Path | None, typer.Option(help="Folder of the page benchmarks.md, in which the figures are replaced.")
        ] = None,
    ) -> None:
        """Measure what the audit trail of ingress costs a request, what it keeps, and how fast it is searched.

        It needs no platform, but nginx with ModSecurity and the Core Rule Set. Let nothing else run on the host
        meanwhile. Making 10 GiB of records takes some minutes, and a tenth of that on the disk.

        Examples:

            haneul bench audit --quick

            haneul bench audit --record docs/reference
        """
        if quick and record is not None:
            raise InvalidInputError("a trial has no figures to record", hint="leave out --quick or --record")
        at, plan = clock.now(), AuditPlan(store=size << 20)
        if quick:
            plan = replace(plan, seconds=2.0, rounds=1, store=64 << 20, asked=2)
        figures, machine = AuditFigures(), dict[str, str]()
        try:
            asyncio.run(until_told(run_audit(plan, figures, machine, data)))
        finally:
            report = audit_report.report(figures, plan, at=at, machine=machine)
            if figures.rounds:
                tell(report, {}, results)
        if record is not None:
            record_in(report, {}, record)
