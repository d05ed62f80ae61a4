"""``haneul auth``: the sign-on gate that nginx asks, its keys, and what nginx needs for it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from haneul.cli.output import say

Config = Annotated[Path, typer.Option("--config", help="File of the gate's settings.")]

auth_app = typer.Typer(help="Let people sign on before apps behind nginx.", no_args_is_help=True)


@auth_app.command()
def serve(config: Config) -> None:
    """Answer nginx whether requests may go on, and sign people on.

    Examples:

        haneul auth serve --config /etc/haneul/auth.yaml
    """
    from haneul.app.auth import serve_gate  # noqa: PLC0415
    from haneul.app.serve import configure_logs  # noqa: PLC0415

    configure_logs(sys.stderr)
    asyncio.run(serve_gate(config))


@auth_app.command()
def rotate(
    config: Config,
    end_sessions: Annotated[
        bool, typer.Option("--end-sessions", help="Take all other keys away: everybody signs on again.")
    ] = False,
) -> None:
    """Seal sessions with a new key from now on. What was sealed before stays good for its life.

    Examples:

        haneul auth rotate --config /etc/haneul/auth.yaml
    """
    from haneul.app.auth import rotated_keys  # noqa: PLC0415

    count = rotated_keys(config, end_sessions=end_sessions)
    say("There is 1 key." if count == 1 else f"There are {count} keys.")


@auth_app.command()
def nginx(
    config: Config,
    project: Annotated[list[str] | None, typer.Option(help="Project whose members may pass; may be repeated.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Group that may pass; may be repeated.")] = None,
    person: Annotated[list[str] | None, typer.Option(help="User name that may pass; may be repeated.")] = None,
    email: Annotated[list[str] | None, typer.Option(help="Address that may pass; may be repeated.")] = None,
    anyone: Annotated[bool, typer.Option("--anyone", help="Everybody who is signed on may pass.")] = False,
) -> None:
    """Print what nginx needs in its configuration, with a location for those who may pass.

    Examples:

        haneul auth nginx --config /etc/haneul/auth.yaml --project shop --person alice
    """
    from haneul.app.auth import nginx_parts  # noqa: PLC0415
    from haneul.signon.rules import rule_of  # noqa: PLC0415

    rule = rule_of(projects=project or (), groups=group or (), people=person or (), emails=email or (), anyone=anyone)
    parts = nginx_parts(config, rule)
    typer.echo("\n".join(f"# In {where}:\n{text}" for where, text in parts.items()), nl=False)
