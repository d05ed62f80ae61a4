"""``haneul dns``: publishes one cluster's names, and tells of what is published."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from haneul.cli.output import Column, Format, say, show
from haneul.kernel.errors import ConflictError, InvalidInputError

Provider = Annotated[Path, typer.Option("--provider", help="File that names the DNS server and its zones.")]
AnyProvider = Annotated[
    Path | None, typer.Option("--provider", help="File that names the DNS server; by default this host's platform's.")
]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]

dns_app = typer.Typer(help="Publish a cluster's names to DNS servers outside it.", no_args_is_help=True)

_COLUMNS = [
    Column("NAME", lambda row: row["name"]),
    Column("TYPE", lambda row: row["type"]),
    Column("TTL", lambda row: str(row["ttl"])),
    Column("VALUES", lambda row: ", ".join(row["values"])),
    Column("OWNER", lambda row: row["owner"] or "-"),
    Column("ZONE", lambda row: row["zone"], wide=True),
]


@dns_app.command()
def serve(
    kubeconfig: Annotated[Path, typer.Option(help="How to reach the cluster.")],
    cluster: Annotated[str, typer.Option(help="The cluster's name; its names lie below CLUSTER.ZONE.")],
    zone: Annotated[str, typer.Option(help="Zone, or a name in one, below which clusters' names lie.")],
    provider: Provider,
    ttl: Annotated[int, typer.Option(min=1, max=86400, help="Seconds that resolvers may remember a record.")] = 5,
    pods: Annotated[bool, typer.Option("--pods/--no-pods", help="Whether pods have names by their addresses.")] = True,
    resync_seconds: Annotated[float, typer.Option(min=1, help="Time between full comparisons.")] = 300.0,
) -> None:
    """Keep a cluster's names published. They stay as they are when this ends, and while the cluster does not answer.

    Examples:

        haneul dns serve --kubeconfig shop.kubeconfig --cluster shop --zone k8s.example.com --provider powerdns.yaml
    """
    from haneul.app.dns import ServeSettings, serve_dns  # noqa: PLC0415
    from haneul.app.serve import configure_logs  # noqa: PLC0415

    configure_logs(sys.stderr)
    asyncio.run(serve_dns(ServeSettings(kubeconfig, cluster, zone, provider, ttl, pods, resync_seconds)))


@dns_app.command("list")
def list_records(
    provider: AnyProvider = None,
    owner: Annotated[str, typer.Option(help="Only what bears this mark.")] = "",
    below: Annotated[str, typer.Option(help="Only names in this domain.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """List the records that bear an owner's mark.

    Examples:

        haneul dns list --below shop.team.haneul.internal

        haneul dns list --provider powerdns.yaml --below shop.k8s.example.com
    """
    from haneul.app.dns import listed  # noqa: PLC0415

    show(asyncio.run(listed(provider, owner, below)), _COLUMNS, output)


@dns_app.command()
def check(
    name: Annotated[str, typer.Argument(help="The whole name.")],
    provider: AnyProvider = None,
    output: Output = Format.TABLE,
) -> None:
    """Show what a zone has at a name, whose it is, and whether its server answers the same.

    Examples:

        haneul dns check web.default.svc.shop.k8s.example.com --provider powerdns.yaml
    """
    from haneul.app.dns import checked  # noqa: PLC0415

    rows = asyncio.run(checked(provider, name))
    show(rows, [*_COLUMNS, Column("ANSWER", lambda row: row["answer"])], output)
    if any(row["answer"] not in ("the same", "not asked") for row in rows):
        raise ConflictError(f"the server does not answer what its zone has at {name}", hint="ask it again in a moment")


@dns_app.command()
def why(
    name: Annotated[str, typer.Argument(help="The whole name.")],
    provider: AnyProvider = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the path of a name's answer: which zone, whose cluster, which object, and what who is asked answers.

    Examples:

        haneul dns why web.default.svc.shop.team.haneul.internal
    """
    from haneul.app.dns import explained  # noqa: PLC0415

    columns = [Column("STAGE", lambda row: row["stage"]), Column("SEEN", lambda row: row["seen"])]
    show(asyncio.run(explained(provider, name)), columns, output)


@dns_app.command()
def withdraw(
    owner: Annotated[str, typer.Option(help="Whose records go: CLUSTER/UID, as 'haneul dns list' shows it.")],
    provider: AnyProvider = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
) -> None:
    """Take away every record of a cluster that is gone. End what serves it first.

    Examples:

        haneul dns withdraw --provider powerdns.yaml --owner shop/0c5e7a0e-6a39-4f4e-9d0d-0a4d5b8f1a11 --yes
    """
    from haneul.app.dns import borne, withdrawn  # noqa: PLC0415

    if not yes:
        count = asyncio.run(borne(provider, owner))
        sets = "1 record set" if count == 1 else f"{count} record sets"
        raise InvalidInputError(f"{sets} of {owner} would go", hint="add --yes if that is what you want")
    say(f"{asyncio.run(withdrawn(provider, owner))} record sets are gone.")
