"""The waker with real sockets: what wakes a cluster and what does not, and what passes through it unread."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from haneul.dkos.door import Sleeper
from haneul.dkos.waker import Waker, WakerLimits
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf
from haneul.kernel.waiting import wait_for
from tests.ports import port as fresh_port

DEADLINE = 60.0
#: Times that no test waits for: what ends by itself is given other ones.
PATIENT = WakerLimits(hello=DEADLINE, hold=DEADLINE, connections_per_cluster=3, silence=DEADLINE)


class Asked:
    """Whoever is told that a cluster is asked for."""

    def __init__(self) -> None:
        self.uids: list[str] = []
        self.broken = False

    async def __call__(self, uid: str) -> None:
        if self.broken:
            raise UnavailableError("the management API does not answer")
        self.uids.append(uid)


@contextlib.asynccontextmanager
async def waker(asked: Asked, limits: WakerLimits = PATIENT) -> AsyncIterator[Waker]:
    made = Waker(asked, clock=SystemClock(), limits=limits, host="127.0.0.1")
    try:
        yield made
    finally:
        await made.close()


async def until(seen: Callable[[], bool], what: str) -> None:
    async def probe() -> bool:
        return seen()

    await wait_for(probe, what=what, timeout=DEADLINE, clock=SystemClock(), interval=0.005, max_interval=0.02)


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's side of a cluster's own TLS, which the waker knows nothing of."""
    now = datetime.now(UTC)
    authority = issue_authority("cluster", now=now)
    pair = issue_leaf(
        authority, LeafProfile("api", addresses=("127.0.0.1",), server=True), now=now, life=timedelta(hours=1)
    )
    (tmp_path / "pair.pem").write_bytes(pair.certificate + b"\n" + pair.key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "pair.pem")
    return server, ssl.create_default_context(cadata=authority.certificate.decode())


@contextlib.asynccontextmanager
async def api_server(context: ssl.SSLContext) -> AsyncIterator[str]:
    """Answer each line in capitals, and the end with a farewell."""

    answering = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answering
        answering += 1
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
        writer.close()
        answering -= 1

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await until(lambda: answering == 0, "the API server's connections to end")


async def test_connection_is_held_until_the_api_is_ready_and_stays_end_to_end(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    asked, port = Asked(), fresh_port()
    async with waker(asked) as made, api_server(tls[0]) as target:
        await made.know(Sleeper("a", "shop", port))
        coming = asyncio.create_task(asyncio.open_connection("127.0.0.1", port, ssl=tls[1]))
        await until(lambda: asked.uids == ["a"], "the request")
        assert not coming.done()
        await made.know(Sleeper("a", "shop", port, target=target, requested=True))
        async with asyncio.timeout(DEADLINE):
            reader, writer = await coming
            big = b"x" * 50_000 + b"\n"
            writer.write(big)
            assert await reader.readline() == big.upper()
            # The cluster is awake: nobody new is let in here, but who is in goes on.
            await made.forget("a")
            writer.write(b"more\n")
            assert await reader.readline() == b"MORE\n"
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", port)
            writer.close()
        await until(lambda: made.connections == 0, "the end of the connection")


@pytest.mark.parametrize(
    "words",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
        b"\x16\x03\x01\x40\x01" + b"\x01" * 0x4001,
        b"\x16\x03\x01\x00\x40" + b"\x02" + b"\x03" * 0x3F,
        b"\x17\x03\x03\x00\x40" + b"\x01" * 0x40,
        b"\x16\x03\x01\x00\x40" + b"\x01" * 0x20,
    ],
    ids=["scan", "http", "cut", "short", "long", "no-hello", "no-handshake", "half"],
)
async def test_what_is_no_client_hello_wakes_nobody_and_is_closed(words: bytes) -> None:
    asked, port = Asked(), fresh_port()
    async with waker(asked, WakerLimits(hello=0.2)) as made:
        await made.know(Sleeper("a", "shop", port))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(words)
        async with asyncio.timeout(DEADLINE):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()
        await until(lambda: made.connections == 0, "the end of the connection")
        assert asked.uids == []


