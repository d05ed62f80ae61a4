"""``haneul d2hub``: a registry that runs alone, its users and its projects' rules."""

from __future__ import annotations

import asyncio
import secrets
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from haneul.cli.input import read_secret_file
from haneul.cli.output import Column, Format, say, show
from haneul.kernel.errors import InvalidInputError

Data = Annotated[Path, typer.Option("--data", help="Folder with everything that the registry keeps.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]

d2hub_app = typer.Typer(help="Run a registry of images; tell it what clusters run.", no_args_is_help=True)
user_app = typer.Typer(help="Who may sign in to a registry that runs alone.", no_args_is_help=True)
project_app = typer.Typer(help="Rules of projects, the first parts of repositories' names.", no_args_is_help=True)
d2hub_app.add_typer(user_app, name="user")
d2hub_app.add_typer(project_app, name="project")


@d2hub_app.command()
def serve(
    data: Data,
    address: Annotated[str, typer.Option(help="Address to serve on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to serve on.")] = 5443,
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address by which clients reach it; may be repeated.")
    ] = None,
    url: Annotated[str, typer.Option(help="Where clients reach it, if a proxy stands in between.")] = "",
    plain_http: Annotated[bool, typer.Option("--plain-http", help="Without TLS; on loopback only.")] = False,
    database_file: Annotated[
        Path | None,
        typer.Option(help="File with the address of a PostgreSQL database, which several processes may share."),
    ] = None,
    manifest_limit: Annotated[int, typer.Option(min=1024, help="Bytes that a manifest may have.")] = 4 << 20,
    undo_hours: Annotated[float, typer.Option(min=0, help="How long deletions can be taken back.")] = 168.0,
    grace_hours: Annotated[
        float, typer.Option(min=0, help="How long uploads and blobs without a manifest are left alone.")
    ] = 24.0,
    collect_minutes: Annotated[float, typer.Option(min=0.01, help="Time between collections.")] = 60.0,
    audit_days: Annotated[float, typer.Option(min=0, help="How long audit records are kept.")] = 90.0,
    webhook_timeout_seconds: Annotated[
        float, typer.Option(min=0.1, max=60, help="How long a receiver of events may take to answer.")
    ] = 10.0,
    webhook_retry_seconds: Annotated[
        float, typer.Option(min=0.1, help="Wait before the second attempt; each after it is four times as long.")
    ] = 5.0,
    webhook_attempts: Annotated[int, typer.Option(min=1, max=100, help="Attempts before one is given up.")] = 10,
    webhook_local: Annotated[
        list[str] | None,
        typer.Option(help="Host of receivers that may be on loopback or link-local addresses; may be repeated."),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="File that names an object store for content, with its key; else it is in DATA.")
    ] = None,
    proxy_content: Annotated[
        bool, typer.Option("--proxy-content", help="Send content of the object store through the hub, no redirects.")
    ] = False,
    platform: Annotated[
        str, typer.Option(help="Address of the platform whose people and robots sign in, instead of users of its own.")
    ] = "",
    platform_ca: Annotated[Path | None, typer.Option(help="File with the platform's certificate authority.")] = None,
) -> None:
    """Serve a registry from one folder, over TLS with a certificate of its own authority (DATA/tls/ca.crt).

    Examples:

        haneul d2hub serve --data /srv/hub --address 0.0.0.0 --host hub.example.com

        haneul d2hub serve --data ./hub --plain-http

        haneul d2hub serve --data /srv/hub --address 0.0.0.0 --database-file /etc/hub/database

        haneul d2hub serve --data /srv/hub --store /etc/haneul/store.yaml

        haneul d2hub serve --data /srv/hub --platform https://cloud.example.com:7443 --platform-ca /etc/haneul/ca.crt
    """
    from haneul.app.d2hub import HubSettings, serve_hub  # noqa: PLC0415
    from haneul.app.serve import configure_logs  # noqa: PLC0415
    from haneul.d2hub.adapters.object_settings import read_object_settings  # noqa: PLC0415
    from haneul.d2hub.deliveries import RetryPolicy  # noqa: PLC0415
    from haneul.d2hub.registry import Limits  # noqa: PLC0415

    limits = Limits(manifest_bytes=manifest_limit, undo=timedelta(hours=undo_hours), grace=timedelta(hours=grace_hours))
    settings = HubSettings(
        data.absolute(),
        address,
        port,
        tuple(host or ()),
        url,
        plain_http,
        database_file,
        limits,
        timedelta(minutes=collect_minutes),
        audit_keep=timedelta(days=audit_days),
        retry=RetryPolicy(webhook_timeout_seconds, webhook_retry_seconds, attempts=webhook_attempts),
        local_receivers=tuple(webhook_local or ()),
        objects=None if store is None else read_object_settings(store),
        proxy_content=proxy_content,
        platform=platform,
        platform_authority=platform_ca,
    )
    configure_logs(sys.stderr)
    asyncio.run(serve_hub(settings))


