"""``haneul ingress``: serves one cluster's Ingress objects with nginx, and tells of them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from haneul.cli.output import Column, Format, say, show
from haneul.kernel.errors import ConflictError

Config = Annotated[Path, typer.Option("--config", help="File that names the cluster, and where nginx listens.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]

ingress_app = typer.Typer(help="Serve a cluster's Ingress objects with nginx.", no_args_is_help=True)

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
def list_paths(config: Config, output: Output = Format.TABLE) -> None:
    """List the hosts and paths that a cluster's Ingress objects serve, and where they lead.

    Examples:

        haneul ingress list --config shop.yaml -o wide
    """
    from haneul.app.ingress import listed  # noqa: PLC0415

    show(asyncio.run(listed(config)), _SERVED, output)


@ingress_app.command()
def check(
    config: Config,
    files: Annotated[list[Path] | None, typer.Argument(help="Manifests to check instead of the cluster's.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show what is wrong with a cluster's Ingress objects, or with manifests in files before they are applied.

    Of files, what only the cluster knows is left aside: whether there are Services and certificates.

    Examples:

        haneul ingress check --config shop.yaml
        haneul ingress check --config shop.yaml from-ingress-nginx.yaml
    """
    from haneul.app.ingress import checked  # noqa: PLC0415

    rows = asyncio.run(checked(config, files or []))
    show(rows, _WRONG, output)
    if rows:
        count = len({(row["namespace"], row["name"]) for row in rows})
        raise ConflictError(
            f"{count} Ingress object{' has' if count == 1 else 's have'} something that is not served as it is written",
            hint="docs/reference/ingress.md has every annotation with its grammar",
        )
