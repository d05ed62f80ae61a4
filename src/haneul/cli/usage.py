"""`haneul project quota` and `haneul usage`: what a project may have, and what it had."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from haneul.cli.context import Contexts
from haneul.cli.output import Column, Format, show
from haneul.kernel.errors import InvalidInputError

quota_app = typer.Typer(help="What a project may have.", no_args_is_help=True)

Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]
Name = Annotated[str | None, typer.Argument(metavar="PROJECT", help="Project; by default the one in use.")]
Platform = Annotated[bool, typer.Option("--platform", help="The limits of all projects that have none of their own.")]

_LINES = [
    Column("RESOURCE", lambda line: line["resource"]),
    Column("USED", lambda line: f"{line['used']:.15g}"),
    Column("LIMIT", lambda line: f"{line['limit']:.15g}"),
    Column("SET BY", lambda line: line["setBy"]),
]
_DEFAULTS = [
    Column("RESOURCE", lambda line: line["resource"]),
    Column("LIMIT", lambda line: f"{line['limit']:.15g}"),
    Column("SET BY", lambda line: line["setBy"]),
]
_LIMITS = ("clusters", "nodes", "cpu", "memoryMib", "addresses", "listeners")


@quota_app.command("show")
def show_quota(project: Name = None, platform: Platform = False, output: Output = Format.TABLE) -> None:
    """Show what a project has and what it may have.

    Examples:

        haneul project quota show shop

        haneul project quota show --platform
    """
    contexts = Contexts.default()
    path = _path(contexts, project, platform)
    with contexts.client() as client:
        _show(client.get(path), output)


@quota_app.command("set")
def set_quota(
    project: Name = None,
    clusters: Annotated[int | None, typer.Option(help="Clusters at most.")] = None,
    nodes: Annotated[int | None, typer.Option(help="Nodes of all clusters at most.")] = None,
    cpu: Annotated[float | None, typer.Option(help="Cores of nodes and masters at most.")] = None,
    memory: Annotated[int | None, typer.Option(help="Memory of nodes and masters at most, in MiB.")] = None,
    addresses: Annotated[int | None, typer.Option(help="Addresses of load balancers at most.")] = None,
    listeners: Annotated[int | None, typer.Option(help="Ports of load balancers' addresses at most.")] = None,
    inherit: Annotated[
        list[str] | None, typer.Option(help="Take a limit back: clusters, nodes, cpu, memory, addresses or listeners.")
    ] = None,
    platform: Platform = False,
    output: Output = Format.TABLE,
) -> None:
    """Set what a project may have (for administrators). Limits that are not named stay as they are.

    A limit below what is used takes nothing away; it only stops growth.

    Examples:

        haneul project quota set shop --clusters 10 --cpu 64 --memory 131072

        haneul project quota set shop --inherit cpu --inherit memory

        haneul project quota set --platform --clusters 5
    """
    contexts = Contexts.default()
    path = _path(contexts, project, platform)
    named = {
        "clusters": clusters,
        "nodes": nodes,
        "cpu": cpu,
        "memoryMib": memory,
        "addresses": addresses,
        "listeners": listeners,
    }
    given = {name: limit for name, limit in named.items() if limit is not None}
    taken_back = {"memoryMib" if name == "memory" else name for name in inherit or []}
    if unknown := taken_back - set(_LIMITS):
        raise InvalidInputError(
            f"there is no limit named {', '.join(sorted(unknown))}",
            hint="the limits are clusters, nodes, cpu, memory, addresses and listeners",
        )
    if not given and not taken_back:
        raise InvalidInputError("no limit is named", hint="for example --clusters 10")
    with contexts.client() as client:
        limits = {**client.get(path)["limits"], **given}
        kept = {name: limit for name, limit in limits.items() if name not in taken_back}
        _show(client.put(path, kept), output)


def _path(contexts: Contexts, project: str | None, platform: bool) -> str:
    if platform and project:
        raise InvalidInputError("a project and --platform are two different things", hint="name one of them")
    return "/quota" if platform else f"/projects/{contexts.project(project)}/quota"


def _show(answer: dict[str, Any], output: Format) -> None:
    if output in (Format.JSON, Format.YAML):
        show([answer], _LINES, output, single=True)
    elif "lines" in answer:
        show(answer["lines"], _LINES, output)
    else:
        rows = [
            {
                "resource": name,
                "limit": answer["effective"][name],
                "setBy": "built-in" if answer["limits"][name] is None else "platform",
            }
            for name in _LIMITS
        ]
        show(rows, _DEFAULTS, output)


def usage(
    project: Annotated[str | None, typer.Option("--project", "-p", help="Project; by default all of yours.")] = None,
    since: Annotated[str, typer.Option(help="So long ago (12h, 30d, 4w), or a date.")] = "30d",
    until: Annotated[str | None, typer.Option(help="So long ago, or a date; by default now.")] = None,
    by_project: Annotated[bool, typer.Option("--by-project", help="One line a project.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show what clusters had over time: hours of clusters, nodes, cores and memory.

    Examples:

        haneul usage

        haneul usage -p shop --since 7d

        haneul usage --since 2026-11-01 --until 2026-12-01 --by-project -o csv
    """
    query: dict[str, Any] = {"since": since, "by": "project" if by_project else "cluster", "limit": 500}
    query |= {name: value for name, value in (("project", project), ("until", until)) if value is not None}
    columns = [
        Column("PROJECT", lambda entry: entry["project"]),
        *([] if by_project else [Column("CLUSTER", lambda entry: entry["cluster"])]),
        Column("CLUSTER HOURS", lambda entry: f"{entry['clusterHours']:.2f}"),
        Column("NODE HOURS", lambda entry: f"{entry['nodeHours']:.2f}"),
        Column("CORE HOURS", lambda entry: f"{entry['cpuCoreHours']:.2f}"),
        Column("GIB HOURS", lambda entry: f"{entry['memoryGibHours']:.2f}"),
        *([] if by_project else [Column("UID", lambda entry: entry["uid"], wide=True)]),
    ]
    with Contexts.default().client() as client:
        show(client.list("/usage", **query), columns, output)
