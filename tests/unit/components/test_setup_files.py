"""The files that set-up installs from: complete, hashed, and naming no host or path of a machine."""

import re
import tomllib
from pathlib import Path

import pytest

from haneul.host.doctor_gather import PROGRAMS

PROJECT = Path(__file__).parents[3]
LOCKS = sorted(PROJECT.glob("requirements*.lock"))
REQUIREMENT = re.compile(r"^([a-z0-9.-]+)(?:\[[a-z,-]+\])?==\S+", re.MULTILINE)


def distribution(requirement: str) -> str:
    """Return the normalised name at the start of a requirement (packaging's "name normalization")."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]).lower()


def locked(name: str) -> set[str]:
    return {match[1] for match in REQUIREMENT.finditer((PROJECT / name).read_text())}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_pin_every_byte(lock: Path) -> None:
    blocks = re.split(r"^(?=[^\s#])", lock.read_text(), flags=re.MULTILINE)[1:]
    assert blocks
    for block in blocks:
        assert REQUIREMENT.match(block)
        assert "--hash=sha256:" in block


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_name_no_host_and_no_path(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert not re.search(r"(^|\s)/\w", text)


def test_locks_hold_what_the_project_asks_for() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    runtime = {distribution(entry) for entry in project["project"]["dependencies"]}
    groups = project["dependency-groups"]
    assert runtime <= locked("requirements.lock"), "run 'make lock'"
    assert runtime | {distribution(entry) for entry in groups["dev"]} <= locked("requirements-dev.lock"), (
        "run 'make lock'"
    )
    assert {distribution(entry) for entry in groups["go"]} == locked("requirements-go.lock"), "run 'make lock'"


def test_tests_run_with_the_versions_that_the_platform_runs_with() -> None:
    def versions(name: str) -> dict[str, str]:
        return {match[1]: match[0] for match in REQUIREMENT.finditer((PROJECT / name).read_text())}

    assert versions("requirements.lock").items() <= versions("requirements-dev.lock").items()


def test_set_up_installs_what_the_doctor_looks_for() -> None:
    lines = (PROJECT / "components" / "system-packages.txt").read_text().splitlines()
    assert set(PROGRAMS.values()) <= {line.split()[0] for line in lines}


def test_every_system_package_has_its_reason() -> None:
    for line in (PROJECT / "components" / "system-packages.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9][a-z0-9.+-]+ +# \S.*", line), line
