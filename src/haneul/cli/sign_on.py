"""`haneul login`, `logout`, `whoami`, `session`, `client`, and what administrators do for people who sign on."""

from __future__ import annotations

import getpass
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from haneul.cli.client import ApiClient
from haneul.cli.context import Contexts
from haneul.cli.output import Column, Format, age, say, show
from haneul.cli.sessions import IssuerClient, SessionTokens
from haneul.cli.signing_in import by_browser, by_device
from haneul.kernel.errors import InvalidInputError

session_app = typer.Typer(help="Your sessions: programs that you let in.", no_args_is_help=True)
client_app = typer.Typer(help="Programs that sign people on here (for administrators).", no_args_is_help=True)

Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]
Person = Annotated[str | None, typer.Option(help="Whose; by default yours.")]
PersonName = Annotated[str, typer.Argument(metavar="PERSON", help="Name of the person.")]
ClientId = Annotated[str, typer.Argument(metavar="CLIENT", help="Id of the program.")]


def login(
    server: Annotated[str, typer.Option(help="URL of the platform, such as https://cloud.example.com:7443.")],
    ca: Annotated[Path | None, typer.Option(help="Certificate authority of the platform.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="Sign in with the token in this file.")] = None,
    ask_token: Annotated[bool, typer.Option("--token", help="Sign in with a token, which is asked for.")] = False,
    browser: Annotated[bool, typer.Option("--browser", help="Sign on in a browser on this machine.")] = False,
    device: Annotated[bool, typer.Option("--device", help="Sign on in a browser on another device.")] = False,
) -> None:
    """Sign in: in a browser, or with a token from a file, from standard input, or without echo from the terminal.

    On a terminal the browser is what is used if nothing is said; elsewhere a token is read from standard input.

    Examples:

        haneul login --server https://cloud.example.com:7443 --ca platform-ca.crt

        haneul login --server https://cloud.example.com:7443 --device

        haneul login --server https://cloud.example.com:7443 --token-file token
    """
    server = server.rstrip("/")
    if sum((token_file is not None, ask_token, browser, device)) > 1:
        raise InvalidInputError("there is one way to sign in at a time", hint="leave --device or the token out")
    token: str | SessionTokens
    if token_file is not None:
        token = token_file.read_text().strip()
    elif ask_token:
        token = getpass.getpass("Token: ").strip() if sys.stdin.isatty() else sys.stdin.read().strip()
    elif device or browser or sys.stdin.isatty():
        token = _session(server, ca, device=device)
    else:
        token = sys.stdin.read().strip()
    shown = token if isinstance(token, str) else token.access_token
    with ApiClient(server, authority=ca, token=shown) as client:
        caller = client.get("/whoami")
    Contexts.default().sign_in(server, ca.read_bytes() if ca else None, token)
    say(f"signed in to {server} as {caller['person']}")


def _session(server: str, ca: Path | None, *, device: bool) -> SessionTokens:
    issuer = IssuerClient(server, authority=ca)
    try:
        return by_device(issuer) if device else by_browser(issuer, webbrowser.open)
    finally:
        issuer.close()


def logout() -> None:
    """End the session, and forget the platform and the token on this machine.

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
        Column("PLATFORM ROLES", lambda c: ", ".join(c["platformRoles"])),
        Column("GROUPS", lambda c: ", ".join(c["groups"])),
        Column("PROJECT", lambda c: c["project"], wide=True),
        Column("SIGNED IN WITH", lambda c: f"token {c['tokenId']}" if c["tokenId"] else "session", wide=True),
    ]
    with Contexts.default().client() as client:
        show([client.get("/whoami")], columns, output, single=True)


def _whose(client: ApiClient, person: str | None) -> str:
    return person or str(client.get("/whoami")["person"])


@session_app.command("list")
def list_sessions(person: Person = None, output: Output = Format.TABLE) -> None:
    """List the programs that act for you.

    Examples:

        haneul session list
    """
    columns = [
        Column("ID", lambda s: s["id"]),
        Column("PROGRAM", lambda s: s["client"]),
        Column("FROM", lambda s: s["source"]),
        Column("AGE", lambda s: age(s["created"])),
        Column("ENDS", lambda s: s["expires"][:16]),
        Column("WITH", lambda s: s["agent"], wide=True),
    ]
    with Contexts.default().client() as client:
        show(client.get(f"/people/{_whose(client, person)}/sessions"), columns, output)


@session_app.command("end")
def end_session(
    identity: Annotated[str, typer.Argument(metavar="ID", help="Id of the session.")], person: Person = None
) -> None:
    """End a session, at once.

    Examples:

        haneul session end 3f9c1a20
    """
    with Contexts.default().client() as client:
        client.delete(f"/people/{_whose(client, person)}/sessions/{identity}")


_CLIENT_COLUMNS = [
    Column("ID", lambda c: c["id"]),
    Column("NAME", lambda c: c["name"]),
    Column("ADDRESSES", lambda c: ", ".join(c["redirectUris"])),
    Column("SIGNED WITH", lambda c: c["algorithm"]),
]


@client_app.command("create")
def create_client(
    identity: ClientId,
    redirect: Annotated[list[str], typer.Option(help="Address to which codes are sent; may be repeated.")],
    name: Annotated[str, typer.Option(help="What people call it.")] = "",
    algorithm: Annotated[str, typer.Option(help="ES256, or RS256 for programs that know nothing newer.")] = "ES256",
) -> None:
    """Register a program. Its secret is printed once, and can never be shown again.

    Examples:

        haneul client create wiki --redirect https://wiki.example.com/oidc/callback
    """
    body = {"id": identity, "name": name, "redirectUris": redirect, "algorithm": algorithm}
    with Contexts.default().client() as client:
        issued = client.post("/clients", body)
    print(issued["secret"])  # noqa: T201 - data goes to standard output


@client_app.command("list")
def list_clients(output: Output = Format.TABLE) -> None:
    """List the registered programs.

    Examples:

        haneul client list
    """
    with Contexts.default().client() as client:
        show(client.get("/clients"), _CLIENT_COLUMNS, output)


@client_app.command("delete")
def delete_client(identity: ClientId) -> None:
    """Remove a program; it gets no more tokens.

    Examples:

        haneul client delete wiki
    """
    with Contexts.default().client() as client:
        client.delete(f"/clients/{identity}")


def make_secret(person: PersonName) -> None:
    """Make a sign-on secret for a person. It is printed once, and good once: to choose one's own.

    Examples:

        haneul person secret alice
    """
    with Contexts.default().client() as client:
        made = client.post(f"/people/{person}/sign-on-secret", None)
    print(made["secret"])  # noqa: T201 - data goes to standard output
    say(f"good once, until {made['expires'][:16]}")


def link_person(
    person: PersonName,
    subject: Annotated[str, typer.Argument(help="What the company's provider calls them in the claim 'sub'.")],
) -> None:
    """Say who a person is at the company's sign-on provider.

    Examples:

        haneul person link alice 00u1a2b3c4
    """
    with Contexts.default().client() as client:
        client.put(f"/people/{person}/provider-link", {"subject": subject})
