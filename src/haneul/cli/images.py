"""``haneul image``: what a hub has, and what shall go or come back."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from haneul.cli.hub import CATALOG, MAINTENANCE, HubClient, HubContext, HubContexts, parse_hub_url, parse_image
from haneul.cli.input import read_secret_file
from haneul.cli.output import Column, Format, age, in_utc, say, show
from haneul.cli.spans import parse_span
from haneul.kernel.errors import InvalidInputError, NotFoundError

Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]
Repository = Annotated[str, typer.Argument(help="Name of the repository, without the hub's host.")]
Image = Annotated[str, typer.Argument(help="REPOSITORY:TAG or REPOSITORY@DIGEST.")]
Project = Annotated[str, typer.Option("--project", "-p", help="Only this project.")]


class State(StrEnum):
    """What became of a delivery."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


image_app = typer.Typer(help="Images of a hub: what there is, what goes, what comes back.", no_args_is_help=True)


@image_app.command()
def login(
    url: Annotated[str, typer.Argument(help="Where the hub is, such as https://hub.example.com:5443.")],
    user: Annotated[str, typer.Option(help="Your name there; without it you come as anybody.")] = "",
    secret_file: Annotated[Path | None, typer.Option(help="File whose text is your secret.")] = None,
    ca: Annotated[Path | None, typer.Option(help="File with the certificate of the hub's authority.")] = None,
) -> None:
    """Sign in to a hub; the commands of this group talk to it from then on.

    Examples:

        haneul image login https://localhost:5443 --user alice --secret-file ./secret --ca ./hub/tls/ca.crt
    """
    if bool(user) != (secret_file is not None):
        raise InvalidInputError("a user and a secret belong together", hint="give --user and --secret-file, or neither")
    secret = read_secret_file(secret_file) if secret_file else ""
    context = HubContext(parse_hub_url(url), user, ca.absolute() if ca else None)
    with HubClient(context, secret) as client:
        client.check()
    HubContexts.default().sign_in(context, secret)
    say(f"Signed in to {context.url}{f' as {user}' if user else ''}.")


@image_app.command()
def logout() -> None:
    """Forget the hub and the secret.

    Examples:

        haneul image logout
    """
    HubContexts.default().sign_out()


@image_app.command("list")
def list_repositories(project: Project = "", output: Output = Format.TABLE) -> None:
    """List repositories.

    Examples:

        haneul image list -p shop
    """
    query = {"project": project} if project else {}
    with HubContexts.default().client() as client:
        rows = client.list("repositories", scope=CATALOG, **query)
    columns = [
        Column("REPOSITORY", lambda row: row["name"]),
        Column("TAGS", lambda row: str(row["tags"])),
        Column("MANIFESTS", lambda row: str(row["manifests"])),
        Column("PUSHED", lambda row: f"{age(row['updated'])} ago" if row["updated"] else "-"),
    ]
    show(rows, columns, output)


@image_app.command()
def tags(repository: Repository, output: Output = Format.TABLE) -> None:
    """List the tags of a repository.

    Examples:

        haneul image tags shop/web

        haneul image tags shop/web -o wide
    """
    with HubContexts.default().client() as client:
        rows = client.list("tags", scope=_scope(repository, "pull"), repository=repository)
    show(rows, _TAG_COLUMNS, output)


@image_app.command("show")
def show_image(image: Image, output: Output = Format.TABLE) -> None:
    """Show an image: its manifest's parts, its other tags, what refers to it, and where it runs.

    Examples:

        haneul image show shop/web:v1

        haneul image show shop/web:v1 -o json
    """
    repository, reference = parse_image(image)
    with HubContexts.default().client() as client:
        found = client.get("image", scope=_scope(repository, "pull"), repository=repository, reference=reference)
    if output not in (Format.TABLE, Format.WIDE, Format.CSV):
        show([found], [Column("DIGEST", lambda row: row["digest"])], output, single=True)
        return
    columns = [
        Column("PART", lambda row: row["part"]),
        Column("DIGEST", lambda row: row["digest"]),
        Column("BYTES", lambda row: str(row["bytes"])),
        Column("WHAT", lambda row: row["what"]),
    ]
    show(list(_parts(found)), columns, output)


