"""``haneul base-image``: build what people's images begin with, and push it to the hub that one is signed in to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from haneul.cli.output import Column, Format, say, show
from haneul.kernel.errors import NotFoundError

if TYPE_CHECKING:
    from haneul.cli.hub import HubClient
    from haneul.components.base_images.builder import BaseImageBuilder, Built
    from haneul.components.base_images.table import BaseImage

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Which; without a name, all of them.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]
Update = Annotated[bool, typer.Option("--update", help="First ask the package sources what is new (apt-get update).")]

base_image_app = typer.Typer(
    help="Base images, built on this machine from Debian packages: list, build, push.", no_args_is_help=True
)


@base_image_app.command("list")
def list_base_images(names: Names = None, output: Output = Format.TABLE) -> None:
    """List base images, and whether they are built from the packages that there are now.

    Examples:

        haneul base-image list

        haneul base-image list python -o wide
    """
    _show(asyncio.run(_listed(_rows(names))), output)


@base_image_app.command()
def build(names: Names = None, update: Update = False, output: Output = Format.TABLE) -> None:
    """Build base images whose packages have changed, or that were never built.

    Examples:

        haneul base-image build

        haneul base-image build python --update
    """
    _show([_told(made.row, made, len(packages)) for made, packages in _build(names, update)], output)


@base_image_app.command()
def push(
    names: Names = None,
    project: Annotated[str, typer.Option("--project", "-p", help="Project of the hub.")] = "base",
    update: Update = False,
) -> None:
    """Push base images with their bills of materials to the hub; those that are not built are built first.

    Each gets two tags: its version, which moves with updates, and one with date and key, which does not.

    Examples:

        haneul base-image push --update

        haneul base-image push debian python -p platform
    """
    from haneul.cli.hub import HubContexts  # noqa: PLC0415
    from haneul.cli.progress import TerminalProgress  # noqa: PLC0415
    from haneul.components.base_images.table import repository  # noqa: PLC0415

    with HubContexts.default().client() as client:
        client.check()
        for made, _ in _build(names, update):
            name = repository(made.row, project)
            with TerminalProgress().stage(f"push {name}"):
                _push(client, name, made)
            for tag in made.tags:
                print(f"{name}:{tag}")  # noqa: T201 - data goes to standard output
            say(f"{name}:{made.row.version} is {made.digest}")


def _push(client: HubClient, name: str, made: Built) -> None:
    """Push an image under its tags, then what refers to it."""
    layout = made.layout
    for position, descriptor in enumerate(layout.manifests()):
        manifest = layout.load(descriptor)
        for blob in (manifest["config"], *manifest["layers"]):
            client.push_blob(name, blob["digest"], layout.path(blob))
        content = layout.path(descriptor).read_bytes()
        for reference in made.tags if position == 0 else (descriptor["digest"],):
            client.push_manifest(name, reference, content, descriptor["mediaType"])


def _builder() -> BaseImageBuilder:
    from haneul.app.installation import component_store  # noqa: PLC0415

    return component_store().base_images


def _rows(names: list[str] | None) -> list[BaseImage]:
    """Return the named rows, or all. Raises NotFoundError."""
    from haneul.components.base_images.table import BASE_IMAGES  # noqa: PLC0415

    known = {row.name: row for row in BASE_IMAGES}
    for name in names or []:
        if name not in known:
            raise NotFoundError(f"there is no base image {name!r}", hint="'haneul base-image list' shows their names")
    return [known[name] for name in names or known]


async def _listed(rows: list[BaseImage]) -> list[dict[str, Any]]:
    from haneul.cli.progress import TerminalProgress  # noqa: PLC0415

    builder, told = _builder(), []
    with TerminalProgress().stage("packages") as stage:
        for row in rows:
            stage.note(row.name)
            plan = await builder.plan(row)
            told.append(_told(row, builder.built(plan), len(plan.packages)))
    return told


def _build(names: list[str] | None, update: bool) -> list[tuple[Built, tuple[Any, ...]]]:
    from haneul.cli.progress import TerminalProgress  # noqa: PLC0415

    rows, builder, progress = _rows(names), _builder(), TerminalProgress()

    async def all_of_them() -> list[tuple[Built, tuple[Any, ...]]]:
        if update:
            with progress.stage("package lists"):
                await builder.refresh()
        done = []
        for row in rows:
            made = await builder.build(row, progress)
            done.append((made, (await builder.plan(row)).packages))
        return done

    return asyncio.run(all_of_them())


def _told(row: BaseImage, made: Built | None, packages: int) -> dict[str, Any]:
    return {
        "name": row.name,
        "tag": row.version,
        "packages": packages,
        "built": made is not None,
        "bytes": made.size if made else None,
        "version": made.version if made else None,
        "fixedTag": made.tags[1] if made else None,
        "digest": made.digest if made else None,
    }


def _show(rows: list[dict[str, Any]], output: Format) -> None:
    columns = [
        Column("NAME", lambda row: row["name"]),
        Column("TAG", lambda row: row["tag"]),
        Column("PACKAGES", lambda row: str(row["packages"])),
        Column("BUILT", lambda row: "yes" if row["built"] else "no"),
        Column("BYTES", lambda row: str(row["bytes"] or "-")),
        Column("VERSION", lambda row: row["version"] or "-"),
        Column("FIXED TAG", lambda row: row["fixedTag"] or "-", wide=True),
        Column("DIGEST", lambda row: row["digest"] or "-", wide=True),
    ]
    show(rows, columns, output)
