"""Real load balancers for tests, on loopback addresses, and members that say who they are."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from haneul.balancer.adapters.haproxy import HaproxyBalancer
from haneul.balancer.adapters.haproxy_configuration import Process
from haneul.balancer.adapters.kept import KeptBalancer
from haneul.balancer.keeper import BalancerKeeper, Bounds
from haneul.balancer.model import HealthCheck, Member, Pool, parse_range
from haneul.balancer.ports import LoadBalancer
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.waiting import wait_for

#: Quick, but with room for a machine that is busy.
CHECK = HealthCheck(interval=200, timeout=2000, rise=1, fall=2)
_NUMBERS = itertools.count(1)


def network() -> str:
    """Return the first three parts of loopback addresses that no other test process has."""
    return f"127.{100 + os.getpid() % 100}.{os.getpid() // 100 % 250 + 1}"


def address() -> str:
    """Return a loopback address that no other test has."""
    return f"{network()}.{next(_NUMBERS)}"


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """Yield a folder whose path leaves room for the names of sockets."""
    with tempfile.TemporaryDirectory(prefix="hb-") as name:
        yield Path(name)


@contextlib.asynccontextmanager
async def haproxy(folder: Path) -> AsyncIterator[HaproxyBalancer]:
    """Yield an adapter; HAProxy itself ends with the block."""
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not here: 'make system-packages'")
    balancer = HaproxyBalancer(Process(folder / "b", connections=500), clock=SystemClock())
    try:
        yield balancer
    finally:
        await balancer.close()
        await balancer.end()


@contextlib.asynccontextmanager
async def kept(balancer: LoadBalancer, folder: Path) -> AsyncIterator[KeptBalancer]:
    """Yield what a keeper of a balancer is asked by; any address may be served."""
    socket = folder / "asked" / "keeper.sock"
    everywhere = Pool("all", (parse_range("0.0.0.0/0"), parse_range("::/0")))
    keeper = BalancerKeeper(balancer, Bounds((everywhere,)), clock=SystemClock())
    running = asyncio.create_task(keeper.run(socket, group=os.getegid()))
    try:
        asked = KeptBalancer(socket, balancer.abilities)

        async def answers() -> bool:
            if running.done():
                running.result()
            with contextlib.suppress(UnavailableError):
                await asked.read()
                return True
            return False

        await wait_for(answers, what="the keeper to answer", timeout=60, clock=SystemClock(), interval=0.01)
        yield asked
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Echo:
    """A member: it says its name to whoever connects, and then repeats what it hears."""

    def __init__(self, name: str, *, host: str = "127.0.0.1") -> None:
        self.name = name
        self.host = host
        self.heads: list[bytes] = []
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()

    async def start(self, port: int = 0) -> Member:
        self._server = await asyncio.start_server(self._serve, self.host, port)
        return self.member

    @property
    def member(self) -> Member:
        assert self._server
        return Member(self.host, int(self._server.sockets[0].getsockname()[1]))

    async def end(self) -> None:
        """Stop at once, as a process does that is killed."""
        if self._server:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            async with asyncio.timeout(20):
                await self._none_left.wait()

    async def stop_listening(self) -> None:
        """Take no new connections, and go on with those that there are, as a process does that was told to end."""
        if self._server:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._none_left.clear()
        try:
            writer.write(f"{self.name}\n".encode())
            while line := await reader.readline():
                self.heads.append(line)
                writer.write(line)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)
            if not self._writers:
                self._none_left.set()


class Client:
    """A connection to a listener that a member answered on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        self._reader, self._writer, self.name = reader, writer, name

    async def says(self, text: str) -> bool:
        """Say something, and return whether it came back."""
        try:
            self._writer.write(f"{text}\n".encode())
            async with asyncio.timeout(20):
                return await self._reader.readline() == f"{text}\n".encode()
        except ConnectionError:
            return False

    def close(self) -> None:
        self._writer.transport.abort()


async def connected(host: str, port: int, *, source: str = "") -> Client | None:
    """Connect, and wait until a member says its name; None if none does."""
    writer = None
    name = ""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(host, port, local_addr=(source, 0) if source else None)
            name = (await reader.readline()).decode().strip()
    if writer is not None and name:
        return Client(reader, writer, name)
    if writer is not None:
        writer.transport.abort()
    return None


async def answered(host: str, port: int, *, source: str = "") -> str:
    """Return the name of the member that a new connection gets to; nothing if to none."""
    client = await connected(host, port, source=source)
    if client is None:
        return ""
    client.close()
    return client.name
