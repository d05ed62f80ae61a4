"""`haneul group`, `haneul project groups`, and platform roles."""

from __future__ import annotations

from typing import Annotated

import typer

from haneul.cli.context import Contexts
from haneul.cli.output import Column, Format, show

group_app = typer.Typer(help="Groups of people.", no_args_is_help=True)
project_groups_app = typer.Typer(help="Which groups are in a project, and as what.", no_args_is_help=True)

Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]
Project = Annotated[str | None, typer.Option("--project", "-p", help="Project; by default the one in use.")]
GroupName = Annotated[str, typer.Argument(metavar="GROUP", help="Name of the group.")]
PersonName = Annotated[str, typer.Argument(metavar="PERSON", help="Name of the person.")]
PlatformRole = Annotated[str, typer.Argument(metavar="ROLE", help="admin, auditor or firewall-approver.")]

_COLUMNS = [
    Column("NAME", lambda g: g["name"]),
    Column("DESCRIPTION", lambda g: g["description"]),
    Column("AT THE PROVIDER", lambda g: g["external"]),
    Column("PLATFORM ROLES", lambda g: ", ".join(g["platformRoles"])),
]


@group_app.command("create")
def create_group(
    name: GroupName,
    description: Annotated[str, typer.Option(help="Who they are.")] = "",
    external: Annotated[str, typer.Option(help="What the company's sign-on provider calls the group.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Add a group; with --external, the provider says who is in it.

    Examples:

        haneul group create shop-team --description "Who builds the shop"
    """
    body = {"name": name, "description": description, "external": external}
    with Contexts.default().client() as client:
        show([client.post("/groups", body)], _COLUMNS, output, single=True)


@group_app.command("list")
def list_groups(output: Output = Format.TABLE) -> None:
    """List the groups.

    Examples:

        haneul group list
    """
    with Contexts.default().client() as client:
        show(client.get("/groups"), _COLUMNS, output)


@group_app.command("delete")
def delete_group(name: GroupName) -> None:
    """Delete a group with its roles.

    Examples:

        haneul group delete shop-team
    """
    with Contexts.default().client() as client:
        client.delete(f"/groups/{name}")


@group_app.command("members")
def list_members(name: GroupName, output: Output = Format.TABLE) -> None:
    """Show who is in a group.

    Examples:

        haneul group members shop-team
    """
    with Contexts.default().client() as client:
        show(client.get(f"/groups/{name}/members"), [Column("PERSON", str)], output)


@group_app.command("add")
def add_member(name: GroupName, person: PersonName) -> None:
    """Put a person into a group.

    Examples:

        haneul group add shop-team alice
    """
    with Contexts.default().client() as client:
        client.put(f"/groups/{name}/members/{person}", None)


@group_app.command("remove")
def remove_member(name: GroupName, person: PersonName) -> None:
    """Take a person out of a group.

    Examples:

        haneul group remove shop-team alice
    """
    with Contexts.default().client() as client:
        client.delete(f"/groups/{name}/members/{person}")


@group_app.command("grant")
def grant_group(name: GroupName, role: PlatformRole) -> None:
    """Give a group a platform role.

    Examples:

        haneul group grant auditors auditor
    """
    with Contexts.default().client() as client:
        client.put(f"/groups/{name}/roles/{role}", None)


@group_app.command("withdraw")
def withdraw_group(name: GroupName, role: PlatformRole) -> None:
    """Take a platform role from a group.

    Examples:

        haneul group withdraw auditors auditor
    """
    with Contexts.default().client() as client:
        client.delete(f"/groups/{name}/roles/{role}")


def grant_person(person: PersonName, role: PlatformRole) -> None:
    """Give a person a platform role.

    Examples:

        haneul person grant alice auditor
    """
    with Contexts.default().client() as client:
        client.put(f"/people/{person}/roles/{role}", None)


def withdraw_person(person: PersonName, role: PlatformRole) -> None:
    """Take a platform role from a person.

    Examples:

        haneul person withdraw alice auditor
    """
    with Contexts.default().client() as client:
        client.delete(f"/people/{person}/roles/{role}")


@project_groups_app.command("list")
def list_project_groups(project: Project = None, output: Output = Format.TABLE) -> None:
    """List the groups that have a role in a project.

    Examples:

        haneul project groups list -p shop
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    columns = [Column("GROUP", lambda g: g["group"]), Column("ROLE", lambda g: g["role"])]
    with contexts.client() as client:
        show(client.get(f"/projects/{owner}/groups"), columns, output)


@project_groups_app.command("set")
def set_project_group(
    group: GroupName,
    role: Annotated[str, typer.Argument(help="owner, developer or viewer.")],
    project: Project = None,
) -> None:
    """Give a group a role in a project; each member has the best of their own and their groups' roles.

    Examples:

        haneul project groups set shop-team developer -p shop
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        client.put(f"/projects/{owner}/groups/{group}", {"role": role})


@project_groups_app.command("remove")
def remove_project_group(group: GroupName, project: Project = None) -> None:
    """Take a group's role in a project away.

    Examples:

        haneul project groups remove shop-team -p shop
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        client.delete(f"/projects/{owner}/groups/{group}")
