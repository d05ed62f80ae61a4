"""Commands that work on this host: up, down, status, doctor, components, demo, bench. They need root."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from haneul.app.bench_commands import bench_commands
from haneul.app.rights import need_root
from haneul.cli.check import Results, show_report
from haneul.cli.output import Column, Format, say, show
from haneul.kernel.errors import HostNotReadyError

if TYPE_CHECKING:
    from haneul.components.store import ComponentStore

Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]


def add_host_commands(app: typer.Typer) -> None:
    """Add the commands to the tree."""
    app.command()(up)
    app.command()(down)
    app.command()(renew)
    app.command()(status)
    app.command()(doctor)
    app.command()(demo)
    app.add_typer(_components(), name="components")
    app.add_typer(bench_commands(), name="bench")


def up(
    hub: Annotated[
        bool | None, typer.Option("--hub/--no-hub", help="Whether the image hub runs here; kept, at first it does.")
    ] = None,
    kage: Annotated[
        bool | None,
        typer.Option(
            "--kage/--no-kage", help="Whether images are in an object store that runs here; kept, at first no."
        ),
    ] = None,
    acme: Annotated[
        Path | None, typer.Option("--acme", help="File that names who certifies hosts with public names; kept.")
    ] = None,
    no_acme: Annotated[bool, typer.Option("--no-acme", help="Have nobody certify them any more.")] = False,
) -> None:
    """Bring the platform up on this host, from whatever state it is in; builds what is missing first.

    Examples:

        haneul up

        haneul up --no-hub

        haneul up --kage
        haneul up --acme issuer.yaml
    """
    need_root()
    from haneul.app.installation import this_host  # noqa: PLC0415
    from haneul.app.switches import Switches  # noqa: PLC0415
    from haneul.cli.progress import TerminalProgress  # noqa: PLC0415

    switches = Switches(hub=hub, kage=kage, acme=acme, no_acme=no_acme)

    async def run() -> None:
        installation = await this_host(begins=True, switches=switches)
        await installation.up(TerminalProgress(), switches)

    asyncio.run(run())
    say("The platform is up. Next: haneul project create NAME, then haneul cluster create NAME")


def down(
    purge: Annotated[
        bool, typer.Option("--purge", help="Also remove everything that was ever made, with all data.")
    ] = False,
) -> None:
    """Stop everything on this host; with --purge, leave it as if Haneul had never been there.

    Examples:

        haneul down

        haneul down --purge
    """
    need_root()
    from haneul.app.installation import this_host  # noqa: PLC0415
    from haneul.cli.progress import TerminalProgress  # noqa: PLC0415

    async def run() -> None:
        installation = await this_host()
        progress = TerminalProgress()
        if purge:
            await installation.purge(progress)
        else:
            await installation.down(progress)

    asyncio.run(run())
    say("Everything is gone." if purge else "Everything is stopped. 'haneul up' brings it back with its data.")


def renew() -> None:
    """Renew this host's certificates that are due. The platform does so by itself, several times a day.

    Examples:

        haneul renew
    """
    need_root()
    from haneul.app.installation import this_host  # noqa: PLC0415

    async def run() -> None:
        installation = await this_host()
        await installation.renew()

    asyncio.run(run())


def status(output: Output = Format.TABLE) -> None:
    """Show what runs on this host.

    Examples:

        haneul status
    """
    need_root()
    from haneul.app.examination import expiry_rows  # noqa: PLC0415
    from haneul.app.installation import this_host  # noqa: PLC0415
    from haneul.kernel.clock import SystemClock  # noqa: PLC0415

    async def look() -> list[dict[str, Any]]:
        installation = await this_host()
        seen = await installation.lifecycle.status()
        rows = [
            {"name": state.name, "kind": "host service", "ready": state.running, "detail": state.detail}
            for state in seen.services
        ]
        rows.append({"name": "kubernetes", "kind": "management API", "ready": seen.api == "ready", "detail": seen.api})
        rows += [{"name": name, "kind": "host", "ready": ready, "detail": ""} for name, ready in seen.nodes]
        rows += expiry_rows(installation.certificates(), SystemClock().now())
        return [*rows, *await installation.platform.status()]

    columns = [
        Column("NAME", lambda row: row["name"]),
        Column("KIND", lambda row: row["kind"]),
        Column("READY", lambda row: "yes" if row["ready"] else "no"),
        Column("DETAIL", lambda row: row["detail"]),
    ]
    rows = asyncio.run(look())
    show(rows, columns, output)
    if not all(row["ready"] for row in rows):
        raise typer.Exit(HostNotReadyError.exit_code)


def doctor(output: Output = Format.TABLE) -> None:
    """Say what this host lacks, what that turns off, and how to mend it.

    Examples:

        haneul doctor

        haneul doctor -o json
    """
    from haneul.app.examination import examine  # noqa: PLC0415

    found = asyncio.run(examine())
    columns = [
        Column("SEVERITY", lambda row: row["severity"]),
        Column("CODE", lambda row: row["code"]),
        Column("WHAT", lambda row: row["what"]),
        Column("TURNS OFF", lambda row: row["consequence"]),
        Column("MEND", lambda row: row["mend"]),
    ]
    show(found, columns, output)
    if any(row["severity"] == "error" for row in found):
        raise typer.Exit(HostNotReadyError.exit_code)
    say("Nothing here stands in the way of 'haneul up'.")


def check_platform(results: Results = None, output: Output = Format.TABLE) -> None:
    """Hold the management cluster, with this host's files, against the benchmark.

    Ends with 0 if no item fails without a known reason, with 12 if one does.

    Examples:

        haneul check platform

        haneul check platform --only fail --only warn -o wide
    """
    need_root()
    from haneul.app.installation import this_host  # noqa: PLC0415
    from haneul.app.platform_check import check_management  # noqa: PLC0415

    async def look() -> dict[str, Any]:
        return await check_management(await this_host())

    show_report(asyncio.run(look()), results, output)


def demo() -> None:
    """Bring the platform up and do the main job: two clusters, a workload on each, one cluster's masters killed.

    Examples:

        haneul demo
    """
    need_root()
    from haneul.app.demo import run_demo  # noqa: PLC0415

    asyncio.run(run_demo())


def _components() -> typer.Typer:
    from haneul.cli.progress import TerminalProgress  # noqa: PLC0415
    from haneul.components.cli import components_app  # noqa: PLC0415

    def store() -> ComponentStore:
        # Its import takes as long as all others together, and kubectl waits for commands that have no use for it.
        from haneul.app.installation import component_store  # noqa: PLC0415

        return component_store()

    return components_app(store, TerminalProgress)
