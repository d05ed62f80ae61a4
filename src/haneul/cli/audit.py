"""`haneul audit`: reading the record of changes, and checking that nobody wrote it anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from haneul.cli.client import ApiClient
from haneul.cli.context import Contexts
from haneul.cli.output import Column, Format, say, show
from haneul.kernel.errors import HaneulError, InvalidInputError
from haneul.kernel.files import write_atomically
from haneul.kernel.hash_chain import Anchor, verify

audit_app = typer.Typer(help="The record of changes and refusals.", no_args_is_help=True)

Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]

_PAGE = 500
_COLUMNS = [
    Column("ID", lambda r: str(r["id"])),
    Column("WHEN", lambda r: r["moment"][:19]),
    Column("WHO", lambda r: r["person"]),
    Column("WHAT", lambda r: r["action"]),
    Column("OBJECT", lambda r: r["object"]),
    Column("PROJECT", lambda r: r["project"]),
    Column("RESULT", lambda r: r["result"]),
    Column("FROM", lambda r: r["source"], wide=True),
    Column("WITH", lambda r: r["agent"], wide=True),
    Column("REQUEST", lambda r: r["requestId"], wide=True),
]


class BrokenChainError(HaneulError):
    """The audit record is not what it was: a record was changed, left out, or its end is missing."""

    code = "audit-broken"
    title = "The audit record was tampered with"
    http_status = 500
    exit_code = 12


@audit_app.command("list")
def list_records(
    project: Annotated[str | None, typer.Option("--project", "-p", help="Only of this project.")] = None,
    person: Annotated[str | None, typer.Option(help="Only what this person did.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_PAGE, help="How many at most.")] = 100,
    output: Output = Format.TABLE,
) -> None:
    """Show who changed what, newest first: everything for auditors, a project's for its owners.

    Examples:

        haneul audit list -p shop

        haneul audit list --person alice -o json
    """
    query = {"project": project or "", "person": person or "", "limit": limit}
    with Contexts.default().client() as client:
        show(client.get("/audit", **query)["items"], _COLUMNS, output)


@audit_app.command("anchor")
def show_anchor() -> None:
    """Print the newest record's number and hash, to be kept where the platform cannot write.

    Examples:

        haneul audit anchor
    """
    with Contexts.default().client() as client:
        head = client.get("/audit/head")
    print(f"{head['id']}:{head['hash']}")  # noqa: T201 - data goes to standard output


@audit_app.command("verify")
def verify_records(
    anchors: Annotated[
        Path | None, typer.Option(help="File with anchors, one a line, as 'haneul audit anchor' prints them.")
    ] = None,
) -> None:
    """Compute the whole chain of records again, and name the first that is wrong.

    The last record that was found good is noted beside your configuration; the next check demands that it still lies
    on the chain, so that an end that was cut off is noticed too.

    Examples:

        haneul audit verify

        haneul audit verify --anchors /mnt/elsewhere/anchors
    """
    contexts = Contexts.default()
    noted = contexts.folder / "audit-anchor.json"
    known = [*_noted(noted, contexts.current().server), *(_anchors(anchors.read_text()) if anchors else [])]
    with contexts.client() as client:
        head = Anchor(**client.get("/audit/head"))
        # What is added meanwhile lies behind the head and does no harm.
        verdict = verify(_records(client), anchors=[*known, head])
    if verdict.fault:
        raise BrokenChainError(verdict.fault, hint="compare with a backup of the database, and tell an auditor")
    write_atomically(noted, json.dumps({"server": contexts.current().server, **vars(verdict.last)}), mode=0o600)
    say(f"{verdict.last.id} records, all as they were written; the last is {verdict.last.hash}")


def _records(client: ApiClient) -> Iterator[dict[str, Any]]:
    query: dict[str, Any] = {"order": "oldest", "limit": _PAGE}
    while True:
        page = client.get("/audit", **query)
        yield from page["items"]
        if page["continue"] is None:
            return
        query["continue"] = page["continue"]


def _noted(path: Path, server: str) -> list[Anchor]:
    kept = json.loads(path.read_text()) if path.exists() else {}
    return [Anchor(kept["id"], kept["hash"])] if kept.get("server") == server and kept["id"] else []


def _anchors(text: str) -> list[Anchor]:
    found = []
    for line in text.split():
        number, _, digest = line.partition(":")
        if not number.isdecimal() or not digest:
            raise InvalidInputError(f"{line!r} is no anchor", hint="anchors are lines such as '12:3f…'")
        found.append(Anchor(int(number), digest))
    return found
