"""`haneul login`, `whoami`, `project`, `person`, `token` and `audit`."""

from __future__ import annotations

import dataclasses
import getpass
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from haneul.cli.client import ApiClient
from haneul.cli.context import Contexts
from haneul.cli.output import Column, Format, age, say, show
from haneul.cli.usage import quota_app
from haneul.kernel.errors import InvalidInputError

project_app = typer.Typer(help="Projects: what people share.", no_args_is_help=True)
members_app = typer.Typer(help="Who is in a project, and as what.", no_args_is_help=True)
person_app = typer.Typer(help="People (for administrators).", no_args_is_help=True)
token_app = typer.Typer(help="Your tokens.", no_args_is_help=True)
project_app.add_typer(members_app, name="members")
project_app.add_typer(quota_app, name="quota")

Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]
Project = Annotated[str | None, typer.Option("--project", "-p", help="Project; by default the one in use.")]


class PlatformRole(StrEnum):
    """What somebody may be for the platform as a whole."""

    FIREWALL_APPROVER = "firewall-approver"


def login(
    server: Annotated[str, typer.Option(help="URL of the platform, such as https://cloud.example.com:7443.")],
    ca: Annotated[Path | None, typer.Option(help="Certificate authority of the platform.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the token; by default it is asked for.")] = None,
) -> None:
    """Sign in with a token, which is read from a file, from standard input, or without echo from the terminal.

    Examples:

        haneul login --server https://cloud.example.com:7443 --ca platform-ca.crt
    """
    if token_file is not None:
        token = token_file.read_text()
    elif sys.stdin.isatty():
        token = getpass.getpass("Token: ")
    else:
        token = sys.stdin.read()
    with ApiClient(server, authority=ca, token=token.strip()) as client:
        caller = client.get("/whoami")
    Contexts.default().sign_in(server, ca.read_bytes() if ca else None, token)
    say(f"signed in to {server} as {caller['person']}")


def logout() -> None:
    """Forget the platform and the token on this machine.

    Examples:

        haneul logout
    """
    Contexts.default().sign_out()


def whoami(output: Output = Format.TABLE) -> None:
    """Show who you are to the platform.

    Examples:

        haneul whoami
    """
    columns = [
        Column("PERSON", lambda c: c["person"]),
        Column("ADMINISTRATOR", lambda c: "yes" if c["admin"] else "no"),
    ]
    with Contexts.default().client() as client:
        show([client.get("/whoami")], columns, output, single=True)


_PROJECT_COLUMNS = [
    Column("NAME", lambda p: p["name"]),
    Column("DESCRIPTION", lambda p: p["description"]),
    Column("AGE", lambda p: age(p["created"])),
]


