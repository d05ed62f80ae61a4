"""Signing keys in the database: sealed, rotated, the same for several processes."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from haneul.app.api import MIGRATIONS
from haneul.identity.audit import AuditLog
from haneul.identity.issuer import tables
from haneul.identity.issuer.key_plan import LEAD, PERIOD
from haneul.identity.issuer.keys import KeyRing
from haneul.identity.issuer.model import CLI, Grant
from haneul.identity.issuer.sealing import Sealer
from haneul.identity.issuer.tokens import Tokens
from haneul.kernel.clock import VirtualClock
from haneul.kernel.database import migrate, open_database
from haneul.kernel.errors import HaneulError, UnauthenticatedError

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
GRANT = Grant(person="alice", client=CLI.id, scope="openid", auth_time=NOW)


class Process:
    """What one API process has: its own connections and memory, the same clock as all."""

    def __init__(self, folder: Path, clock: VirtualClock) -> None:
        self.engine = open_database(f"sqlite+aiosqlite:///{folder}/haneul.db")
        audit = AuditLog(self.engine, clock=clock)
        self.ring = KeyRing(self.engine, audit=audit, sealer=Sealer.from_file(folder / "key"), clock=clock)
        self.tokens = Tokens("https://x.test/oidc", api="https://x.test/api", ring=self.ring, clock=clock)

    async def kids(self) -> list[str]:
        return [key["kid"] for key in (await self.ring.published())["keys"]]


@pytest.fixture
async def clock() -> VirtualClock:
    return VirtualClock(NOW)


@pytest.fixture
async def processes(tmp_path: Path, clock: VirtualClock) -> AsyncIterator[list[Process]]:
    made = [Process(tmp_path, clock) for _ in range(2)]
    await migrate(made[0].engine, MIGRATIONS)
    yield made
    for process in made:
        await process.engine.dispose()


async def keys_in(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        return list((await connection.execute(select(tables.signing_keys.c.sealed))).scalars())


async def test_processes_that_start_at_once_agree(processes: list[Process]) -> None:
    one, other = await asyncio.gather(*(process.kids() for process in processes))
    assert one == other and len(one) == 1


async def test_each_process_verifies_what_the_other_signed_through_a_rotation(
    processes: list[Process], clock: VirtualClock
) -> None:
    one, other = processes
    signed = set()
    for _ in range(50):
        token = await one.tokens.access(GRANT, CLI, "s")
        assert (await other.tokens.verify_access(token))["sub"] == "alice"
        signed.add((await one.ring.signing("ES256")).kid)
        one, other = other, one
        clock.advance(86400)
    assert len(signed) == 2


async def test_the_next_key_is_published_before_it_signs_and_the_old_one_goes(
    processes: list[Process], clock: VirtualClock
) -> None:
    [process, _] = processes
    [first] = await process.kids()
    clock.advance((PERIOD - LEAD).total_seconds())
    [kept, second] = await process.kids()
    assert (kept, (await process.ring.signing("ES256")).kid) == (first, first)
    clock.advance(LEAD.total_seconds())
    assert (await process.ring.signing("ES256")).kid == second
    assert await process.kids() == [first, second]
    clock.advance(timedelta(days=1).total_seconds())
    assert await process.kids() == [second]


async def test_tokens_end_and_are_for_one_use(processes: list[Process], clock: VirtualClock) -> None:
    tokens = processes[0].tokens
    access = await tokens.access(GRANT, CLI, "s")
    foreign = await tokens.access(GRANT, CLI.model_copy(update={"platform": False}), "s")
    cluster = await tokens.cluster("alice", "owner", "haneul:cluster:uid-1")
    assert (await tokens.verify_access(foreign, userinfo=True))["client_id"] == CLI.id
    for token in (foreign, cluster):
        with pytest.raises(UnauthenticatedError):
            await tokens.verify_access(token)
    clock.advance(301)
    with pytest.raises(UnauthenticatedError):
        await tokens.verify_access(access)


async def test_keys_are_of_no_use_without_the_file(
    tmp_path: Path, processes: list[Process], clock: VirtualClock
) -> None:
    await processes[0].kids()
    [sealed] = await keys_in(processes[0].engine)
    assert '"d"' not in sealed and "kty" not in sealed
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    (tmp_path / "key").unlink()
    stranger = Process(tmp_path, clock)
    with pytest.raises(HaneulError, match="another key file"):
        await stranger.kids()
    await stranger.engine.dispose()
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(HaneulError, match="others may read"):
        Sealer.from_file(tmp_path / "key")


async def test_a_new_first_line_seals_and_the_old_ones_still_open(tmp_path: Path) -> None:
    old, new = Sealer.from_file(tmp_path / "old"), Sealer.from_file(tmp_path / "new")
    sealed = old.seal("secret")
    both = tmp_path / "both"
    both.touch(0o600)
    both.write_bytes((tmp_path / "new").read_bytes() + (tmp_path / "old").read_bytes())
    sealer = Sealer.from_file(both)
    assert sealer.open(sealed) == "secret" == new.open(sealer.seal("secret"))
