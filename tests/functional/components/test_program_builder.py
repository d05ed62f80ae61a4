"""The builder with the real go tool and a module of three lines."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from haneul.components.paths import CacheLayout
from haneul.components.programs import ProgramBuilder
from haneul.components.table import GoComponent, Program
from haneul.kernel.errors import CommandFailedError, HostNotReadyError
from haneul.kernel.process import run
from haneul.kernel.progress import SilentProgress, Stage

GREETER = GoComponent(
    "greeter",
    "1.0.0",
    "",
    "Apache-2.0",
    (Program("greet", "."), Program("greet-loudly", ".", ("loud",))),
    estimate=1,
    ldflags=("-X main.name=world",),
)
MAIN = """package main

var name string

func main() { println(greeting, name) }
"""


class CountingProgress(SilentProgress):
    """Remembers the titles of stages: one for each build that really happened."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    @contextmanager
    def stage(self, title: str, *, expected_seconds: float | None = None) -> Iterator[Stage]:
        self.titles.append(title)
        with super().stage(title, expected_seconds=expected_seconds) as stage:
            yield stage


@pytest.fixture
def module(tmp_path: Path) -> Path:
    folder = tmp_path / "components" / "greeter"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module haneul.dev/components/greeter\n\ngo 1.26.0\n")
    (folder / "main.go").write_text(MAIN)
    (folder / "quiet.go").write_text('//go:build !loud\n\npackage main\n\nconst greeting = "hello"\n')
    (folder / "loud.go").write_text('//go:build loud\n\npackage main\n\nconst greeting = "HELLO"\n')
    return folder


@pytest.fixture
def builder(tmp_path: Path, module: Path) -> ProgramBuilder:
    return ProgramBuilder(layout=CacheLayout(tmp_path / "cache"), sources=module.parent)


async def said(program: Path) -> str:
    return (await run([str(program)], timeout=60)).stderr.strip()


async def test_builds_once_with_tags_and_linker_flags(builder: ProgramBuilder) -> None:
    progress = CountingProgress()
    await builder.build(GREETER, progress)
    folder = builder.folder(GREETER)
    assert builder.is_built(GREETER)
    assert await said(folder / "greet") == "hello world"
    assert await said(folder / "greet-loudly") == "HELLO world"

    before = (folder / "greet").stat().st_mtime_ns
    await builder.build(GREETER, progress)
    assert progress.titles == ["build greeter 1.0.0"]
    assert (folder / "greet").stat().st_mtime_ns == before


def test_the_place_follows_from_sources_and_recipe(builder: ProgramBuilder, module: Path) -> None:
    before = builder.folder(GREETER)
    (module / "main.go").write_text(MAIN.replace("greeting, name", "name, greeting"))
    after_source = builder.folder(GREETER)
    other_recipe = GoComponent(GREETER.name, "1.0.1", "", GREETER.licence, GREETER.programs, estimate=1)
    assert len({before, after_source, builder.folder(other_recipe)}) == 3


async def test_a_half_built_folder_does_not_count_and_is_replaced(builder: ProgramBuilder) -> None:
    folder = builder.folder(GREETER)
    folder.mkdir(parents=True)
    (folder / "greet").write_text("left by a build that was killed")
    leftover = folder.with_name(f"{folder.name}.unfinished")
    leftover.mkdir()
    (leftover / "debris").touch()
    assert not builder.is_built(GREETER)

    await builder.build(GREETER, SilentProgress())
    assert await said(folder / "greet") == "hello world"
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]
    assert sorted(path.name for path in folder.iterdir()) == ["greet", "greet-loudly"]


async def test_a_failed_build_says_why_and_leaves_nothing_that_counts(builder: ProgramBuilder, module: Path) -> None:
    (module / "main.go").write_text(MAIN.replace("println", "printline"))
    with pytest.raises(CommandFailedError, match="printline"):
        await builder.build(GREETER, SilentProgress())
    assert not builder.is_built(GREETER)
    assert not builder.folder(GREETER).exists()


def test_a_known_program_that_is_not_built_is_an_error(tmp_path: Path) -> None:
    sources = Path(__file__).parents[3] / "components"
    builder = ProgramBuilder(layout=CacheLayout(tmp_path / "cache"), sources=sources)
    with pytest.raises(HostNotReadyError):
        builder.program("pause")