@d2hub_app.command()
def report(
    cluster: Annotated[str, typer.Option(help="The cluster's name at the hub: PROJECT/NAME.")],
    kubeconfig: Annotated[
        Path | None, typer.Option(help="How to reach the cluster; without it, the one that this runs in.")
    ] = None,
    hub: Annotated[str, typer.Option(help="Where the hub is; without it, the one of 'haneul image login'.")] = "",
    user: Annotated[str, typer.Option(help="Name at the hub: a robot's PROJECT/NAME, or oidc.")] = "",
    secret_file: Annotated[
        Path | None, typer.Option(help="File whose text is the secret, read anew for each report.")
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="File with the certificate of the hub's authority.")] = None,
    every: Annotated[str, typer.Option(help="Report again and again, so often, such as 60s; else once.")] = "",
) -> None:
    """Tell a hub which images a cluster runs, so that they are neither deleted nor collected.

    Examples:

        haneul d2hub report --cluster shop/prod --kubeconfig prod.kubeconfig

        haneul d2hub report --cluster shop/prod --hub https://hub.example.com:5443 --user shop/reporter
        --secret-file /etc/haneul/reporter --every 60s
    """
    from haneul.app.d2hub_report import ReportSettings, report_once, report_without_end  # noqa: PLC0415
    from haneul.app.serve import configure_logs  # noqa: PLC0415
    from haneul.cli.spans import parse_span  # noqa: PLC0415

    settings = ReportSettings(cluster, kubeconfig, hub, user, secret_file, ca)
    if not every:
        say(f"{cluster} runs {asyncio.run(report_once(settings))} images of workloads; the hub knows.")
        return
    configure_logs(sys.stderr)
    asyncio.run(report_without_end(settings, parse_span(every)))


@user_app.command("add")
def add_user(
    name: Annotated[str, typer.Argument(help="Name to sign in with.")],
    data: Data,
    project: Annotated[
        list[str] | None,
        typer.Option(help="PROJECT:ROLE with the role reader, writer or owner; '*' is every project."),
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="May do everything.")] = False,
    secret_file: Annotated[
        Path | None, typer.Option(help="File whose text is the secret; without it one is made and shown.")
    ] = None,
) -> None:
    """Add a user. The secret is read from a file; without one a secret is made, and shown once on standard output.

    Examples:

        haneul d2hub user add alice --data ./hub --project shop:writer

        haneul d2hub user add root --data ./hub --admin --secret-file ./secret
    """
    from haneul.app.d2hub import accounts_of  # noqa: PLC0415
    from haneul.app.d2hub_folder import make_folder  # noqa: PLC0415

    roles = _roles(project or [])
    secret, shown = _secret(secret_file)
    if make_folder(data):
        say(f"Made {data}.")
    accounts_of(data, make=True).add_user(name, secret, admin=admin, projects=roles)
    say(f"{name} may sign in.")
    if shown:
        typer.echo(secret)


