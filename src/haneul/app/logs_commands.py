"""``haneul logs``: requests at ingress, as they were just now, as they were kept, and once more under other rules."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from haneul.cli.output import Column, Format, say, show
from haneul.cli.spans import parse_span
from haneul.kernel.errors import ConflictError, InvalidInputError

logs_app = typer.Typer(help="Requests at a cluster's ingress, and what rules say of them.", no_args_is_help=True)

Cluster = Annotated[str, typer.Argument(help="Name of the cluster; of the platform's, PROJECT/CLUSTER.")]
Config = Annotated[
    Path | None, typer.Option("--config", help="The cluster's file; /etc/haneul/ingress/CLUSTER.yaml if left out.")
]
Since = Annotated[str, typer.Option(help="How far back, such as 90s, 10m, 7d.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="How many at most, the newest first.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result; json has whole records.")]

_AHEAD = timedelta(days=1)
_LONGEST = 80


def _cell(row: Any, part: str, name: str) -> str:
    from haneul.kernel.plain_text import plain  # noqa: PLC0415

    return plain(row[part].get(name, ""))


def _rules(row: Any) -> str:
    return ",".join(dict.fromkeys(str(message.get("rule", "")) for message in row["audit_data"].get("messages", ())))


_COLUMNS = [
    Column("STARTED", lambda row: _cell(row, "transaction", "started")[:23]),
    Column("STATUS", lambda row: _cell(row, "response", "status")),
    Column("SECONDS", lambda row: _cell(row, "transaction", "seconds")),
    Column("CLIENT", lambda row: _cell(row, "transaction", "client")),
    Column("METHOD", lambda row: _cell(row, "request", "method")),
    Column("HOST", lambda row: _cell(row, "request", "host")),
    Column("PATH", lambda row: _cell(row, "request", "uri").partition("?")[0][:_LONGEST]),
    Column("RULES", lambda row: _rules(row) or "-"),
    Column("REQUEST", lambda row: _cell(row, "transaction", "request_id"), wide=True),
    Column("INGRESS", lambda row: _cell(row, "transaction", "ingress"), wide=True),
    Column("KEPT", lambda row: _cell(row, "audit_data", "kept") or "-", wide=True),
]
_SILENCED = [
    Column("RULE", lambda row: row["rule"]),
    Column("SILENCED", lambda row: str(row["silenced"])),
    Column("MATCHING", lambda row: str(row["matching"])),
    Column("MESSAGE", lambda row: row["message"]),
]


@logs_app.command("ingress")
def ingress_logs(
    cluster: Cluster,
    config: Config = None,
    since: Since = "10m",
    limit: Limit = 100,
    collect: Annotated[bool, typer.Option("--collect", help="Put all of them into the store, and say so.")] = False,
    freeze: Annotated[bool, typer.Option("--freeze", help="Let nothing of them go until they are collected.")] = False,
    thaw: Annotated[bool, typer.Option("--thaw", help="Let go what was frozen.")] = False,
    state: Annotated[bool, typer.Option("--state", help="Show counts as JSON instead.")] = False,
    to: Annotated[Path | None, typer.Option(help="New file for all of them, a line each; .gz compresses.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the last requests, which a cluster's controller remembers in full, also those that are not kept.

    After an incident, freeze them, or collect them at once: both hold what there is, before newer ones take its place.
    Secrets and personal data are masked in all of them.

    Examples:

        haneul logs ingress shop --since 10m --collect

        haneul logs ingress team/shop --since 10m --collect

        haneul logs ingress shop --freeze

        haneul logs ingress shop --since 10m --to incident.jsonl.gz
    """
    from haneul.app.logs import logs_of, moment_before  # noqa: PLC0415

    if sum((collect, freeze, thaw, state, to is not None)) > 1:
        raise InvalidInputError("--collect, --freeze, --thaw, --state and --to are one at a time")
    logs, begin = logs_of(cluster, config), moment_before(parse_span(since))
    if state:
        print(json.dumps(asyncio.run(logs.controller.state()), indent=2))  # noqa: T201 - data
    elif freeze:
        say(f"{asyncio.run(logs.controller.freeze())} records are held until they are collected, or let go by --thaw.")
    elif thaw:
        say("Let go." if asyncio.run(logs.controller.thaw()) else "Nothing was frozen.")
    elif to is not None:
        try:
            say(f"{asyncio.run(logs.save(to, begin))} records are in {to}.")
        except FileExistsError as error:
            raise ConflictError(f"{to} is there already", hint="name a new file") from error
        except OSError as error:
            raise InvalidInputError(f"{to} cannot be written: {error.strerror}") from error
    elif collect:
        done = asyncio.run(logs.controller.collect(begin))
        say(f"{done['records']} records are in the store; 'haneul logs search {cluster}' finds them.")
        if done["left_out"]:
            raise ConflictError(
                f"{done['left_out']} records had no room in this day's budget; they are frozen",
                hint="--to writes all of them into a file; --thaw lets them go",
            )
    else:
        records = asyncio.run(logs.controller.records(begin, limit))
        show([record.document() for record in records], _COLUMNS, output)


