"""One hub for all tests of the specification; each test has a repository of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.functional.d2hub.hub import Client, Hub, running


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with running(tmp_path_factory.mktemp("d2hub") / "data", "--plain-http") as hub:
        hub.user("owner", shop="owner", other="owner")
        hub.user("writer", shop="writer")
        hub.user("reader", shop="reader")
        hub.user("stranger", elsewhere="owner")
        hub.user("admin", admin=True)
        yield hub


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())
    return f"shop/{name[:100].strip('-')}"


@pytest.fixture
def client(hub: Hub, repository: str) -> Iterator[Client]:
    with Client(hub, repository, user="owner") as client:
        yield client
