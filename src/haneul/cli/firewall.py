"""`haneul firewall`: what nodes need to reach behind firewalls, and the decisions on it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from haneul.cli.context import Contexts
from haneul.cli.output import Column, Format, show

firewall_app = typer.Typer(
    help="What nodes reach behind firewalls: a person decides on each of them.", no_args_is_help=True
)

Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]
Project = Annotated[str | None, typer.Option("--project", "-p", help="Project; by default all that you may see.")]
RequestId = Annotated[str, typer.Argument(metavar="REQUEST", help="One request, as 'haneul firewall list' names it.")]
Address = Annotated[str, typer.Option(help="The request's address once more: it is what you decide on.")]
ResourceName = Annotated[str, typer.Option("--resource", help="The request's resource once more.")]
Why = Annotated[str, typer.Option("--why", help="Why; kept for good.")]


class RequestState(StrEnum):
    """How a request stands."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    REVOKED = "revoked"


def _resource(way: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = way["resource"]
    return found


def _destinations(way: dict[str, Any]) -> str:
    return ",".join(address.removesuffix("/32") for address in _resource(way)["addresses"])


_REQUESTS = [
    Column("REQUEST", lambda one: one["id"]),
    Column("STATE", lambda one: one["state"]),
    Column("ADDRESS", lambda one: one["way"]["address"]),
    Column("RESOURCE", lambda one: _resource(one["way"])["name"]),
    Column("TO", lambda one: _destinations(one["way"])),
    Column("PORTS", lambda one: ",".join(_resource(one["way"])["ports"])),
    Column("CLUSTER", lambda one: f"{one['way']['project']}/{one['way']['cluster']}"),
    Column("NODE", lambda one: one["way"]["node"]),
    Column("ASKED BY", lambda one: ",".join(one["askers"])),
    Column("DECIDED BY", lambda one: one["decidedBy"], wide=True),
    Column("DECIDED", lambda one: one["decided"] or "", wide=True),
    Column("REASON", lambda one: _resource(one["way"])["reason"], wide=True),
    Column("WHY", lambda one: one["why"], wide=True),
]
_DECISIONS = [
    Column("NUMBER", lambda one: str(one["number"])),
    Column("WHEN", lambda one: one["moment"]),
    Column("WHO", lambda one: one["person"]),
    Column("DECISION", lambda one: one["kind"]),
    Column("ADDRESS", lambda one: one["way"]["address"]),
    Column("RESOURCE", lambda one: _resource(one["way"])["name"]),
    Column("CLUSTER", lambda one: f"{one['way']['project']}/{one['way']['cluster']}"),
    Column("NODE", lambda one: one["way"]["node"]),
    Column("WHY", lambda one: one["why"]),
    Column("REQUEST", lambda one: one["wayId"], wide=True),
    Column("FROM", lambda one: one["source"], wide=True),
]
_EXPORT = [
    Column("SOURCE", lambda one: one["way"]["address"]),
    Column("DESTINATIONS", lambda one: " ".join(_resource(one["way"])["addresses"])),
    Column("PORTS", lambda one: " ".join(_resource(one["way"])["ports"])),
    Column("RESOURCE", lambda one: _resource(one["way"])["name"]),
    Column("PROJECT", lambda one: one["way"]["project"]),
    Column("CLUSTER", lambda one: one["way"]["cluster"]),
    Column("NODE", lambda one: one["way"]["node"]),
    Column("APPROVER", lambda one: one["decidedBy"]),
    Column("APPROVED", lambda one: one["decided"] or ""),
]


@firewall_app.command("list")
def list_requests(
    project: Project = None,
    state: Annotated[RequestState | None, typer.Option(help="Only requests that stand so.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """List what nodes need to reach now, and how each request stands.

    Examples:

        haneul firewall list

        haneul firewall list --state pending -o wide
    """
    query = {"project": project, "state": state.value if state else None}
    with Contexts.default().client() as client:
        show(client.list("/firewall/requests", **_named(query), limit=500), _REQUESTS, output)


@firewall_app.command("approve")
def approve(
    request: RequestId, address: Address, resource: ResourceName, why: Why, output: Output = Format.TABLE
) -> None:
    """Let one node at one address reach one resource (for firewall approvers, never what they asked for themselves).

    Examples:

        haneul firewall approve 3f9a0c1b2d4e5f60 --address 10.244.1.7 --resource db-prod --why "change 4711"
    """
    _decide("approve", request, address, resource, why, output)


@firewall_app.command("deny")
def deny(request: RequestId, address: Address, resource: ResourceName, why: Why, output: Output = Format.TABLE) -> None:
    """Say no to a request (for firewall approvers).

    Examples:

        haneul firewall deny 3f9a0c1b2d4e5f60 --address 10.244.1.7 --resource db-prod --why "use the replica"
    """
    _decide("deny", request, address, resource, why, output)


@firewall_app.command("revoke")
def revoke(
    request: RequestId, address: Address, resource: ResourceName, why: Why, output: Output = Format.TABLE
) -> None:
    """Take an approval back: the node is emptied and taken out, then its way is closed (for firewall approvers).

    Examples:

        haneul firewall revoke 3f9a0c1b2d4e5f60 --address 10.244.1.7 --resource db-prod --why "contract ended"
    """
    _decide("revoke", request, address, resource, why, output)


@firewall_app.command("export")
def export(project: Project = None, output: Output = Format.CSV) -> None:
    """Print all approved ways, for the team of a firewall that is managed elsewhere.

    Examples:

        haneul firewall export

        haneul firewall export -p shop -o json
    """
    with Contexts.default().client() as client:
        show(client.get("/firewall/export", **_named({"project": project})), _EXPORT, output)


@firewall_app.command("history")
def history(project: Project = None, output: Output = Format.TABLE) -> None:
    """Show every decision there ever was, newest first.

    Examples:

        haneul firewall history

        haneul firewall history -p shop -o json
    """
    with Contexts.default().client() as client:
        show(client.list("/firewall/history", **_named({"project": project}), limit=500), _DECISIONS, output)


def _decide(verb: str, request: str, address: str, resource: str, why: str, output: Format) -> None:
    body = {"address": address, "resource": resource, "why": why}
    with Contexts.default().client() as client:
        show([client.post(f"/firewall/requests/{request}/{verb}", body)], _REQUESTS, output, single=True)


def _named(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}