@image_app.command()
def history(image: Image, output: Output = Format.TABLE) -> None:
    """Show what a mirrored tag named at the registry that it comes from, the latest first.

    Examples:

        haneul image history example/library/web:v1
    """
    repository, tag = parse_image(image)
    with HubContexts.default().client() as client:
        rows = client.list("history", scope=_scope(repository, "pull"), repository=repository, tag=tag)
    columns = [
        Column("DIGEST", lambda row: row["digest"] or "(not there)"),
        Column("SINCE (UTC)", lambda row: in_utc(row["since"])),
        Column("AGE", lambda row: age(row["since"])),
    ]
    show(rows, columns, output)


@image_app.command()
def delete(
    image: Image,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Though clusters run it; for the hub's administrators.")
    ] = False,
) -> None:
    """Delete a tag, or by its digest a manifest with all tags that name it. For some days it can be brought back.

    What a cluster runs is not deleted; 'haneul image show' says where it does.

    Examples:

        haneul image delete shop/web:v1 --yes
    """
    repository, reference = parse_image(image)
    if not yes:
        raise InvalidInputError(f"{image} would be deleted", hint="add --yes")
    with HubContexts.default().client() as client:
        client.delete_manifest(repository, reference, force=force)
    say(f"{image} is deleted. 'haneul image deleted {repository}' shows until when it can be brought back.")


@image_app.command()
def deleted(repository: Repository, output: Output = Format.TABLE) -> None:
    """List what can be brought back.

    Examples:

        haneul image deleted shop/web
    """
    with HubContexts.default().client() as client:
        rows = client.list("deletions", scope=_scope(repository, "delete"), repository=repository)
    columns = [
        Column("TAG", lambda row: row["tag"] or "-"),
        Column("DIGEST", lambda row: row["digest"]),
        Column("DELETED", lambda row: f"{age(row['deleted'])} ago"),
        Column("BY", lambda row: row["by"]),
        Column("UNTIL (UTC)", lambda row: in_utc(row["until"])),
    ]
    show(rows, columns, output)


@image_app.command()
def undelete(image: Image) -> None:
    """Bring back a tag, or by its digest a manifest and the tags that were deleted with it.

    Examples:

        haneul image undelete shop/web:v1
    """
    repository, reference = parse_image(image)
    body = {"repository": repository, "reference": reference}
    with HubContexts.default().client() as client:
        found = client.post("undelete", body, scope=_scope(repository, "delete"))
    say(f"{image} is back: {found['digest']}")


@image_app.command()
def usage(project: Project = "", output: Output = Format.TABLE) -> None:
    """Show what projects keep. A blob that several repositories of a project have counts once.

    Where a project has a quota, USED is what counts against it: manifests too, and what can still be brought back.

    Examples:

        haneul image usage
    """
    query = {"project": project} if project else {}
    with HubContexts.default().client() as client:
        rows = client.list("usage", scope=CATALOG, **query)
    columns = [
        Column("PROJECT", lambda row: row["project"]),
        Column("REPOSITORIES", lambda row: str(row["repositories"])),
        Column("TAGS", lambda row: str(row["tags"])),
        Column("MANIFESTS", lambda row: str(row["manifests"])),
        Column("BLOBS", lambda row: str(row["blobs"])),
        Column("BYTES", lambda row: str(row["bytes"])),
        Column("USED", lambda row: "-" if row["quotaUsed"] is None else str(row["quotaUsed"])),
        Column("QUOTA", lambda row: "-" if row["quotaBytes"] is None else str(row["quotaBytes"])),
    ]
    show(rows, columns, output)


