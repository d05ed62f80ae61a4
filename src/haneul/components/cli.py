"""``haneul components``: what is pinned, what is built, and building it.

Talks to the store only; who makes the store and where progress is shown is the composition root's business.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from haneul.components.table import COMPONENTS, IMAGES, PYTHON_COMPONENTS, Image, component_of
from haneul.kernel.progress import Progress

if TYPE_CHECKING:
    from haneul.components.store import ComponentStore


class Output(StrEnum):
    """How the list is written to standard output."""

    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True)
class Row:
    """One line of the list. An image's licence names those of all that we build into it."""

    name: str
    version: str
    kind: str
    licence: str
    built: bool


def rows(store: ComponentStore) -> list[Row]:
    """Return all components, then all images, in the order in which they are built."""
    programs = [Row(row.name, row.version, "programs", row.licence, store.programs.is_built(row)) for row in COMPONENTS]
    python = [
        Row(row.name, row.version, "python", row.licence, store.environments.is_built(row)) for row in PYTHON_COMPONENTS
    ]
    images = [Row(row.name, row.version, "image", _licences(row), store.images.is_built(row)) for row in IMAGES]
    return [*programs, *python, *images]


def _licences(row: Image) -> str:
    licences = {component_of(program).licence for program in row.programs}
    if row.project:
        licences.add("Apache-2.0")
    # Each Debian package carries its licence at /usr/share/doc/<package>/copyright.
    debian = ["Debian's"] if row.packages or row.host_files else []
    return ", ".join([*sorted(licences), *debian])


def components_app(
    store_factory: Callable[[], ComponentStore], progress_factory: Callable[[], Progress]
) -> typer.Typer:
    """Return the command group. The factories are called when a command runs, not before."""
    app = typer.Typer(help="Upstream programs and images: list them, build them.", no_args_is_help=True)

    @app.command("list")
    def list_components(
        output: Annotated[Output, typer.Option("--output", "-o", help="Format of the list.")] = Output.TABLE,
    ) -> None:
        """List what is pinned, and whether it is built from exactly these sources.

        Example: haneul components list -o json
        """
        found = rows(store_factory())
        if output is Output.JSON:
            typer.echo(json.dumps([asdict(row) for row in found], indent=2))
        else:
            _print_table(found)

    @app.command("build")
    def build(
        names: Annotated[
            list[str] | None,
            typer.Argument(metavar="NAME", help="What to build; without a name, all that the platform needs."),
        ] = None,
    ) -> None:
        """Build components and images that are not built yet; an image's components come before it.

        Example: haneul components build etcd runc
        """
        asyncio.run(store_factory().build(names or [], progress_factory()))

    return app


def _print_table(found: list[Row]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("NAME", "VERSION", "KIND", "LICENCE", "BUILT"):
        table.add_column(title, no_wrap=True)
    for row in found:
        table.add_row(row.name, row.version, row.kind, row.licence, "yes" if row.built else "no")
    Console().print(table)
