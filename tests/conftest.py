"""What all tests share: the platform of this machine, for those that are marked ``e2e``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock, Timeout
from hypothesis import settings

from tests.support import UP_SECONDS, haneul, kill_when, leftovers

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("haneul", deadline=None)
settings.load_profile("haneul")

#: What tells a platform that an earlier run of the tests left from one that somebody needs.
MADE_BY_TESTS = Path("/var/lib/haneul/made-by-tests")


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A platform made from nothing by an `up` that was killed half-way and one that finished it; gone afterwards."""
    if os.geteuid() != 0:
        pytest.skip("only root can bring the platform up")
    with _alone_on_this_host():
        yield from _fresh_platform(tmp_path_factory)


@contextlib.contextmanager
def _alone_on_this_host() -> Iterator[None]:
    """Two runs would purge each other's platform."""
    lock = FileLock("/run/lock/haneul-tests.lock", timeout=0)
    try:
        with lock:
            yield
    except Timeout:
        pytest.exit(f"another run of these tests uses this host's platform and holds {lock.lock_file}", 1)


def _fresh_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    os.environ["HANEUL_CONFIG"] = str(tmp_path_factory.mktemp("haneul") / "config.yaml")
    if leftovers() and not MADE_BY_TESTS.exists() and os.environ.get("HANEUL_TEST_PURGE") != "1":
        pytest.exit("a platform is installed here; HANEUL_TEST_PURGE=1 lets the tests remove it with all its data", 1)
    haneul("down", "--purge", timeout=UP_SECONDS)
    assert leftovers() == []
    MADE_BY_TESTS.parent.mkdir(mode=0o700)
    MADE_BY_TESTS.touch()
    kill_when(Path("/etc/kubernetes/manifests/kube-apiserver.yaml").exists, "up")
    haneul("up", timeout=UP_SECONDS)
    yield
    haneul("down", "--purge", timeout=UP_SECONDS)
    assert leftovers() == []


@pytest.fixture(autouse=True)
def _platform_for_e2e(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("e2e"):
        request.getfixturevalue("platform")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that stop the platform come after all that use it."""
    for item in items:
        if item.get_closest_marker("e2e"):
            # The first of them waits for the platform to be made, twice.
            item.add_marker(pytest.mark.timeout(1500))
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)