@image_app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Collect now what nobody needs any more; the hub does so by itself every hour. Administrators only.

    Examples:

        haneul image gc --dry-run
    """
    from haneul.cli.progress import TerminalProgress  # noqa: PLC0415

    with HubContexts.default().client() as client, TerminalProgress().stage("collection"):
        done = client.post("collections", {"dryRun": dry_run}, scope=MAINTENANCE)
    names = ("manifests", "links", "blobs", "bytes", "strays", "uploads")
    columns = [Column(name.upper(), partial(_field, name)) for name in names]
    show([done], columns, output, single=True)


@image_app.command()
def retention(
    repository: Annotated[str, typer.Argument(help="Name of the repository, without the hub's host.")] = "",
    project: Annotated[str, typer.Option("--project", "-p", help="All repositories of this project instead.")] = "",
    apply: Annotated[bool, typer.Option("--apply", help="Delete them.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show which tags the rules of a project let go in a repository, or in all that it has, and delete them if asked.

    Examples:

        haneul image retention shop/web

        haneul image retention -p shop

        haneul image retention shop/web --apply
    """
    from haneul.cli.progress import TerminalProgress  # noqa: PLC0415

    if bool(repository) == bool(project):
        raise InvalidInputError("retention is for a repository or for a project", hint="name one of them")
    gone: list[dict[str, Any]] = []
    kept: list[str] = []
    with HubContexts.default().client() as client, TerminalProgress().stage("retention"):
        names = [repository] if repository else _repositories_of(client, project)
        for name in names:
            body = {"repository": name, "dryRun": not apply}
            done = client.post("retention", body, scope=_scope(name, "pull,delete"))
            gone += [{**tag, "repository": name} for tag in done["items"]]
            kept += [f"{name}:{tag['name']}" for tag in done.get("inUse", [])]
    show(gone, [Column("REPOSITORY", lambda row: row["repository"]), *_TAG_COLUMNS], output)
    if kept:
        say(f"Clusters run what these name, so they stay: {', '.join(kept)}.")
    count = len(gone)
    tags_ = "1 tag" if count == 1 else f"{count} tags"
    say(f"{tags_} deleted." if apply else f"{tags_} would go{'; add --apply to delete' if count else ''}.")


@image_app.command()
def clusters(output: Output = Format.TABLE) -> None:
    """List the clusters that reported which images they run. Administrators only.

    Examples:

        haneul image clusters
    """
    with HubContexts.default().client() as client:
        rows = client.list("inventory", scope=MAINTENANCE)
    columns = [
        Column("CLUSTER", lambda row: row["cluster"]),
        Column("RUNNING", lambda row: str(row["entries"])),
        Column("REPORTED", lambda row: f"{age(row['reported'])} ago"),
        Column("BY", lambda row: row["reporter"]),
    ]
    show(rows, columns, output)