@project_app.command("create")
def create_project(
    name: Annotated[str, typer.Argument(help="Name of the project.")],
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Make a project; you become its owner, and it becomes the one in use if there is none.

    Examples:

        haneul project create shop --description "The web shop"
    """
    contexts = Contexts.default()
    with contexts.client() as client:
        project = client.post("/projects", {"name": name, "description": description})
    if not contexts.current().project:
        contexts.write(dataclasses.replace(contexts.current(), project=name))
    show([project], _PROJECT_COLUMNS, output, single=True)


@project_app.command("list")
def list_projects(output: Output = Format.TABLE) -> None:
    """List the projects that you are in.

    Examples:

        haneul project list
    """
    with Contexts.default().client() as client:
        show(client.get("/projects"), _PROJECT_COLUMNS, output)


@project_app.command("use")
def use_project(name: Annotated[str, typer.Argument(help="Name of the project.")]) -> None:
    """Make a project the one that commands mean when they name none.

    Examples:

        haneul project use shop
    """
    contexts = Contexts.default()
    with contexts.client() as client:
        if name not in [project["name"] for project in client.get("/projects")]:
            raise InvalidInputError(f"you are in no project named {name}", hint="'haneul project list' shows yours")
    contexts.write(dataclasses.replace(contexts.current(), project=name))


@project_app.command("delete")
def delete_project(name: Annotated[str, typer.Argument(help="Name of the project.")]) -> None:
    """Delete a project that has no clusters any more.

    Examples:

        haneul project delete shop
    """
    contexts = Contexts.default()
    with contexts.client() as client:
        client.delete(f"/projects/{name}")
    if contexts.current().project == name:
        contexts.write(dataclasses.replace(contexts.current(), project=""))


_MEMBER_COLUMNS = [Column("PERSON", lambda m: m["person"]), Column("ROLE", lambda m: m["role"])]


@members_app.command("list")
def list_members(project: Project = None, output: Output = Format.TABLE) -> None:
    """List a project's members.

    Examples:

        haneul project members list -p shop
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        show(client.get(f"/projects/{owner}/members"), _MEMBER_COLUMNS, output)


@members_app.command("set")
def set_member(
    person: Annotated[str, typer.Argument(help="Name of the person.")],
    role: Annotated[str, typer.Argument(help="owner, developer or viewer.")],
    project: Project = None,
) -> None:
    """Give a person a role in a project.

    Examples:

        haneul project members set alice developer -p shop
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        client.put(f"/projects/{owner}/members/{person}", {"role": role})


@members_app.command("remove")
def remove_member(person: Annotated[str, typer.Argument(help="Name of the person.")], project: Project = None) -> None:
    """Take a person out of a project.

    Examples:

        haneul project members remove alice -p shop
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        client.delete(f"/projects/{owner}/members/{person}")


_PERSON_COLUMNS = [
    Column("NAME", lambda p: p["name"]),
    Column("FULL NAME", lambda p: p["displayName"]),
    Column("ADMINISTRATOR", lambda p: "yes" if p["admin"] else "no"),
    Column("DISABLED", lambda p: "yes" if p["disabled"] else "no"),
    Column("EMAIL", lambda p: p["email"], wide=True),
]
PersonName = Annotated[str, typer.Argument(help="Name of the person.")]


@person_app.command("create")
def create_person(
    name: PersonName,
    full_name: Annotated[str, typer.Option(help="Their name as people say it.")] = "",
    email: Annotated[str, typer.Option(help="Where they are reached.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="Make them an administrator.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Add a person.

    Examples:

        haneul person create alice --full-name "Alice Kim"
    """
    body = {"name": name, "displayName": full_name, "email": email, "admin": admin}
    with Contexts.default().client() as client:
        show([client.post("/people", body)], _PERSON_COLUMNS, output, single=True)


@person_app.command("list")
def list_people(output: Output = Format.TABLE) -> None:
    """List everybody.

    Examples:

        haneul person list -o wide
    """
    with Contexts.default().client() as client:
        show(client.get("/people"), _PERSON_COLUMNS, output)


@person_app.command("disable")
def disable_person(name: PersonName) -> None:
    """Keep a person out, with all their tokens, at once.

    Examples:

        haneul person disable alice
    """
    with Contexts.default().client() as client:
        client.patch(f"/people/{name}", {"disabled": True})


@person_app.command("enable")
def enable_person(name: PersonName) -> None:
    """Let a person in again.

    Examples:

        haneul person enable alice
    """
    with Contexts.default().client() as client:
        client.patch(f"/people/{name}", {"disabled": False})


@person_app.command("grant")
def grant_person(name: PersonName, role: PlatformRole) -> None:
    """Give a person a platform role.

    Examples:

        haneul person grant carol firewall-approver
    """
    with Contexts.default().client() as client:
        client.put(f"/people/{name}/roles/{role}", None)


@person_app.command("withdraw")
def withdraw_person(name: PersonName, role: PlatformRole) -> None:
    """Take a platform role from a person.

    Examples:

        haneul person withdraw carol firewall-approver
    """
    with Contexts.default().client() as client:
        client.delete(f"/people/{name}/roles/{role}")


_TOKEN_COLUMNS = [
    Column("ID", lambda t: t["id"]),
    Column("DESCRIPTION", lambda t: t["description"]),
    Column("EXPIRES", lambda t: t["expires"][:10]),
    Column("LAST USED", lambda t: age(t["lastUsed"]) if t["lastUsed"] else "never"),
    Column("REVOKED", lambda t: "yes" if t["revoked"] else "no"),
]
Person = Annotated[str | None, typer.Option(help="Whose; by default yours.")]


def _whose(client: ApiClient, person: str | None) -> str:
    return person or str(client.get("/whoami")["person"])


@token_app.command("create")
def create_token(
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[int, typer.Option(help="Days that it lives.")] = 90,
    person: Person = None,
) -> None:
    """Make a token. It is printed once, and can never be shown again.

    Examples:

        haneul token create --description laptop --days 30
    """
    with Contexts.default().client() as client:
        issued = client.post(f"/people/{_whose(client, person)}/tokens", {"description": description, "days": days})
    print(issued["secret"])  # noqa: T201 - data goes to standard output


@token_app.command("list")
def list_tokens(person: Person = None, output: Output = Format.TABLE) -> None:
    """List tokens, without their secrets.

    Examples:

        haneul token list
    """
    with Contexts.default().client() as client:
        show(client.get(f"/people/{_whose(client, person)}/tokens"), _TOKEN_COLUMNS, output)


@token_app.command("revoke")
def revoke_token(
    identity: Annotated[str, typer.Argument(metavar="ID", help="Id of the token.")], person: Person = None
) -> None:
    """Make a token void, at once.

    Examples:

        haneul token revoke 3f9c1a
    """
    with Contexts.default().client() as client:
        client.delete(f"/people/{_whose(client, person)}/tokens/{identity}")


def audit(output: Output = Format.TABLE) -> None:
    """Show who changed what, newest first (for administrators).

    Examples:

        haneul audit -o json
    """
    columns = [
        Column("ID", lambda r: str(r["id"])),
        Column("WHEN", lambda r: r["moment"][:19]),
        Column("WHO", lambda r: r["person"]),
        Column("WHAT", lambda r: r["action"]),
        Column("OBJECT", lambda r: r["object"]),
        Column("PROJECT", lambda r: r["project"]),
        Column("RESULT", lambda r: r["result"]),
        Column("FROM", lambda r: r["source"], wide=True),
        Column("REQUEST", lambda r: r["requestId"], wide=True),
    ]
    with Contexts.default().client() as client:
        show(client.get("/audit")["items"], columns, output)
