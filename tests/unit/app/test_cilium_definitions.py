"""Cilium's resource definitions, from upstream's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from haneul.app.operator import cilium_definitions
from haneul.dkos.tenant_objects import CILIUM_RESOURCES
from haneul.kernel.errors import HostNotReadyError


def definition(folder: Path, version: str, plural: str) -> None:
    (folder / version).mkdir(exist_ok=True)
    (folder / version / f"{plural}.yaml").write_text(
        f"kind: CustomResourceDefinition\nmetadata:\n  name: {plural}.cilium.io\n"
    )


def test_each_is_found_whatever_its_version(tmp_path: Path) -> None:
    for number, plural in enumerate(CILIUM_RESOURCES):
        definition(tmp_path, f"v{number % 2}", plural)
    definition(tmp_path, "v0", "ciliumsomethingelse")
    names = [found["metadata"]["name"] for found in cilium_definitions(tmp_path)]
    assert names == [f"{plural}.cilium.io" for plural in CILIUM_RESOURCES]


def test_a_release_without_one_of_them_is_noticed_at_the_start(tmp_path: Path) -> None:
    for plural in CILIUM_RESOURCES[1:]:
        definition(tmp_path, "v2", plural)
    with pytest.raises(HostNotReadyError, match=CILIUM_RESOURCES[0]):
        cilium_definitions(tmp_path)
