"""``haneul balancer``: balances one cluster's Services, and tells of what is balanced."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from haneul.balancer.members import Targets
from haneul.cli.output import Column, Format, say, show
from haneul.kernel.errors import ConflictError, InvalidInputError

Balancer = Annotated[Path, typer.Option("--balancer", help="File that names the load balancer and its pools.")]
AnyBalancer = Annotated[
    Path | None,
    typer.Option("--balancer", help="File that names the load balancer; by default this host's platform's."),
]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]

balancer_app = typer.Typer(help="Balance a cluster's Services outside of it.", no_args_is_help=True)

_COLUMNS = [
    Column("ADDRESS", lambda row: row["address"]),
    Column("PORT", lambda row: f"{row['port']}/{row['protocol']}"),
    Column("SERVICE", lambda row: row["service"]),
    Column("UP", lambda row: f"{row['up']}/{len(row['members'])}"),
    Column("ALGORITHM", lambda row: row["algorithm"], wide=True),
    Column("OWNER", lambda row: row["owner"]),
]


@balancer_app.command()
def serve(
    kubeconfig: Annotated[Path, typer.Option(help="How to reach the cluster.")],
    cluster: Annotated[str, typer.Option(help="The cluster's name.")],
    project: Annotated[str, typer.Option(help="Whose cluster it is: it gets addresses of this project's pools.")],
    balancer: Balancer,
    members: Annotated[
        list[str], typer.Option(help="Network that the cluster's nodes, or pods, are in; may be given several times.")
    ],
    targets: Annotated[Targets, typer.Option(help="What connections are given to.")] = Targets.NODES,
    load_balancer_class: Annotated[
        str, typer.Option(help="Serve Services of this class; else those that name none.")
    ] = "",
    resync_seconds: Annotated[float, typer.Option(min=1, help="Time between full comparisons.")] = 300.0,
) -> None:
    """Keep a cluster's Services of type LoadBalancer balanced. They stay so when this ends or the cluster is away.

    Examples:

        haneul balancer serve --kubeconfig shop.kubeconfig --cluster shop --project web --balancer balancer.yaml \
--members 10.0.0.0/16
    """
    from haneul.app.balancer import ServeSettings, serve_balancer  # noqa: PLC0415
    from haneul.app.serve import configure_logs  # noqa: PLC0415

    configure_logs(sys.stderr)
    settings = ServeSettings(
        kubeconfig, cluster, project, balancer, members, targets, load_balancer_class, resync_seconds
    )
    asyncio.run(serve_balancer(settings))


@balancer_app.command("list")
def list_listeners(
    balancer: AnyBalancer = None,
    owner: Annotated[str, typer.Option(help="Only what is this owner's.")] = "",
    service: Annotated[str, typer.Option(help="Only this Service's: NAMESPACE/NAME.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """List what is balanced, for whom, and how many members answer.

    Examples:

        haneul balancer list

        haneul balancer list --balancer balancer.yaml
    """
    from haneul.app.balancer import listed  # noqa: PLC0415

    show(asyncio.run(listed(balancer, owner, service)), _COLUMNS, output)


@balancer_app.command()
def check(
    what: Annotated[str, typer.Argument(help="An address, ADDRESS:PORT, or a Service as NAMESPACE/NAME.")],
    balancer: AnyBalancer = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the members behind an address or a Service, how each is, and whether the balancer takes connections.

    Examples:

        haneul balancer check shop/web

        haneul balancer check shop/web --balancer balancer.yaml
    """
    from haneul.app.balancer import checked  # noqa: PLC0415

    rows = asyncio.run(checked(balancer, what))
    states = Column(
        "MEMBERS", lambda row: ", ".join(f"{member} {one['state']}" for member, one in row["states"].items()) or "-"
    )
    show(rows, [*_COLUMNS, states, Column("ANSWER", lambda row: row["answer"])], output)
    if any(row["answer"] not in ("connects", "not asked") for row in rows):
        raise ConflictError(f"the balancer takes no connections for {what}", hint="is its address on this machine?")
    if any(not row["up"] for row in rows):
        raise ConflictError(f"no member answers for {what}", hint="the Service's pods, or the network to them")


@balancer_app.command()
def withdraw(
    owner: Annotated[str, typer.Option(help="Whose listeners go: CLUSTER/UID, as 'haneul balancer list' shows it.")],
    balancer: AnyBalancer = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
) -> None:
    """Take away everything of a cluster that is gone. End what serves it first.

    Examples:

        haneul balancer withdraw --balancer balancer.yaml --owner shop/0c5e7a0e-6a39-4f4e-9d0d-0a4d5b8f1a11 --yes
    """
    from haneul.app.balancer import borne, withdrawn  # noqa: PLC0415

    if not yes:
        count = asyncio.run(borne(balancer, owner))
        listeners = "1 listener" if count == 1 else f"{count} listeners"
        raise InvalidInputError(f"{listeners} of {owner} would go", hint="add --yes if that is what you want")
    say(f"{asyncio.run(withdrawn(balancer, owner))} listeners are gone.")
