"""`haneul cluster backup` and `haneul cluster restore`."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from haneul.cli.context import Contexts
from haneul.cli.output import Column, Format, age, in_utc, say, show
from haneul.cli.waiting import wait_ready
from haneul.kernel.errors import ConflictError, InvalidInputError

backup_app = typer.Typer(help="The backups of clusters, which are made all the time.", no_args_is_help=True)

Project = Annotated[str | None, typer.Option("--project", "-p", help="Project; by default the one in use.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _size(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.3g}{unit}" if value < 1000 else f"{value:.0f}{unit}"
        value /= 1024
    return f"{value:.3g}GiB"


def _proof(snapshot: dict[str, Any]) -> str:
    proof = snapshot["proof"]
    if proof is None:
        return "not yet"
    if proof["problem"]:
        return f"FAILED: {proof['problem']}"
    return f"{proof['seconds']:.1f} s"


def _proven(snapshot: dict[str, Any]) -> str:
    proof = snapshot["proof"]
    return "" if proof is None else f"{age(proof['at'])} ago"


_SNAPSHOTS = [
    Column("REVISION", lambda s: str(s["revision"])),
    Column("TAKEN (UTC)", lambda s: in_utc(s["taken"])),
    Column("SIZE", lambda s: _size(s["size"])),
    Column("RESTORED IN", _proof),
    Column("TRIED", _proven),
    Column("KEYS", lambda s: str(s["proof"]["keys"]) if s["proof"] else "", wide=True),
    Column("UP TO REVISION", lambda s: str(s["proof"]["revision"]) if s["proof"] else "", wide=True),
]
_WINDOWS = [
    Column("FROM (UTC)", lambda w: in_utc(w["begin"])),
    Column("TO (UTC)", lambda w: in_utc(w["end"])),
    Column("REVISIONS", lambda w: f"{w['first']}-{w['last']}"),
]
_CLUSTERS = [
    Column("NAME", lambda c: c["name"]),
    Column("STATE", lambda c: c["state"]),
    Column("COMPLETE UNTIL (UTC)", lambda c: in_utc(c["completeUntil"])),
    Column("LAG", lambda c: f"{c['lagSeconds']:.1f}s"),
    Column("SNAPSHOTS", lambda c: str(len(c["snapshots"]))),
    Column("SIZE", lambda c: _size(c["size"])),
    Column("DELETED", lambda c: f"{age(c['deleted'])} ago" if c["deleted"] else ""),
    Column("KEPT UNTIL (UTC)", lambda c: in_utc(c["expires"]) if c["expires"] else ""),
    Column("MESSAGE", lambda c: c["message"], wide=True),
]


@backup_app.command("list")
def list_backups(
    name: Annotated[str | None, typer.Argument(help="Name of the cluster; by default all clusters are shown.")] = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Show the backups of deleted clusters.")] = False,
    project: Project = None,
    output: Output = Format.TABLE,
) -> None:
    """Show what can be restored: of a cluster its snapshots, how long a drill took to restore each, and the moments.

    Every state between the moments of a row can be restored, not only snapshots.

    Examples:

        haneul cluster backup list

        haneul cluster backup list shop

        haneul cluster backup list --deleted
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        if name is None:
            found = client.list(f"/projects/{owner}/backups", deleted="true" if deleted else "false")
            show(found, _CLUSTERS, output)
            return
        backup = client.get(f"/projects/{owner}/clusters/{name}/backups")
    if output not in (Format.TABLE, Format.WIDE):
        show([backup], _CLUSTERS, output, single=True)
        return
    show([backup], _CLUSTERS, output)
    if backup["message"]:
        say(f"{backup['state']}: {backup['message']}")
    for rows, columns in ((backup["snapshots"], _SNAPSHOTS), (backup["windows"], _WINDOWS)):
        print()  # noqa: T201 - between two tables
        show(rows, columns, output)
    for gap in backup["gaps"]:
        say(f"missing: revisions {gap['first']} to {gap['last']}")


def restore(
    name: Annotated[str, typer.Argument(help="Name of the cluster.")],
    to: Annotated[
        str | None, typer.Option(help="The last state before this moment: ISO 8601, or an age such as 10m, 2h, 1d.")
    ] = None,
    revision: Annotated[int | None, typer.Option(help="The state at this revision of its etcd.")] = None,
    new_name: Annotated[
        str | None, typer.Option("--as", help="Make a new cluster of this name; the old one may be deleted already.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    project: Project = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = 600,
    output: Output = Format.TABLE,
) -> None:
    """Bring a cluster to a state of its backup, or make a new one from it. For owners of the project.

    Without --to and --revision it is the newest state, at most five seconds old when the cluster was lost. In place,
    its API is away for some seconds while pods go on; what was in the cluster after that state is gone from it, but
    stays in the backup. A moment without a zone is in yours.

    Examples:

        haneul cluster restore shop --to 10m --yes

        haneul cluster restore shop --to "2026-11-27 14:30" --yes

        haneul cluster restore shop --revision 48211 --as shop-before
    """
    body: dict[str, Any] = {}
    if to is not None:
        body["moment"] = parse_moment(to, datetime.now(UTC)).isoformat()
    if revision is not None:
        body["revision"] = revision
    if new_name is not None:
        body["as"] = new_name
    contexts = Contexts.default()
    owner = contexts.project(project)
    if new_name is None and not yes:
        if not sys.stdin.isatty():
            raise InvalidInputError("nobody is here to confirm", hint="add --yes to restore without being asked")
        typer.confirm(f"Replace the state of cluster {name} of {owner} by an older one?", abort=True, err=True)

    def seen(cluster: dict[str, Any]) -> None:
        outcome = cluster["status"]["restore"]
        if outcome["number"] == cluster["spec"]["restore"]["number"] and outcome["state"] == "Failed":
            raise ConflictError(
                f"nothing was restored: {outcome['message']}",
                hint=f"'haneul cluster backup list {name}' shows the rest",
            )

    with contexts.client() as client:
        cluster = client.post(f"/projects/{owner}/clusters/{name}/restore", body)
        if wait:
            stage = f"restore cluster {new_name or name}"
            cluster = wait_ready(client, owner, cluster["name"], timeout=timeout, stage=stage, seen=seen)
    done = cluster["status"]["restore"]
    columns = [
        Column("NAME", lambda c: c["name"]),
        Column("PHASE", lambda c: c["status"]["phase"]),
        Column("REVISION", lambda c: str(c["status"]["restore"]["revision"])),
        Column("KEYS", lambda c: str(c["status"]["restore"]["keys"])),
        Column("ENDPOINT", lambda c: c["status"]["endpoint"]),
    ]
    show([cluster], columns, output, single=True)
    if wait:
        say(f"the data was made in {done['prepareSeconds']:.1f} s")
        if new_name is not None:
            say(f"Next: haneul cluster kubeconfig {new_name} -p {owner}, then kubectl get nodes")


def parse_moment(text: str, now: datetime) -> datetime:
    """Return the moment that somebody names: ISO 8601, in the own zone if none is named, or how long ago it was."""
    if found := re.fullmatch(r"(\d{1,6})([smhd])", text):
        return now - timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError(
            f"{text!r} is no moment", hint="write '2026-11-27 14:30', '2026-11-27T14:30:00Z', or an age such as 10m"
        ) from error
    return moment if moment.tzinfo is not None else moment.astimezone()
