"""A real etcd on a small disk that gets full, and one that reaches its own quota: what is acknowledged stays.

The second is mended as the how-to page says, by three requests to etcd's own HTTP gateway.
"""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from haneul.app.installation import component_store
from haneul.chaos.adapters.volumes import SmallDisk
from haneul.kernel.errors import HostNotReadyError
from tests.functional.dkos.etcd_process import Etcd, decoded, encoded, running

SIZE = 200_000


class Member(Etcd):
    """One that waits for its disk, and whose refusals are told."""

    async def ask(self, path: str, **body: Any) -> dict[str, Any]:
        """Raises what aiohttp raises, also for a refusal."""
        assert self.session is not None
        async with self.session.post(f"/v3/{path}", json=body, timeout=aiohttp.ClientTimeout(total=5)) as response:
            answer: dict[str, Any] = await response.json()
            if response.status != 200:
                raise aiohttp.ClientPayloadError(str(answer))
            return answer

    async def fill(self, number: int) -> None:
        value = base64.b64encode(os.urandom(SIZE)).decode()
        await self.ask("kv/put", key=encoded(f"{number:06d}"), value=value)

    async def numbers(self) -> set[int]:
        everything = base64.b64encode(b"\0").decode()
        answer = await self.ask("kv/range", key=everything, range_end=everything, keys_only=True)
        return {int(decoded(entry["key"])) for entry in answer.get("kvs", [])}

    async def fill_until_refused(self, first: int) -> set[int]:
        """Return the numbers that were acknowledged before one was not."""
        acknowledged: set[int] = set()
        for number in range(first, first + 500):
            try:
                await self.fill(number)
            except (aiohttp.ClientError, OSError, TimeoutError):
                return acknowledged
            acknowledged.add(number)
        raise AssertionError("etcd took 100 MB where there was no room for them")


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return component_store().program("etcd")
    except HostNotReadyError as error:
        pytest.skip(f"{error.detail}: 'haneul components build etcd'")


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[SmallDisk]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    small = SmallDisk(tmp_path / "disk.img", tmp_path / "folder")
    await small.make()
    await small.mount()
    yield small
    await small.remove()


async def test_an_etcd_whose_disk_was_full_goes_on_with_all_that_it_acknowledged(
    program: Path, disk: SmallDisk, tmp_path: Path
) -> None:
    etcd = Member(program, tmp_path / "etcd", data=disk.folder / "data", options=())
    async with running(etcd):
        for number in range(5):
            await etcd.fill(number)
        await disk.fill()
        acknowledged = await etcd.fill_until_refused(5)
        await etcd.kill()
        await disk.empty()
        await etcd.start()
        assert {0, 1, 2, 3, 4} | acknowledged <= await etcd.numbers()
        await etcd.fill(9999)
        assert 9999 in await etcd.numbers()


async def test_an_etcd_that_reached_its_quota_is_mended_by_compaction_and_defragmentation(
    program: Path, tmp_path: Path
) -> None:
    etcd = Member(program, tmp_path / "etcd", options=("--quota-backend-bytes=50331648",))
    async with running(etcd):
        for _ in range(400):
            # One object that is written again and again, as a busy controller does.
            try:
                await etcd.fill(1)
            except aiohttp.ClientError as error:
                assert "database space exceeded" in str(error)
                break
        else:
            raise AssertionError("the quota was never reached")
        with pytest.raises(aiohttp.ClientError, match="database space exceeded"):
            await etcd.fill(2)
        assert await etcd.numbers() == {1}
        revision = (await etcd.ask("kv/range", key=encoded("x")))["header"]["revision"]
        await etcd.ask("kv/compaction", revision=revision, physical=True)
        await etcd.ask("maintenance/defragment")
        (raised,) = (await etcd.ask("maintenance/alarm", action="GET"))["alarms"]
        await etcd.ask("maintenance/alarm", action="DEACTIVATE", **raised)
        await etcd.fill(2)
        assert await etcd.numbers() == {1, 2}
