"""A real etcd on a small disk that gets full, and one that reaches its own quota: what is acknowledged stays.

The second is mended as the how-to page says, by three requests to etcd's own HTTP gateway.
"""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from haneul.app.installation import component_store
from haneul.chaos.adapters.volumes import SmallDisk
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HostNotReadyError
from haneul.kernel.waiting import wait_for

CLOCK = SystemClock()
SIZE = 200_000


class Etcd:
    """One member on loopback, which can be started again on the same data."""

    def __init__(self, program: str, data: Path, port: int, *options: str) -> None:
        self._argv = [
            program,
            f"--data-dir={data}",
            f"--listen-client-urls=http://127.0.0.1:{port}",
            f"--advertise-client-urls=http://127.0.0.1:{port}",
            f"--listen-peer-urls=http://127.0.0.1:{port + 1}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{port + 1}",
            f"--initial-cluster=default=http://127.0.0.1:{port + 1}",
            *options,
        ]
        self.url = f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self._argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    async def call(self, path: str, **body: Any) -> dict[str, Any]:
        """Raises what aiohttp raises, also for a refusal."""
        timeout = aiohttp.ClientTimeout(total=5)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(f"{self.url}/v3/{path}", json=body) as response,
        ):
            answer: dict[str, Any] = await response.json()
            if response.status != 200:
                raise aiohttp.ClientPayloadError(str(answer))
            return answer

    async def put(self, number: int) -> None:
        value = base64.b64encode(os.urandom(SIZE)).decode()
        await self.call("kv/put", key=base64.b64encode(f"{number:06d}".encode()).decode(), value=value)

    async def numbers(self) -> set[int]:
        everything = base64.b64encode(b"\0").decode()
        answer = await self.call("kv/range", key=everything, range_end=everything, keys_only=True)
        return {int(base64.b64decode(entry["key"])) for entry in answer.get("kvs", [])}

    async def ready(self) -> None:
        async def answers() -> bool:
            try:
                await self.numbers()
            except (aiohttp.ClientError, OSError, TimeoutError):
                return False
            return True

        await wait_for(answers, what="etcd to answer", timeout=60, clock=CLOCK)

    async def put_until_refused(self, first: int) -> set[int]:
        """Return the numbers that were acknowledged before one was not."""
        acknowledged: set[int] = set()
        for number in range(first, first + 500):
            try:
                await self.put(number)
            except (aiohttp.ClientError, OSError, TimeoutError):
                return acknowledged
            acknowledged.add(number)
        raise AssertionError("etcd took 100 MB where there was no room for them")


@pytest.fixture(scope="module")
def program() -> str:
    try:
        return str(component_store().program("etcd"))
    except HostNotReadyError as error:
        pytest.skip(f"{error.detail}: 'haneul components build etcd'")


@contextlib.contextmanager
def running(etcd: Etcd) -> Iterator[Etcd]:
    etcd.start()
    try:
        yield etcd
    finally:
        etcd.end()


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[SmallDisk]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    small = SmallDisk(tmp_path / "disk.img", tmp_path / "folder")
    await small.make()
    await small.mount()
    yield small
    await small.remove()


async def test_an_etcd_whose_disk_was_full_goes_on_with_all_that_it_acknowledged(program: str, disk: SmallDisk) -> None:
    with running(Etcd(program, disk.folder / "data", 24790)) as etcd:
        await etcd.ready()
        for number in range(5):
            await etcd.put(number)
        await disk.fill()
        acknowledged = await etcd.put_until_refused(5)
        etcd.end()
        await disk.empty()
        etcd.start()
        await etcd.ready()
        assert {0, 1, 2, 3, 4} | acknowledged <= await etcd.numbers()
        await etcd.put(9999)
        assert 9999 in await etcd.numbers()


async def test_an_etcd_that_reached_its_quota_is_mended_by_compaction_and_defragmentation(
    program: str, tmp_path: Path
) -> None:
    quota = "--quota-backend-bytes=50331648"
    with running(Etcd(program, tmp_path / "data", 24792, quota)) as etcd:
        await etcd.ready()
        for _ in range(400):
            # One object that is written again and again, as a busy controller does.
            try:
                await etcd.put(1)
            except aiohttp.ClientError as error:
                assert "database space exceeded" in str(error)
                break
        else:
            raise AssertionError("the quota was never reached")
        with pytest.raises(aiohttp.ClientError, match="database space exceeded"):
            await etcd.put(2)
        assert await etcd.numbers() == {1}
        revision = (await etcd.call("kv/range", key=base64.b64encode(b"x").decode()))["header"]["revision"]
        await etcd.call("kv/compaction", revision=revision, physical=True)
        await etcd.call("maintenance/defragment")
        (raised,) = (await etcd.call("maintenance/alarm", action="GET"))["alarms"]
        await etcd.call("maintenance/alarm", action="DEACTIVATE", **raised)
        await etcd.put(2)
        assert await etcd.numbers() == {1, 2}
