"""A real etcd on loopback, its clients, and the programs around it, for tests of backups."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from haneul.app.installation import component_store
from haneul.components.table import component_of
from haneul.kernel.clock import SystemClock
from haneul.kernel.progress import SilentProgress
from haneul.kernel.waiting import wait_for
from tests.ports import port


async def program(name: str) -> Path:
    """Return an upstream program, built if it is not yet."""
    store = component_store()
    await store.programs.build(component_of(name), SilentProgress())
    return store.program(name)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def decoded(text: str) -> str:
    return base64.b64decode(text).decode()


class Etcd:
    """One etcd, in the clear on loopback, that can be killed, lose its data and be started again.

    ``options`` take the place of not waiting for the disk.
    """

    def __init__(
        self, binary: Path, folder: Path, *, data: Path | None = None, options: Sequence[str] = ("--unsafe-no-fsync",)
    ) -> None:
        self.binary = binary
        self.data = data or folder / "member-data"
        self.folder = folder
        self.options = options
        self.client_port, self.peer_port = port(), port()
        self.process: asyncio.subprocess.Process | None = None
        self.session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    async def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "etcd.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(self.binary),
                "--name=etcd-0",
                f"--data-dir={self.data}",
                f"--listen-client-urls={self.url}",
                f"--advertise-client-urls={self.url}",
                f"--listen-peer-urls={self.peer_url}",
                f"--initial-advertise-peer-urls={self.peer_url}",
                f"--initial-cluster=etcd-0={self.peer_url}",
                "--initial-cluster-token=uid",
                "--heartbeat-interval=50",
                "--election-timeout=250",
                *self.options,
                stdout=log,
                stderr=log,
            )
        self.session = aiohttp.ClientSession(base_url=self.url)

        async def answers() -> bool:
            assert self.process is not None
            assert self.process.returncode is None, (self.folder / "etcd.log").read_text()[-2000:]
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await self.call("kv/range", {"key": encoded("a")}, seconds=2)
                return True
            return False

        await wait_for(answers, what="etcd to answer", timeout=60, clock=SystemClock())

    async def kill(self) -> None:
        """End it as a power cut does."""
        if self.session is not None:
            await self.session.close()
            self.session = None
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()

    async def call(self, path: str, body: Mapping[str, Any], *, seconds: float = 20) -> dict[str, Any]:
        assert self.session is not None
        async with self.session.post(f"/v3/{path}", json=body, timeout=aiohttp.ClientTimeout(total=seconds)) as answer:
            assert answer.status == 200, await answer.text()
            found: dict[str, Any] = await answer.json()
            return found

    async def put(self, key: str, value: str, lease: int = 0) -> int:
        """Write a key; return the revision, once it is acknowledged."""
        body = {"key": encoded(key), "value": encoded(value), **({"lease": str(lease)} if lease else {})}
        return int((await self.call("kv/put", body))["header"]["revision"])

    async def delete(self, key: str) -> int:
        return int((await self.call("kv/deleterange", {"key": encoded(key)}))["header"]["revision"])

    async def state(self, revision: int = 0) -> dict[str, tuple[str, int, int, int]]:
        """Return all keys with value, creation, change and version."""
        everything = base64.b64encode(b"\0").decode()
        body = {"key": everything, "range_end": everything, "revision": str(revision)}
        found = await self.call("kv/range", body)
        return {
            decoded(kv["key"]): (
                decoded(kv.get("value", "")),
                int(kv["create_revision"]),
                int(kv["mod_revision"]),
                int(kv["version"]),
            )
            for kv in found.get("kvs", [])
        }

    async def revision(self) -> int:
        return int((await self.call("kv/range", {"key": encoded("a")}))["header"]["revision"])


@contextlib.asynccontextmanager
async def running(etcd: Etcd) -> AsyncIterator[None]:
    """Run an etcd, from when it answers until the end of the block."""
    try:
        await etcd.start()
        yield
    finally:
        await etcd.kill()
