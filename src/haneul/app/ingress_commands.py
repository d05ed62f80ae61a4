"""``haneul ingress``: serves one cluster's Ingress objects with nginx, and tells of them and of the platform's."""

from __future__ import annotations

import asyncio
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from haneul.cli.output import Column, Format, say, show
from haneul.kernel.errors import ConflictError, ForbiddenError, InvalidInputError
from haneul.kernel.names import parse_label

if TYPE_CHECKING:
    from haneul.app.audit_switch import Switches
    from haneul.app.platform_ingress import PlatformIngress

Config = Annotated[Path, typer.Option("--config", help="File that names the cluster, and where nginx listens.")]
AnyConfig = Annotated[
    Path | None,
    typer.Option("--config", help="File that names one cluster; by default this host's platform's clusters."),
]
Cluster = Annotated[str, typer.Option("--cluster", help="Only this cluster's of the platform's: PROJECT/CLUSTER.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]

ingress_app = typer.Typer(help="Serve clusters' Ingress objects with nginx.", no_args_is_help=True)

_WHOSE = [
    Column("CLUSTER", lambda row: row["cluster"]),
    Column("ADDRESS", lambda row: row["address"]),
]
_SERVED = [
    Column("HOST", lambda row: row["host"]),
    Column("PATH", lambda row: row["path"]),
    Column("MATCH", lambda row: row["match"], wide=True),
    Column("KIND", lambda row: row["kind"], wide=True),
    Column("TLS", lambda row: "yes" if row["tls"] else "no"),
    Column("INGRESS", lambda row: f"{row['namespace']}/{row['ingress']}"),
    Column("BACKEND", lambda row: row["backend"] or "-"),
    Column("ENDPOINTS", lambda row: str(row["endpoints"])),
    Column("CANARY", lambda row: row["canary"] or "-", wide=True),
    Column("CLOSED", lambda row: row["closed"] or "-", wide=True),
]
_WRONG = [
    Column("INGRESS", lambda row: f"{row['namespace']}/{row['name']}"),
    Column("REASON", lambda row: row["reason"]),
    Column("MESSAGE", lambda row: row["message"]),
]


@ingress_app.command()
def serve(config: Config) -> None:
    """Keep a cluster's Ingress objects served. nginx serves on when this ends, and while the cluster does not answer.

    Examples:

        haneul ingress serve --config shop.yaml
    """
    from haneul.app.ingress import serve_ingress  # noqa: PLC0415
    from haneul.app.serve import configure_logs  # noqa: PLC0415

    configure_logs(sys.stderr)
    asyncio.run(serve_ingress(config))


@ingress_app.command()
def stop(config: Config) -> None:
    """Let nginx end, after the requests that it has. End what serves first, or it starts nginx again.

    Examples:

        haneul ingress stop --config shop.yaml
    """
    from haneul.app.ingress import stop_nginx  # noqa: PLC0415

    say("nginx ended." if asyncio.run(stop_nginx(config)) else "No nginx ran.")


@ingress_app.command("list")
def list_paths(config: AnyConfig = None, cluster: Cluster = "", output: Output = Format.TABLE) -> None:
    """List the hosts and paths that clusters' Ingress objects serve, and where they lead.

    Examples:

        haneul ingress list

        haneul ingress list --cluster team/shop -o wide

        haneul ingress list --config shop.yaml
    """
    if config is not None:
        from haneul.app.ingress import listed  # noqa: PLC0415

        show(asyncio.run(listed(config)), _SERVED, output)
        return

    async def look() -> list[dict[str, Any]]:
        return await (await _platform()).listed(cluster)

    show(asyncio.run(look()), [*_WHOSE, *_SERVED], output)


@ingress_app.command()
def check(
    files: Annotated[list[Path] | None, typer.Argument(help="Manifests to check instead of what there is.")] = None,
    config: AnyConfig = None,
    cluster: Cluster = "",
    output: Output = Format.TABLE,
) -> None:
    """Show what is wrong with clusters' Ingress objects, or with manifests in files before they are applied.

    Of files, what only the cluster knows is left aside: whether there are Services and certificates.

    Examples:

        haneul ingress check

        haneul ingress check --cluster team/shop from-ingress-nginx.yaml

        haneul ingress check --config shop.yaml
    """

    async def look() -> list[dict[str, Any]]:
        if config is None:
            return await (await _platform()).checked(cluster, files or [])
        from haneul.app.ingress import checked  # noqa: PLC0415

        return await checked(config, files or [])

    rows = asyncio.run(look())
    show(rows, _WRONG if config else [_WHOSE[0], *_WRONG], output)
    if rows:
        count = len({(row.get("cluster"), row["namespace"], row["name"]) for row in rows})
        raise ConflictError(
            f"{count} Ingress object{' has' if count == 1 else 's have'} something that is not served as it is written",
            hint="docs/reference/ingress.md has every annotation with its grammar",
        )


@ingress_app.command()
def grant(
    host: Annotated[str, typer.Argument(help="A host, or *.DOMAIN for all below one.")],
    cluster: Annotated[str, typer.Argument(help="Who may serve it: PROJECT/CLUSTER.")],
) -> None:
    """Let a cluster of the platform's serve a host outside of its own domain. The host's name is yours to publish.

    The grant ends with the cluster: another one of the same name has to be granted it anew.

    Examples:

        haneul ingress grant shop.example.com team/shop
    """
    owner = _owner(cluster)

    async def write() -> None:
        await (await _platform()).grant(host, owner)

    asyncio.run(write())
    say(f"{owner} may serve {host}.")


@ingress_app.command()
def revoke(host: Annotated[str, typer.Argument(help="The host as it was granted.")]) -> None:
    """Take a host back that a cluster was granted; it is served no longer.

    Examples:

        haneul ingress revoke shop.example.com
    """

    async def write() -> None:
        (await _platform()).granted.revoke(host)

    asyncio.run(write())
    say(f"{host} is nobody's now.")


@ingress_app.command()
def hosts(output: Output = Format.TABLE) -> None:
    """List the hosts that clusters were granted outside of their own domains.

    Examples:

        haneul ingress hosts
    """

    async def look() -> list[dict[str, str]]:
        granted = (await _platform()).granted.all()
        return [{"host": host, "cluster": owner.name, "uid": owner.uid} for host, owner in sorted(granted.items())]

    columns = [
        Column("HOST", lambda row: row["host"]),
        Column("CLUSTER", lambda row: row["cluster"]),
        Column("UID", lambda row: row["uid"] or "-", wide=True),
    ]
    show(asyncio.run(look()), columns, output)


class Turn(StrEnum):
    """What becomes of a switch."""

    ON = "on"
    OFF = "off"
    USUAL = "usual"


@ingress_app.command()
def audit(
    turn: Annotated[Turn | None, typer.Argument(help="'usual' lets a cluster have what others have.")] = None,
    cluster: Annotated[str, typer.Option("--cluster", help="Of one of the platform's: PROJECT/CLUSTER.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Let the platform's clusters have an audit trail of requests, one or all that say nothing else, or show which do.

    Examples:

        haneul ingress audit

        haneul ingress audit on --cluster team/shop

        haneul ingress audit off
    """
    owner = _owner(cluster) if cluster else ""
    if turn is Turn.USUAL and not owner:
        raise InvalidInputError("'usual' is said of a cluster", hint="--cluster PROJECT/CLUSTER names it")

    async def work() -> Switches:
        switch = (await _platform()).audit
        if turn is Turn.ON:
            from haneul.app.platform_trail import refuse_without_modsecurity  # noqa: PLC0415

            refuse_without_modsecurity()
        if turn is not None and owner:
            switch.turn(owner, on=None if turn is Turn.USUAL else turn is Turn.ON)
        elif turn is not None:
            switch.turn_usual(on=turn is Turn.ON)
        return switch.read()

    now = asyncio.run(work())
    if turn is None:
        rows = [{"cluster": "*", "audit": now.usual}]
        rows += [{"cluster": name, "audit": on} for name, on in sorted(now.clusters.items())]
        columns = [
            Column("CLUSTER", lambda row: row["cluster"]),
            Column("AUDIT", lambda row: "on" if row["audit"] else "off"),
        ]
        show(rows, columns, output)
    elif owner:
        say(f"The audit trail of {owner} is {'on' if now.on(owner) else 'off'}.")
    else:
        say(f"The audit trail is {'on' if now.usual else 'off'} for clusters that say nothing else.")


@ingress_app.command()
def authority() -> None:
    """Print the certificate of the authority that signs hosts' certificates, for clients to trust.

    Examples:

        haneul ingress authority
    """

    async def look() -> Path:
        from haneul.app.platform import PlatformFiles  # noqa: PLC0415

        return PlatformFiles((await _platform()).settings.state).authority

    sys.stdout.write(asyncio.run(look()).read_text())


def _owner(cluster: str) -> str:
    project, _, name = cluster.partition("/")
    return f"{parse_label(project, what='project name')}/{parse_label(name, what='cluster name')}"


async def _platform() -> PlatformIngress:
    from haneul.app.installation import this_host  # noqa: PLC0415 - who names a file needs no platform
    from haneul.app.platform_ingress import PlatformIngress  # noqa: PLC0415

    if os.geteuid() != 0:
        raise ForbiddenError("only root sees the platform's ingress", hint="use sudo")
    return PlatformIngress((await this_host()).settings)
