"""When an image is built anew: exactly when something that goes into it changed."""

import shutil
from pathlib import Path

import pytest

from haneul.components.store import ComponentStore
from haneul.components.table import image

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of what images are made from."""
    copy = tmp_path / "project"
    shutil.copytree(PROJECT / "components", copy / "components")
    shutil.copytree(PROJECT / "src" / "haneul", copy / "src" / "haneul", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "requirements.lock", copy)
    return copy


def places(project: Path) -> dict[str, Path]:
    store = ComponentStore(cache=project.parent / "cache", project=project)
    return {name: store.images.archive(image(name)) for name in ("etcd", "pause", "node", "platform")}


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


@pytest.mark.parametrize(
    ("changed", "affected"),
    [
        ("components/images/etcd/Containerfile", {"etcd"}),
        # The platform replays backups with a program of etcd's module.
        ("components/etcd/go.sum", {"etcd", "platform"}),
        # The node image carries the pause image's archive.
        ("components/pause/main.go", {"pause", "node"}),
        ("components/images/pause/Containerfile", {"pause", "node"}),
        ("components/runc/go.mod", {"node"}),
        ("components/images/node/files/usr/local/lib/haneul/start-node", {"node"}),
        ("requirements.lock", {"platform"}),
        ("src/haneul/kernel/clock.py", {"platform"}),
    ],
)
def test_a_change_moves_the_images_that_it_goes_into(project: Path, changed: str, affected: set[str]) -> None:
    before = places(project)
    append(project / changed, "\n")
    after = places(project)
    assert {name for name in before if before[name] != after[name]} == affected


def test_a_copy_of_the_project_shares_the_cache(project: Path) -> None:
    original = ComponentStore(cache=project.parent / "cache", project=PROJECT)
    assert {name: original.images.archive(image(name)) for name in places(project)} == places(project)
