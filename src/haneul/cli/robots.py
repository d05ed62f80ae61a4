"""`haneul robot`: programs that work in a project."""

from __future__ import annotations

from typing import Annotated

import typer

from haneul.cli.context import Contexts
from haneul.cli.output import Column, Format, age, show

robot_app = typer.Typer(help="Robots: programs that work in a project.", no_args_is_help=True)

Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]
Project = Annotated[str | None, typer.Option("--project", "-p", help="Project; by default the one in use.")]
Name = Annotated[str, typer.Argument(help="Name of the robot.")]
Days = Annotated[int, typer.Option(help="Days that its token lives.")]


@robot_app.command("create")
def create_robot(
    name: Name,
    role: Annotated[str, typer.Option(help="owner, developer or viewer; at most your own.")] = "developer",
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Days = 90,
    project: Project = None,
) -> None:
    """Add a robot. Its token is printed once, and can never be shown again.

    Examples:

        haneul robot create ci --role developer --days 30 -p shop
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    body = {"name": name, "role": role, "description": description, "days": days}
    with contexts.client() as client:
        issued = client.post(f"/projects/{owner}/robots", body)
    print(issued["secret"])  # noqa: T201 - data goes to standard output


@robot_app.command("list")
def list_robots(project: Project = None, output: Output = Format.TABLE) -> None:
    """List a project's robots.

    Examples:

        haneul robot list -p shop
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    columns = [
        Column("NAME", lambda r: r["name"]),
        Column("ROLE", lambda r: r["role"]),
        Column("DESCRIPTION", lambda r: r["description"]),
        Column("MAKER", lambda r: r["maker"]),
        Column("AGE", lambda r: age(r["created"])),
    ]
    with contexts.client() as client:
        show(client.get(f"/projects/{owner}/robots"), columns, output)


@robot_app.command("tokens")
def list_tokens(name: Name, project: Project = None, output: Output = Format.TABLE) -> None:
    """List a robot's tokens, without their secrets.

    Examples:

        haneul robot tokens ci -p shop
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    columns = [
        Column("ID", lambda t: t["id"]),
        Column("EXPIRES", lambda t: t["expires"][:19]),
        Column("LAST USED", lambda t: age(t["lastUsed"]) if t["lastUsed"] else "never"),
        Column("REVOKED", lambda t: "yes" if t["revoked"] else "no"),
    ]
    with contexts.client() as client:
        show(client.get(f"/projects/{owner}/robots/{name}/tokens"), columns, output)


@robot_app.command("rotate")
def rotate_robot(
    name: Name,
    days: Days = 90,
    overlap: Annotated[float, typer.Option(help="Hours that the old tokens go on.")] = 24.0,
    project: Project = None,
) -> None:
    """Make a robot a new token, and print it; the old ones go on for a while, so that nothing stands still.

    Examples:

        haneul robot rotate ci --overlap 2 -p shop
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        issued = client.post(f"/projects/{owner}/robots/{name}/rotate", {"days": days, "overlapHours": overlap})
    print(issued["secret"])  # noqa: T201 - data goes to standard output


@robot_app.command("revoke")
def revoke_token(
    name: Name,
    token: Annotated[str, typer.Argument(metavar="TOKEN-ID", help="Id of the token.")],
    project: Project = None,
) -> None:
    """Make one of a robot's tokens void, at once.

    Examples:

        haneul robot revoke ci r3f9c1a -p shop
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        client.delete(f"/projects/{owner}/robots/{name}/tokens/{token}")


@robot_app.command("delete")
def delete_robot(name: Name, project: Project = None) -> None:
    """Delete a robot with all its tokens, at once.

    Examples:

        haneul robot delete ci -p shop
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        client.delete(f"/projects/{owner}/robots/{name}")
