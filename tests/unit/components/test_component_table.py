"""The table agrees with the Go modules, with the folders of images, and with itself."""

import re
from pathlib import Path

import pytest

from haneul.components.table import (
    COMPONENTS,
    IMAGES,
    KUBERNETES,
    KUBERNETES_BEFORE,
    PYTHON_COMPONENTS,
    GoComponent,
    Image,
    PythonComponent,
    component_of,
    file_name,
    image,
    image_reference,
    variants,
)
from haneul.dkos.releases import RELEASES

PROJECT = Path(__file__).parents[3]
SOURCES = PROJECT / "components"


def required_version(component: GoComponent) -> str:
    """Return the version without its "v" at which the component's go.mod requires its upstream module."""
    lines = (SOURCES / component.name / "go.mod").read_text().splitlines()
    wanted = re.compile(rf"(?:require\s+|\s+){re.escape(component.module)} v(\S+)")
    return next(match[1] for line in lines if (match := wanted.match(line)))


@pytest.mark.parametrize("component", [row for row in COMPONENTS if row.module], ids=lambda row: row.name)
def test_versions_are_those_of_go_mod(component: GoComponent) -> None:
    assert required_version(component) == component.version


@pytest.mark.parametrize("component", [row for row in COMPONENTS if row.module], ids=lambda row: row.name)
def test_every_byte_of_the_upstream_module_is_pinned(component: GoComponent) -> None:
    sums = (SOURCES / component.name / "go.sum").read_text()
    assert f"{component.module} v{component.version} h1:" in sums


def test_versions_told_to_the_linker_are_the_components_own() -> None:
    for component in COMPONENTS:
        for flag in component.ldflags:
            name, _, value = flag.removeprefix("-X ").partition("=")
            if name.lower().endswith("version"):
                assert value.removeprefix("v") == component.version


def test_every_module_has_a_row_and_every_image_a_containerfile() -> None:
    assert {path.parent.name for path in SOURCES.glob("*/go.mod")} == {row.name for row in COMPONENTS}
    assert {path.parent.name for path in SOURCES.glob("images/*/Containerfile")} == {row.repository for row in IMAGES}


def test_names_are_unique() -> None:
    programs = [f"{component.name}/{program.name}" for component in COMPONENTS for program in component.programs]
    tags = [image_reference(row.name) for row in IMAGES]
    for names in (programs, [row.name for row in COMPONENTS], [row.name for row in IMAGES], tags):
        assert len(set(names)) == len(names)


def test_programs_of_one_name_are_the_management_cluster_s_unless_their_component_is_named() -> None:
    assert component_of("kubelet").version == KUBERNETES
    assert component_of("kubernetes-1.36/kubelet").version == KUBERNETES_BEFORE
    with pytest.raises(KeyError):
        component_of("kubernetes-1.36/kubeadm")


def test_each_offered_version_has_all_images_of_a_cluster_made_of_its_own_programs() -> None:
    assert [row.version for row in RELEASES] == [KUBERNETES, KUBERNETES_BEFORE]
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "node"):
        assert [row.version for row in variants(name)] == [KUBERNETES, KUBERNETES_BEFORE]
        for row in variants(name):
            own = [component_of(program) for program in row.programs if file_name(program).startswith("kube")]
            # A kubectl works with the minor before its own.
            versions = {
                component.version for component, program in zip(own, _kube(row), strict=True) if program != "kubectl"
            }
            assert versions == {row.version}


def _kube(row: Image) -> list[str]:
    return [name for program in row.programs if (name := file_name(program)).startswith("kube")]


def test_minors_differ_in_nothing_but_the_programs_of_kubernetes() -> None:
    newer, older = variants("node")
    assert (newer.packages, newer.images) == (older.packages, older.images)
    assert [file_name(program) for program in newer.programs] == [file_name(program) for program in older.programs]
    assert [one for one in older.programs if one not in newer.programs] == [
        "kubernetes-1.36/kubelet",
        "kubernetes-1.36/kube-proxy",
    ]


@pytest.mark.parametrize("row", IMAGES, ids=lambda row: row.name)
def test_images_are_made_of_known_programs_and_earlier_images(row: Image) -> None:
    earlier = [candidate.name for candidate in IMAGES[: IMAGES.index(row)]]
    assert set(row.images) <= set(earlier)
    assert all(component_of(program) in COMPONENTS for program in row.programs)


def test_unknown_names_are_errors() -> None:
    with pytest.raises(KeyError):
        component_of("no-such-program")
    with pytest.raises(KeyError):
        image("no-such-image")


def test_references_name_no_registry_of_the_internet() -> None:
    assert image_reference("kube-apiserver") == f"haneul.local/kube-apiserver:v{image('kube-apiserver').version}"


def test_containerfiles_start_from_nothing() -> None:
    for path in SOURCES.glob("images/*/Containerfile"):
        bases = [line.split()[1] for line in path.read_text().splitlines() if line.startswith("FROM ")]
        assert bases == ["scratch"], path


@pytest.mark.parametrize("component", PYTHON_COMPONENTS, ids=lambda row: row.name)
def test_versions_are_those_of_the_lock_and_every_byte_is_pinned(component: PythonComponent) -> None:
    lock = (SOURCES / component.name / "requirements.lock").read_text()
    assert f"\n{component.package}=={component.version} \\\n    --hash=sha256:" in lock
    packages = [line for line in lock.splitlines() if "==" in line and not line.startswith((" ", "#"))]
    assert all(line.endswith("\\") for line in packages)
    assert f"{component.package}=={component.version}" in (SOURCES / component.name / "requirements.in").read_text()
    for program in component.programs:
        assert (SOURCES / component.name / program).is_file()
