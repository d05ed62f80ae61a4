"""`haneul cluster versions` and `haneul cluster upgrade`: one cluster, or many, one after the other.

Many clusters are upgraded from here, so that whoever began it sees how it goes and can end it between two clusters.
Asked again, it goes on with those that are not there yet.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from haneul.cli.client import ApiClient
from haneul.cli.context import Contexts
from haneul.cli.output import Column, Format, say, show
from haneul.cli.waiting import is_current, wait_ready
from haneul.kernel.errors import HaneulError, InvalidInputError

Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]


class UpgradeStoppedError(HaneulError):
    """An upgrade does not go on by itself; the detail says why. It goes on once that is mended."""

    code = "upgrade-stopped"
    title = "The upgrade stopped"
    http_status = 409
    exit_code = 13


_VERSIONS = [Column("VERSION", lambda one: one["version"]), Column("STATE", lambda one: one["state"])]
_CLUSTER = [
    Column("NAME", lambda c: c["name"]),
    Column("PHASE", lambda c: c["status"]["phase"]),
    Column("MASTERS", lambda c: c["status"]["version"]),
    Column("NODES", lambda c: c["spec"]["nodeVersion"] or c["spec"]["version"]),
]
_PROPOSALS = [
    Column("NAME", lambda one: one["name"]),
    Column("PROJECT", lambda one: one["project"]),
    Column("MASTERS", lambda one: one["version"]),
    Column("NODES", lambda one: f"{one['nodes']} of {one['nodeVersion']}"),
    Column("TO", lambda one: one["asked"]),
    Column("OUTCOME", lambda one: one["outcome"]),
    Column("WHY", lambda one: one["why"]),
]


def versions(output: Output = Format.TABLE) -> None:
    """List the versions of Kubernetes that clusters may have, newest first.

    A deprecated one is offered until the next minor takes its place: upgrade its clusters before that.

    Examples:

        haneul cluster versions
    """
    with Contexts.default().client() as client:
        show(client.get("/kubernetes-versions")["items"], _VERSIONS, output)


def upgrade(
    name: Annotated[
        str | None, typer.Argument(help="Name of the cluster; without it, see --all and --project.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="The version to come to, of 'haneul cluster versions'.")] = None,
    nodes: Annotated[
        str | None, typer.Option(help="Let the nodes have this version: as the masters, or up to three minors older.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All clusters of all projects that you see.")] = False,
    project: Annotated[
        str | None, typer.Option("--project", "-p", help="Project of the cluster; without a name, all of its clusters.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Of many, go on after one that stops.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")] = True,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most, for each cluster.")] = 3600,
    output: Output = Format.TABLE,
) -> None:
    """Bring a cluster to another version of Kubernetes: masters first, then nodes one by one, emptied before.

    Masters never go back; nodes do with --nodes. Without --to and --nodes, the nodes come to the masters' version. What
    cannot be is refused before anything changes. An upgrade that stops says why, and goes on once that is mended.

    Examples:

        haneul cluster upgrade shop --to 1.37.2

        haneul cluster upgrade shop --nodes 1.36.5

        haneul cluster upgrade --all --to 1.37.2 --dry-run

        haneul cluster upgrade --project shop --to 1.37.2 --keep-going
    """
    if everything and (name is not None or project is not None):
        raise InvalidInputError("--all names every cluster already", hint="leave the name and --project out")
    if name is None and not everything and project is None:
        raise InvalidInputError("no cluster is named", hint="name one, or add --all, or --project for all of a project")
    if to is None and (name is None or dry_run):
        raise InvalidInputError("no version is named", hint="add --to; 'haneul cluster versions' lists them")
    if nodes is not None and (name is None or dry_run):
        raise InvalidInputError("--nodes is for one cluster, and not for --dry-run", hint="leave it out")
    contexts = Contexts.default()
    with contexts.client() as client:
        if name is not None and not dry_run:
            owner = contexts.project(project)
            cluster = _upgrade_one(
                client, owner, name, {"version": to, "nodeVersion": nodes}, wait=wait, timeout=timeout
            )
            show([cluster], _CLUSTER, output, single=True)
            return
        owners = [one["name"] for one in client.get("/projects")] if everything else [contexts.project(project)]
        proposals = [one for owner in owners for one in client.get(f"/projects/{owner}/upgrades", to=to)["items"]]
        if name is not None:
            proposals = [one for one in proposals if one["name"] == name]
        if not dry_run:
            _upgrade_many(client, proposals, wait=wait, timeout=timeout, keep_going=keep_going)
    show(proposals, _PROPOSALS, output)
    missing = [one for one in proposals if one["outcome"] not in ("current", "done", "asked")]
    if missing and not dry_run:
        raise UpgradeStoppedError(
            f"{len(missing)} of {len(proposals)} clusters are not upgraded",
            hint="the table says why; the same command goes on with them",
        )


def _upgrade_one(
    client: ApiClient, project: str, name: str, body: dict[str, Any], *, wait: bool, timeout: float
) -> dict[str, Any]:
    path = f"/projects/{project}/clusters/{name}"
    cluster: dict[str, Any] = client.post(f"{path}/upgrade", body)
    if not wait:
        return cluster
    # A stop that is seen shall be one of after this was asked.
    client.post(f"{path}/look", {})
    return wait_ready(
        client,
        project,
        name,
        timeout=timeout,
        what="upgraded",
        stage=f"upgrade cluster {name}",
        seen=_refuse_if_stopped,
    )


def _refuse_if_stopped(cluster: dict[str, Any]) -> None:
    if not is_current(cluster):
        return
    for condition in cluster["status"]["conditions"]:
        if condition["reason"] in ("UpgradeStopped", "UpgradeRefused"):
            raise UpgradeStoppedError(
                condition["message"],
                hint=f"mend that, and it goes on by itself; 'haneul cluster get {cluster['name']} --wait' waits for it",
            )


def _upgrade_many(
    client: ApiClient, proposals: list[dict[str, Any]], *, wait: bool, timeout: float, keep_going: bool
) -> None:
    """Upgrade what can be, one after the other, and write down what came of each."""
    wanted = [one for one in proposals if one["outcome"] in ("upgrade", "under-way")]
    for number, one in enumerate(wanted, 1):
        say(f"{number} of {len(wanted)}: {one['name']} of {one['project']}")
        try:
            _upgrade_one(client, one["project"], one["name"], {"version": one["asked"]}, wait=wait, timeout=timeout)
        except HaneulError as error:
            one.update(outcome="stopped", why=error.detail)
            if not keep_going:
                break
        else:
            one.update(outcome="done" if wait else "asked", why="")
    for one in wanted:
        if one["outcome"] == "upgrade":
            one.update(outcome="not-begun", why="one before it stopped")