@user_app.command("reset")
def reset_user(
    name: Annotated[str, typer.Argument(help="Who gets another secret.")],
    data: Data,
    secret_file: Annotated[
        Path | None, typer.Option(help="File whose text is the secret; without it one is made and shown.")
    ] = None,
) -> None:
    """Give a user another secret. Tokens given out before end at once.

    Examples:

        haneul d2hub user reset alice --data ./hub
    """
    from haneul.app.d2hub import accounts_of  # noqa: PLC0415

    secret, shown = _secret(secret_file)
    accounts_of(data).set_secret(name, secret)
    if shown:
        typer.echo(secret)


@user_app.command("remove")
def remove_user(name: Annotated[str, typer.Argument(help="Who goes.")], data: Data) -> None:
    """Remove a user. Tokens given out before end at once.

    Examples:

        haneul d2hub user remove alice --data ./hub
    """
    from haneul.app.d2hub import accounts_of  # noqa: PLC0415

    accounts_of(data).remove_user(name)
    say(f"{name} is removed.")


@user_app.command("list")
def list_users(data: Data, output: Output = Format.TABLE) -> None:
    """List users.

    Examples:

        haneul d2hub user list --data ./hub
    """
    from haneul.app.d2hub import accounts_of  # noqa: PLC0415

    columns = [
        Column("NAME", lambda row: row["name"]),
        Column("ADMIN", lambda row: "yes" if row["admin"] else "no"),
        Column("PROJECTS", lambda row: ", ".join(f"{key}:{role}" for key, role in row["projects"].items())),
    ]
    show(accounts_of(data).users(), columns, output)


@project_app.command("set")
def set_project(
    name: Annotated[str, typer.Argument(help="The first part of its repositories' names.")],
    data: Data,
    public: Annotated[bool | None, typer.Option("--public/--private", help="Whether everybody may pull.")] = None,
    immutable_tag: Annotated[
        list[str] | None, typer.Option(help="Pattern of tags that stay once set; may be repeated, '' for none.")
    ] = None,
) -> None:
    """Change a project's rules; a registry that runs takes them up at once.

    Examples:

        haneul d2hub project set base --data ./hub --public --immutable-tag 'v*'
    """
    from haneul.app.d2hub import accounts_of  # noqa: PLC0415

    patterns = None if immutable_tag is None else [pattern for pattern in immutable_tag if pattern]
    accounts_of(data).set_project(name, public=public, immutable_tags=patterns)


@project_app.command("list")
def list_projects(data: Data, output: Output = Format.TABLE) -> None:
    """List the projects that have rules.

    Examples:

        haneul d2hub project list --data ./hub
    """
    from haneul.app.d2hub import accounts_of  # noqa: PLC0415

    rows: list[dict[str, Any]] = [
        {"name": name, "public": rules.public, "immutableTags": list(rules.immutable_tags)}
        for name, rules in accounts_of(data).projects().items()
    ]
    columns = [
        Column("NAME", lambda row: row["name"]),
        Column("PUBLIC", lambda row: "yes" if row["public"] else "no"),
        Column("IMMUTABLE TAGS", lambda row: " ".join(row["immutableTags"])),
    ]
    show(rows, columns, output)


def _secret(file: Path | None) -> tuple[str, bool]:
    """Return a secret and whether it is a fresh one, to be shown."""
    if file is None:
        return secrets.token_urlsafe(32), True
    return read_secret_file(file), False


def _roles(texts: list[str]) -> dict[str, Any]:
    from haneul.d2hub.adapters.file_accounts import Role  # noqa: PLC0415

    roles = {}
    for text in texts:
        project, _, role = text.rpartition(":")
        if not project or role not in list(Role):
            raise InvalidInputError(f"{text!r} is not PROJECT:ROLE", hint="roles are reader, writer and owner")
        roles[project] = Role(role)
    return roles