@logs_app.command("search")
def search_logs(
    cluster: Cluster,
    config: Config = None,
    since: Since = "1d",
    until: Annotated[str, typer.Option(help="And how far back it ends; 0s is now.")] = "0s",
    host: Annotated[str, typer.Option(help="Only of this host.")] = "",
    path: Annotated[str, typer.Option(help="Only of this path; with * at its end, of those that begin so.")] = "",
    status: Annotated[str, typer.Option(help="Only with this status, such as 404 or 5xx.")] = "",
    client: Annotated[str, typer.Option(help="Only from this address.")] = "",
    request: Annotated[str, typer.Option(help="Only with this X-Request-ID.")] = "",
    limit: Limit = 100,
    output: Output = Format.TABLE,
) -> None:
    """Find requests that were kept or collected.

    Examples:

        haneul logs search shop --since 2h --status 5xx

        haneul logs search shop --host www.shop.example.com --path '/cart/*' --client 192.0.2.7 -o json
    """
    from haneul.app.logs import logs_of, moment_before  # noqa: PLC0415
    from haneul.trail.ports import Question, status_range  # noqa: PLC0415

    if status:
        try:
            status_range(status)
        except ValueError as error:
            raise InvalidInputError(str(error), hint="such as 404 or 5xx") from error
    end = parse_span(until)
    question = Question(
        cluster,
        moment_before(parse_span(since)),
        # A clock of another machine may be a little ahead.
        moment_before(end if end else -_AHEAD),
        host.lower(),
        path,
        status,
        client,
        request,
        limit,
    )
    records = asyncio.run(logs_of(cluster, config).search(question))
    show([record.document() for record in records], _COLUMNS, output)


@logs_app.command("replay")
def replay_logs(
    cluster: Cluster,
    exclusions: Annotated[Path, typer.Argument(help="File with the rules that are proposed.")],
    config: Config = None,
    since: Since = "1d",
    host: Annotated[str, typer.Option(help="Only requests of this host.")] = "",
    path: Annotated[str, typer.Option(help="Only of this path; with * at its end, of those that begin so.")] = "",
    records: Annotated[Path | None, typer.Option(help="File with records, instead of those that were kept.")] = None,
    limit: Limit = 1000,
    output: Output = Format.TABLE,
) -> None:
    """Send recorded requests once more to rules with a proposed exclusion, and show what it would have let through.

    They go to a nginx with ModSecurity that is started for it, not to any application.

    Examples:

        haneul logs replay shop proposed.conf --since 7d --path '/cart/*'

        haneul logs replay shop proposed.conf --records incident.jsonl.gz -o json
    """
    from dataclasses import asdict  # noqa: PLC0415

    from haneul.app.logs import logs_of, moment_before, read_records  # noqa: PLC0415
    from haneul.trail.ports import Question  # noqa: PLC0415

    logs = logs_of(cluster, config)
    begin, end = moment_before(parse_span(since)), round((datetime.now(UTC) + _AHEAD).timestamp() * 1000)
    question = Question(cluster, begin, end, host=host.lower(), path=path, limit=limit)

    async def work() -> Any:
        found = read_records(records)[:limit] if records else await logs.search(question)
        return await logs.replay(found, exclusions)

    done = asyncio.run(work())
    through = [record.document() for record in done.let_through]
    if output in (Format.JSON, Format.YAML):
        shown = {
            "replayed": done.replayed,
            "unanswered": done.unanswered,
            "silenced": [asdict(one) for one in done.silenced],
            "letThrough": through,
            "hidden": dict(done.hidden),
        }
        show([shown], [], output, single=True)
        return
    show([asdict(one) for one in done.silenced], _SILENCED, output)
    say(f"{done.replayed} requests were sent once more. {len(through)} that would be refused would be let through:")
    show(through, _COLUMNS, output)
    if done.unanswered:
        say(f"{done.unanswered} were not answered.")
    if done.hidden:
        rules = ", ".join(f"{rule} ({count})" for rule, count in done.hidden)
        say(f"Masked since, so that these rules could not be judged everywhere: {rules}.")
