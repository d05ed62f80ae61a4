"""``haneul components`` as a person types it."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from haneul.components.cli import components_app
from haneul.components.store import ComponentStore
from haneul.components.table import COMPONENTS, IMAGES, PYTHON_COMPONENTS, image
from haneul.kernel.errors import NotFoundError
from haneul.kernel.progress import SilentProgress

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def store(tmp_path: Path) -> ComponentStore:
    return ComponentStore(cache=tmp_path / "cache", project=PROJECT)


@pytest.fixture
def app(store: ComponentStore) -> typer.Typer:
    return components_app(lambda: store, SilentProgress)


def test_the_list_tells_what_is_built(app: typer.Typer, store: ComponentStore) -> None:
    toolbox = store.images.archive(image("toolbox"))
    toolbox.parent.mkdir(parents=True)
    toolbox.touch()
    result = CliRunner().invoke(app, ["list", "-o", "json"])
    rows = json.loads(result.stdout)
    assert [row["name"] for row in rows] == [
        *(row.name for row in COMPONENTS),
        *(row.name for row in PYTHON_COMPONENTS),
        *(row.name for row in IMAGES),
    ]
    assert [row["name"] for row in rows if row["built"]] == ["toolbox"]
    assert {row["kind"] for row in rows} == {"programs", "python", "image"}
    assert all(row["licence"] for row in rows)


def test_the_table_has_a_line_for_each_row(app: typer.Typer) -> None:
    lines = CliRunner().invoke(app, ["list"]).stdout.splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "KIND", "LICENCE", "BUILT"]
    assert len(lines) == 1 + len(COMPONENTS) + len(PYTHON_COMPONENTS) + len(IMAGES)


def test_an_unknown_format_is_a_usage_error(app: typer.Typer) -> None:
    assert CliRunner().invoke(app, ["list", "-o", "xml"]).exit_code == 2


def test_building_an_unknown_name_is_an_error_for_people(app: typer.Typer) -> None:
    assert isinstance(CliRunner().invoke(app, ["build", "no-such-thing"]).exception, NotFoundError)


def test_nothing_is_opened_before_a_command_runs(store: ComponentStore) -> None:
    def forbidden() -> ComponentStore:
        raise AssertionError("the store was made too early")

    assert CliRunner().invoke(components_app(forbidden, SilentProgress), ["--help"]).exit_code == 0
