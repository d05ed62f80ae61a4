"""The running application, and alice with a sign-on secret of her own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.functional.api.application import Api, running_api
from tests.functional.sign_on.browser import Person, Program


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(tmp_path) as api:
        yield api


@pytest.fixture
async def alice(api: Api) -> Person:
    person = Person(api, "alice")
    await person.choose_secret()
    return person


@pytest.fixture
def cli(api: Api) -> Program:
    return Program(api)


@pytest.fixture
async def wiki(api: Api) -> Program:
    """A registered program with a secret."""
    redirect = "https://wiki.test/back?from=haneul"
    body = {"id": "wiki", "name": "The wiki", "redirectUris": [redirect]}
    made = await api.call("admin", "POST", "/clients", body, status=201)
    return Program(api, "wiki", made["secret"], redirect)
