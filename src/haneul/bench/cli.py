"""``haneul bench``: measure, print a table, write JSON, draw charts.

What is measured comes from the composition root; here is what happens to the figures.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from haneul.bench import dkos_report, registries_report
from haneul.bench.dkos import QUICK, BenchPlan, Figures
from haneul.bench.registry_figures import QUICK as QUICK_REGISTRIES
from haneul.bench.registry_figures import RegistryFigures, RegistryPlan
from haneul.bench.report import Report, as_json, as_markdown, as_text, replace_section
from haneul.kernel.clock import Clock
from haneul.kernel.errors import InvalidInputError, UnavailableError
from haneul.kernel.files import write_atomically

_PAGE, _FIGURES = "benchmarks.md", "figures"


@dataclass
class Outcome:
    """What a run has measured so far, and on what; filled as it goes on, so that a run cut short loses nothing."""

    figures: Figures = field(default_factory=Figures)
    machine: dict[str, str] = field(default_factory=dict)


RunDkos = Callable[[BenchPlan, bool, Outcome], Coroutine[Any, Any, None]]
#: Measures into the figures and facts that it is given; the folder is where data of registries may lie.
RunRegistries = Callable[[RegistryPlan, bool, RegistryFigures, dict[str, str], Path | None], Coroutine[Any, Any, None]]


def bench_app(run_dkos: RunDkos, run_registries: RunRegistries, clock: Clock) -> typer.Typer:
    """Return the command group.

    ``run_dkos`` measures into the outcome that it is given; its second argument says whether the peer is measured too.
    """
    app = typer.Typer(help="Measure Haneul beside its peers.", no_args_is_help=True)

    @app.command("dkos")
    def dkos(
        quick: Annotated[bool, typer.Option("--quick", help="One round and two clusters: a trial, no figure.")] = False,
        peer: Annotated[bool, typer.Option(help="Also measure plain processes of the same programs.")] = True,
        results: Annotated[Path, typer.Option(help="Folder for JSON and charts.")] = Path("bench-results"),
        record: Annotated[
            Path | None, typer.Option(help="Folder of the page benchmarks.md, in which the figures are replaced.")
        ] = None,
    ) -> None:
        """Measure clusters: how fast they come to be and wake, what their masters cost at rest, ten at once.

        It makes clusters in a project of its own and deletes them again. Let nothing else run on the host meanwhile.

        Examples:

            haneul bench dkos --quick

            haneul bench dkos --record docs/reference
        """
        if quick and record is not None:
            raise InvalidInputError("a trial has no figures to record", hint="leave out --quick or --record")
        at, outcome = clock.now(), Outcome()
        try:
            asyncio.run(until_told(run_dkos(QUICK if quick else BenchPlan(), peer, outcome)))
        finally:
            report = dkos_report.report(outcome.figures, at=at, machine=outcome.machine)
            drawings = dkos_report.drawings(outcome.figures)
            if drawings:
                tell(report, drawings, results)
        if record is not None:
            record_in(report, drawings, record)

    @app.command("d2hub")
    def d2hub(
        quick: Annotated[bool, typer.Option("--quick", help="One round of a second: a trial, no figure.")] = False,
        peer: Annotated[
            bool, typer.Option(help="Also measure CNCF Distribution, which is built if need be, and Debian's.")
        ] = True,
        plain_http: Annotated[bool, typer.Option("--plain-http", help="Without TLS, at all of them.")] = False,
        data: Annotated[
            Path | None, typer.Option(help="Folder in which the registries' data lies meanwhile; else the system's.")
        ] = None,
        results: Annotated[Path, typer.Option(help="Folder for JSON and charts.")] = Path("bench-results"),
        record: Annotated[
            Path | None, typer.Option(help="Folder of the page benchmarks.md, in which the figures are replaced.")
        ] = None,
    ) -> None:
        """Measure the registry: pulls and pushes beside CNCF Distribution, with authorisation on; then full of tags.

        It needs no platform: all registries run as processes of this run. Let nothing else run on the host meanwhile.

        Examples:

            haneul bench d2hub --quick

            haneul bench d2hub --record docs/reference
        """
        if quick and record is not None:
            raise InvalidInputError("a trial has no figures to record", hint="leave out --quick or --record")
        at, figures, machine = clock.now(), RegistryFigures(), dict[str, str]()
        plan = replace(QUICK_REGISTRIES if quick else RegistryPlan(), tls=not plain_http)
        try:
            asyncio.run(until_told(run_registries(plan, peer, figures, machine, data)))
        finally:
            report = registries_report.report(figures, at=at, machine=machine)
            drawings = registries_report.drawings(figures)
            if drawings:
                tell(report, drawings, results)
        if record is not None:
            record_in(report, drawings, record)

    return app


def tell(report: Report, drawings: Mapping[str, str], results: Path) -> None:
    """Print and keep what there is of a run."""
    typer.echo(as_text(report), nl=False)
    for path in save(report, drawings, results):
        typer.echo(f"written: {path}", err=True)


def save(report: Report, drawings: Mapping[str, str], folder: Path) -> list[Path]:
    """Write the JSON and the charts of a run under its own name; return the files."""
    contents = {folder / f"{report.stem}.json": as_json(report)}
    contents |= {
        folder / f"{report.stem}-{name.removeprefix(f'{report.name}-')}.svg": drawings[name] for name in drawings
    }
    for path, content in contents.items():
        write_atomically(path, content)
    return list(contents)


def record_in(report: Report, drawings: Mapping[str, str], folder: Path, *, page_name: str = _PAGE) -> None:
    """Replace the report's part of a page, by default that of benchmarks, and its figures beside it."""
    page = folder / page_name
    section = as_markdown(report, figures=_FIGURES)
    write_atomically(page, replace_section(page.read_text(), report.name, section))
    for name, drawing in drawings.items():
        write_atomically(folder / _FIGURES / f"{name}.svg", drawing)


async def until_told(run: Coroutine[Any, Any, None]) -> None:
    """Run to the end, or until the process is told to end; then the run clears up first."""
    told = asyncio.Event()
    running = asyncio.ensure_future(run)

    def end() -> None:
        told.set()
        running.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
    try:
        await running
    except asyncio.CancelledError:
        if not told.is_set():
            raise
        raise UnavailableError("the run was told to end before it was through") from None
