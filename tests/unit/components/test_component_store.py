"""What the store builds for a name, and what it says about things that are not built."""

from dataclasses import replace
from pathlib import Path

import pytest

from haneul.components.store import ComponentStore, select
from haneul.components.table import (
    COMPONENTS,
    IMAGES,
    PYTHON_COMPONENTS,
    component_of,
    image,
    image_reference,
    python_component,
)
from haneul.kernel.errors import HostNotReadyError, NotFoundError
from haneul.kernel.progress import SilentProgress

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def store(tmp_path: Path) -> ComponentStore:
    return ComponentStore(cache=tmp_path / "cache", project=PROJECT)


def test_an_image_brings_its_programs_and_carried_images() -> None:
    components, images = select(["node"])
    assert images == {"node", "pause", "toolbox", "agnhost"}
    assert components == {"containerd", "runc", "kubernetes", "flannel", "cni-plugins", "cilium", "pause"}


def test_an_image_of_the_older_minor_brings_both_components() -> None:
    components, images = select(["node-1.36"])
    assert images == {"node-1.36", "pause", "toolbox", "agnhost"}
    assert {"kubernetes", "kubernetes-1.36", "containerd"} <= components
    assert select(["kube-scheduler-1.36"]) == ({"kubernetes-1.36"}, {"kube-scheduler-1.36"})


def test_a_component_brings_nothing_else() -> None:
    assert select(["runc"]) == ({"runc"}, set())


async def test_an_unknown_name_is_refused_before_anything_is_made(store: ComponentStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="'kubernetse'"):
        await store.build(["etcd", "kubernetse"], SilentProgress())
    assert not (tmp_path / "cache").exists()


def test_in_an_empty_cache_everything_that_the_platform_needs_is_missing_in_build_order(store: ComponentStore) -> None:
    assert store.missing() == [*(row for row in COMPONENTS if not row.on_demand), *IMAGES]


def test_what_only_benchmarks_and_tests_need_is_built_when_it_is_named_and_is_in_no_image() -> None:
    on_demand = {row.name for row in COMPONENTS if row.on_demand}
    assert on_demand == {"coredns", "crane", "distribution", "gateway-api", "helm", "oras", "pebble", "regctl"}
    assert select(["distribution", "oras"]) == ({"distribution", "oras"}, set())
    assert not on_demand & {component_of(program).name for row in IMAGES for program in row.programs}


def test_when_a_component_is_built_is_no_part_of_its_key(store: ComponentStore) -> None:
    row = next(row for row in COMPONENTS if row.on_demand)
    assert store.programs.folder(row) == store.programs.folder(replace(row, on_demand=False))


def test_what_is_not_built_is_said_with_the_command_that_builds_it(store: ComponentStore) -> None:
    with pytest.raises(HostNotReadyError, match="kubelet is not built") as program:
        store.program("kubelet")
    assert "haneul components build kubernetes" in program.value.hint
    with pytest.raises(HostNotReadyError, match="image node is not built"):
        store.image_archive("node")


def test_an_archive_in_its_place_is_a_built_image(store: ComponentStore) -> None:
    archive = store.images.archive(image("toolbox"))
    archive.parent.mkdir(parents=True)
    archive.touch()
    assert store.image_archive("toolbox") == archive
    assert store.image_reference("toolbox") == image_reference("toolbox")
    assert image("toolbox") not in store.missing()


def test_a_python_component_is_built_when_it_is_named(store: ComponentStore) -> None:
    assert {row.name for row in PYTHON_COMPONENTS if row.on_demand} == {"swift"}
    assert not {row for row in PYTHON_COMPONENTS if row.on_demand} & set(store.missing())
    assert select(["swift"]) == ({"swift"}, set())
    with pytest.raises(HostNotReadyError, match="swift is not built") as refused:
        store.python_command("swift", "swift_run.py")
    assert "haneul components build swift" in refused.value.hint
    folder = store.environments.folder(python_component("swift"))
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    assert store.python_command("swift", "swift_run.py") == (str(folder / "bin/python"), str(folder / "swift_run.py"))
