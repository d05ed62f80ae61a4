"""The entry point ``haneul``: the command tree, put together, and what happens to errors.

Commands that are called often start fast: what only some commands need is imported when they run.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from haneul.app.auth_commands import auth_app
from haneul.app.balancer_commands import balancer_app
from haneul.app.base_image_commands import base_image_app
from haneul.app.d2hub_commands import d2hub_app
from haneul.app.dns_commands import dns_app
from haneul.app.host_commands import add_host_commands, check_platform
from haneul.app.ingress_commands import ingress_app
from haneul.app.logs_commands import logs_app
from haneul.app.serve import serve_app, version
from haneul.cli import people, sign_on
from haneul.cli.audit import audit_app
from haneul.cli.check import check_tree
from haneul.cli.clusters import cluster_app, node_app
from haneul.cli.firewall import firewall_app
from haneul.cli.groups import group_app
from haneul.cli.images import image_app
from haneul.cli.machines import machine_app
from haneul.cli.output import say, say_error
from haneul.cli.robots import robot_app
from haneul.cli.usage import usage
from haneul.kernel.errors import HaneulError

_INTERRUPTED = 130


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version())
        raise typer.Exit


def command_tree() -> typer.Typer:
    """Return the whole command tree."""
    app = typer.Typer(
        name="haneul",
        help="A private container cloud: Kubernetes clusters on your own servers.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def root(
        show_version: Annotated[
            bool, typer.Option("--version", help="Show the version and end.", is_eager=True, callback=_tell_version)
        ] = False,
    ) -> None:
        """Nothing is to be done before a command but what the options' callbacks do."""

    add_host_commands(app)
    app.command()(sign_on.login)
    app.command()(sign_on.logout)
    app.command()(sign_on.whoami)
    app.add_typer(people.project_app, name="project")
    app.add_typer(people.person_app, name="person")
    app.add_typer(people.token_app, name="token")
    app.command()(usage)
    app.add_typer(sign_on.session_app, name="session")
    app.add_typer(sign_on.client_app, name="client")
    app.add_typer(group_app, name="group")
    app.add_typer(robot_app, name="robot")
    app.add_typer(audit_app, name="audit")
    app.add_typer(cluster_app, name="cluster")
    app.add_typer(node_app, name="node")
    app.add_typer(check_tree(check_platform), name="check")
    app.add_typer(machine_app, name="machine")
    app.add_typer(firewall_app, name="firewall")
    app.add_typer(image_app, name="image")
    app.add_typer(base_image_app, name="base-image")
    app.add_typer(d2hub_app, name="d2hub")
    app.add_typer(dns_app, name="dns")
    app.add_typer(balancer_app, name="balancer")
    app.add_typer(ingress_app, name="ingress")
    app.add_typer(logs_app, name="logs")
    app.add_typer(auth_app, name="auth")
    app.add_typer(serve_app, name="serve", hidden=True)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run a command; end with the exit code of the error's class, as the reference documents them."""
    try:
        command_tree()(args=arguments, standalone_mode=True)
    except HaneulError as error:
        say_error(error)
        sys.exit(error.exit_code)
    except ExceptionGroup as group:
        known = [error for error in group.exceptions if isinstance(error, HaneulError)]
        if not known:
            raise
        for entry in known:
            say_error(entry)
        sys.exit(known[0].exit_code)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