@image_app.command("forget-cluster")
def forget_cluster(
    cluster: Annotated[str, typer.Argument(help="PROJECT/NAME.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
) -> None:
    """Let what a cluster reported hold no image any more: it is gone, or reports no more. Administrators only.

    Examples:

        haneul image forget-cluster shop/old --yes
    """
    if not yes:
        raise InvalidInputError(f"images that run in {cluster} alone could be deleted then", hint="add --yes")
    with HubContexts.default().client() as client:
        client.delete(f"inventory/{quote(cluster)}", scope=MAINTENANCE)
    say(f"{cluster} is forgotten; if it reports again it counts again.")


@image_app.command()
def audit(
    project: Annotated[str, typer.Argument(help="The project: the first part of its repositories' names.")],
    since: Annotated[str, typer.Option(help="How far back, such as 90m, 24h, 7d; empty for everything.")] = "24h",
    output: Output = Format.TABLE,
) -> None:
    """Show who pushed, deleted, brought back and pulled what in a project, the latest first. Its owners only.

    Examples:

        haneul image audit shop --since 1h

        haneul image audit shop --since 7d -o csv
    """
    query = {"since": (datetime.now(UTC) - parse_span(since)).isoformat()} if since else {}
    with HubContexts.default().client() as client:
        rows = client.list("audit", scope=_scope(project, "delete"), project=project, **query)
    columns = [
        Column("AT (UTC)", lambda row: in_utc(row["at"])),
        Column("ACTION", lambda row: row["action"]),
        Column("IMAGE", lambda row: row["repository"] + (f":{row['tag']}" if row["tag"] else "")),
        Column("BY", lambda row: row["account"] or "(anybody)"),
        Column("FROM", lambda row: row["address"] or "-"),
        Column("RESULT", lambda row: row["result"]),
        Column("STANDS FOR", lambda row: str(row["weight"]), wide=True),
        Column("DIGEST", lambda row: row["digest"], wide=True),
    ]
    show(rows, columns, output)


@image_app.command()
def deliveries(
    project: Annotated[str, typer.Argument(help="The project: the first part of its repositories' names.")],
    state: Annotated[State | None, typer.Option(help="Only these: waiting, delivered or failed.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show what receivers were told of a project, the latest first. Its owners only.

    Examples:

        haneul image deliveries shop --state failed
    """
    query = {"state": str(state)} if state else {}
    with HubContexts.default().client() as client:
        rows = client.list("deliveries", scope=_scope(project, "delete"), project=project, **query)
    firsts = _firsts(rows)
    columns = [
        Column("ID", lambda row: row["id"]),
        Column("REPOSITORY", lambda row: row["repository"]),
        Column("RECEIVER", lambda row: row["receiver"]),
        Column("STATE", lambda row: row["state"]),
        Column("ATTEMPTS", lambda row: str(row["attempts"])),
        Column("ANSWER", lambda row: row["answer"] or "-"),
        Column("AGE", lambda row: age(row["created"])),
        Column("NEXT (UTC)", partial(_next, firsts)),
        Column("EVENT", lambda row: row["event"], wide=True),
    ]
    show(rows, columns, output)


@image_app.command()
def redeliver(
    project: Annotated[str, typer.Argument(help="The project: the first part of its repositories' names.")],
    number: Annotated[int, typer.Argument(metavar="ID", min=1, help="Which failed delivery.")],
) -> None:
    """Have a failed delivery made again, from its first attempt on. The project's owners only.

    One that waits is not failed: it is tried by itself, at the time that 'haneul image deliveries' shows.

    Examples:

        haneul image redeliver shop 17
    """
    path = f"deliveries/{number}/redeliver?project={quote(project, safe='')}"
    with HubContexts.default().client() as client:
        client.post(path, {}, scope=_scope(project, "delete"))
    say(f"Delivery {number} is made again.")


_TAG_COLUMNS = [
    Column("TAG", lambda row: row["name"]),
    Column("DIGEST", lambda row: row["digest"]),
    Column("BYTES", lambda row: str(row["bytes"])),
    Column("SET", lambda row: f"{age(row['updated'])} ago"),
    Column("IMMUTABLE", lambda row: "yes" if row["immutable"] else "no"),
    Column("TYPE", lambda row: row["mediaType"], wide=True),
]


def _repositories_of(client: HubClient, project: str) -> list[str]:
    """Return a project's repositories that have tags. Raises NotFoundError if it has none at all."""
    rows = client.list("repositories", scope=CATALOG, project=project)
    if not rows:
        raise NotFoundError(f"{project} has no repositories here", hint="'haneul image list' shows which there are")
    return [row["name"] for row in rows if row["tags"]]


def _field(name: str, row: dict[str, Any]) -> str:
    return str(row[name])


def _firsts(rows: list[dict[str, Any]]) -> dict[tuple[str, str], int]:
    """Return the first that waits of each receiver and repository: those behind it wait for it."""
    firsts: dict[tuple[str, str], int] = {}
    for row in rows:
        if row["state"] == State.WAITING:
            key = (row["receiver"], row["repository"])
            firsts[key] = min(firsts.get(key, int(row["id"])), int(row["id"]))
    return firsts


def _next(firsts: dict[tuple[str, str], int], row: dict[str, Any]) -> str:
    """Return when a delivery is tried, or which it waits for."""
    if row["state"] != State.WAITING:
        return "-"
    first = firsts[row["receiver"], row["repository"]]
    return in_utc(row["due"]) if int(row["id"]) == first else f"after {first}"


def _scope(repository: str, actions: str) -> str:
    return f"repository:{repository}:{actions}"


def _parts(found: dict[str, Any]) -> Any:
    manifest = found["manifest"]
    yield _row("manifest", found, f"{found['mediaType']}, tags: {' '.join(found['tags']) or '-'}")
    if "config" in manifest:
        yield _row("config", manifest["config"], manifest["config"]["mediaType"])
    for layer in manifest.get("layers", []):
        yield _row("layer", layer, layer["mediaType"])
    for entry in manifest.get("manifests", []):
        platform = entry.get("platform", {})
        words = "/".join(str(platform[key]) for key in ("os", "architecture", "variant") if key in platform)
        yield _row("image", entry, words or entry["mediaType"])
    for entry in found["referrers"]:
        yield _row("referrer", entry, entry["artifactType"])
    for use in found.get("usedBy", []):
        where = f"{use['cluster']}, namespace {use['namespace']}, {use['workload']} ({age(use['reported'])} ago)"
        yield _row("running", {"digest": use["digest"], "size": "-"}, where)
    if elsewhere := found.get("usedElsewhere"):
        yield _row(
            "running", {"digest": found["digest"], "size": "-"}, f"{elsewhere} times in other projects' clusters"
        )


def _row(part: str, entry: dict[str, Any], what: str) -> dict[str, Any]:
    return {"part": part, "digest": entry["digest"], "bytes": entry["size"], "what": what}
