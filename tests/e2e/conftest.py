"""What the end-to-end tests share: a project, its clusters, and this host's installation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from haneul.app.installation import Installation, this_host
from tests.e2e.tenants import PROJECT
from tests.support import haneul, leftovers


@pytest.fixture(scope="session")
def project(platform: None) -> str:
    """The project that the tests work in."""
    haneul("project", "create", PROJECT)
    return PROJECT


@pytest.fixture(scope="session")
def shop(project: str) -> Iterator[str]:
    """A cluster of two nodes with the native network."""
    haneul("cluster", "create", "shop", "--nodes", "2", "--memory", "1024", "-p", project)
    yield "shop"
    _delete("shop", project)


@pytest.fixture(scope="session")
def lab(project: str) -> Iterator[str]:
    """A cluster of two nodes with Cilium."""
    haneul("cluster", "create", "lab", "--nodes", "2", "--memory", "1024", "--network", "cilium", "-p", project)
    yield "lab"
    _delete("lab", project)


def _delete(name: str, project: str) -> None:
    """Delete a cluster, unless the last test purged the platform and all clusters with it."""
    if leftovers():
        haneul("cluster", "delete", name, "--yes", "-p", project)


@pytest.fixture
async def installation(platform: None) -> Installation:
    """This host's installation."""
    return await this_host()