async def hello(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect and say what begins a ClientHello."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x16\x03\x01\x00\x40" + b"\x01\x00\x00\x3c\x03\x03" + bytes(0x3A))
    return reader, writer


async def test_cluster_is_asked_for_once_however_many_come_and_only_so_many_may() -> None:
    asked, port, other = Asked(), fresh_port(), fresh_port()
    async with waker(asked) as made:
        await made.know(Sleeper("a", "shop", port))
        await made.know(Sleeper("b", "lab", other))
        ends = [await hello(port) for _ in range(PATIENT.connections_per_cluster)]
        await until(lambda: made.connections == 3, "three connections")
        reader, writer = await hello(port)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        # A full house of one cluster is nothing to another.
        ends.append(await hello(other))
        await until(lambda: asked.uids == ["a", "b"], "both requests")
        for _, held_writer in ends:
            held_writer.close()


async def test_what_is_not_awake_in_time_is_given_up_and_not_asked_for_again() -> None:
    asked, port = Asked(), fresh_port()
    async with waker(asked, WakerLimits(hold=0.3)) as made:
        await made.know(Sleeper("a", "shop", port))
        for _ in range(2):
            reader, writer = await hello(port)
            async with asyncio.timeout(DEADLINE):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
            writer.close()
        assert asked.uids == ["a"]


async def test_projects_wake_so_many_at_once_and_do_not_use_up_each_others() -> None:
    asked = Asked()
    limits = WakerLimits(hold=1.0, project_burst=2, project_refill=3600, burst=3, refill=3600)
    async with waker(asked, limits) as made:
        ports = {name: fresh_port() for name in ("a1", "a2", "a3", "b1", "c1")}
        writers = []
        for name, port in ports.items():
            await made.know(Sleeper(name, name[0], port))
        for name, port in ports.items():
            writers.append((await hello(port))[1])
            if name in ("a1", "a2", "b1"):
                # In this order: who comes first, decides who is one too many.
                await until(functools.partial(asked.uids.__contains__, name), f"the request of {name}")
        await until(lambda: made.connections == 0, "all to be given up")
        assert sorted(asked.uids) == ["a1", "a2", "b1"]
        for writer in writers:
            writer.close()


async def test_request_that_could_not_be_noted_is_tried_again() -> None:
    asked, port = Asked(), fresh_port()
    asked.broken = True
    async with waker(asked, WakerLimits(hold=DEADLINE)) as made:
        await made.know(Sleeper("a", "shop", port))
        _, writer = await hello(port)
        await until(lambda: made.connections == 1, "the connection")
        asked.broken = False
        await until(lambda: asked.uids == ["a"], "the request")
        writer.close()


async def test_silent_connection_and_one_whose_api_is_gone_end(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    asked, port = Asked(), fresh_port()
    async with waker(asked, WakerLimits(hold=DEADLINE, silence=2.0)) as made:
        await made.know(Sleeper("a", "shop", port, target=f"127.0.0.1:{fresh_port()}"))
        _, nowhere = await hello(port)
        await until(lambda: made.connections == 1, "the connection")
        async with api_server(tls[0]) as target:
            await made.know(Sleeper("a", "shop", port, target=target))
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls[1])
            async with asyncio.timeout(DEADLINE):
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    assert await reader.read() == b""
            writer.close()
            nowhere.close()
            await until(lambda: made.connections == 0, "the end of both")


async def test_taken_port_is_no_end_of_all() -> None:
    asked, port = Asked(), fresh_port()
    async with waker(asked) as made:
        await made.know(Sleeper("a", "shop", port))
        await made.know(Sleeper("b", "lab", port))
        _, writer = await hello(port)
        await until(lambda: asked.uids == ["a"], "the request")
        writer.close()
        await made.forget("a")
        await made.know(Sleeper("b", "lab", port))
        _, writer = await hello(port)
        await until(lambda: asked.uids == ["a", "b"], "the other request")
        writer.close()
