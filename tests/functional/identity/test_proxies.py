"""Who can act as somebody else, as the audit record tells it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from haneul.app.api import MIGRATIONS
from haneul.identity.audit import AuditLog
from haneul.identity.model import Origin
from haneul.identity.proxies import Proxies
from haneul.kernel.clock import VirtualClock
from haneul.kernel.database import migrate, open_database

#: Who did what: the person, the action, the object, and the project.
RECORDS = [
    ("admin", "token.create", "carol/aa11", ""),
    ("carol", "token.create", "carol/aa12", ""),
    ("erin", "sign-on-secret.create", "carol", ""),
    ("frank", "person.link", "carol=1234", ""),
    ("root", "token.create", "erin/bb11", ""),
    ("carol", "robot.create", "ci=developer", "shop"),
    ("dave", "robot.rotate", "ci/cc11", "shop"),
    # None of these makes anybody able to act as carol.
    ("gina", "token.create", "carola/dd11", ""),
    ("gina", "token.revoke", "carol/aa11", ""),
    ("gina", "person-role.grant", "carol=auditor", ""),
    ("gina", "robot.create", "ci=developer", "other"),
    ("gina", "robot.create", "ci2=developer", "shop"),
]


@pytest.fixture
async def proxies(tmp_path: Path) -> AsyncIterator[Proxies]:
    engine = open_database(f"sqlite+aiosqlite:///{tmp_path}/haneul.db")
    await migrate(engine, MIGRATIONS)
    audit = AuditLog(engine, clock=VirtualClock(datetime(2026, 11, 24, 9, 0, tzinfo=UTC)))
    for person, action, target, project in RECORDS:
        await audit.record(Origin(person=person), action, target, project)
    await audit.record(Origin(person="hugo"), "token.create", "carol/ee11", result="refused: forbidden")
    yield Proxies(engine)
    await engine.dispose()


@pytest.mark.parametrize(
    ("name", "behind"),
    [
        ("carol", {"admin", "erin", "frank", "root"}),
        ("erin", {"root"}),
        ("admin", set()),
        ("robot:shop/ci", {"carol", "dave", "admin", "erin", "frank", "root"}),
        ("robot:other/ci", {"gina"}),
        ("robot:shop/c%", set()),
    ],
)
async def test_whoever_made_a_credential_is_behind_it_and_whoever_made_theirs(
    proxies: Proxies, name: str, behind: set[str]
) -> None:
    assert await proxies.behind(name) == behind
