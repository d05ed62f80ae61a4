"""The waker: answers for sleeping clusters, has them woken, and passes what it held on to their API servers.

It listens at one port for each sleeping cluster, the number of the cluster's node port. Of a connection it reads the
beginning of a TLS ClientHello (RFC 8446, sections 4.1.2 and 5.1), and nothing else counts as a request: not a port
scan, not a health check. It has no key of any cluster, so it can neither read nor answer; it holds the connection
until the API server is ready, and then copies bytes both ways: TLS stays between the two ends.

Everything is bounded: connections of one cluster and of all, how long one may take to say hello, be held, and be
silent, how many bytes are held, and how often clusters are woken: in each project and altogether. What was held in vain
is closed shortly before clients would give it up: kubectl, as all that is made with client-go, fails for good when
a handshake takes ten seconds, but asks ten times more when its connection ends before (client-go,
``rest/with_retry.go``).

Its state is what :meth:`Waker.know` was told last; what it does not know any more it stops listening for, but ends no
connection that is passed on already.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from haneul.dkos.door import Sleeper
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError

_log = structlog.get_logger(__name__)

_HANDSHAKE, _CLIENT_HELLO, _VERSION_3 = 0x16, 0x01, 0x03
#: RFC 8446, section 5.1: a record's header, and the most that a record carries in the clear.
_HEADER_BYTES, _MOST_RECORD_BYTES = 5, 1 << 14
#: The least that a ClientHello can have: type and length, version, random, and the lengths of what may be empty.
_LEAST_HELLO_BYTES: Final = 42
_PIECE_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class WakerLimits:
    """What bounds the waker; times are seconds."""

    connections: int = 1024
    connections_per_cluster: int = 32
    hello: float = 5.0
    #: Less than Go's ``TLSHandshakeTimeout`` of ten seconds, with room for connections that are slow to come here.
    hold: float = 8.0
    connect: float = 2.0
    silence: float = 600.0
    #: Clusters woken at once, and after how many seconds one more may be: in one project, and altogether.
    project_burst: int = 5
    project_refill: float = 10.0
    burst: int = 20
    refill: float = 2.0
    #: A cluster that is woken already is not asked for again so soon.
    again: float = 20.0


#: Notes that a cluster, by its uid, is asked for.
Request = Callable[[str], Awaitable[None]]


class Allowance:
    """So many at once, then one more every few seconds."""

    def __init__(self, burst: int, refill: float, now: float) -> None:
        self._burst, self._refill = burst, refill
        self._left, self._at = float(burst), now

    def there(self, now: float) -> bool:
        """Say whether there is one to take."""
        self._left = min(float(self._burst), self._left + (now - self._at) / self._refill)
        self._at = now
        return self._left >= 1

    def take(self) -> None:
        """Take one."""
        self._left -= 1


@dataclass
class _Place:
    """One sleeping cluster: what is known of it, its listener, and since when it is asked for."""

    sleeper: Sleeper
    server: asyncio.Server | None = None
    asked: float | None = None
    #: Set anew whenever something becomes known.
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Waker:
    """Listens for the clusters that it knows."""

    def __init__(self, request: Request, *, clock: Clock, limits: WakerLimits | None = None, host: str = "") -> None:
        self._request = request
        self._clock = clock
        self._limits = limits or WakerLimits()
        self._host = host
        self._places: dict[str, _Place] = {}
        self._connections: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        now = clock.monotonic()
        self._all = Allowance(self._limits.burst, self._limits.refill, now)
        self._projects: dict[str, Allowance] = {}

    @property
    def connections(self) -> int:
        """Return how many connections there are."""
        return self._connections.total()

    async def know(self, sleeper: Sleeper) -> None:
        """Listen for a cluster, or take in what is new of it."""
        place = self._places.get(sleeper.uid)
        if place is not None and place.sleeper.port != sleeper.port:
            await self.forget(sleeper.uid)
            place = None
        if place is None:
            place = self._places[sleeper.uid] = _Place(sleeper)
        place.sleeper = sleeper
        place.news.set()
        place.news = asyncio.Event()
        if place.server is None:
            try:
                place.server = await asyncio.start_server(
                    lambda reader, writer: self._accepted(sleeper.uid, reader, writer),
                    self._host or None,
                    sleeper.port,
                    limit=_MOST_RECORD_BYTES + _HEADER_BYTES,
                )
            except OSError as error:
                # Two clusters never have one node port at a time; one that is told again later may be in time.
                _log.warning("port not listened at", port=sleeper.port, cluster=sleeper.uid, error=str(error))

    async def forget(self, uid: str) -> None:
        """Listen no more for a cluster; what is held for it is closed."""
        place = self._places.pop(uid, None)
        if place is None:
            return
        if place.server is not None:
            place.server.close()
        place.news.set()

    async def close(self) -> None:
        """End everything."""
        for uid in list(self._places):
            await self.forget(uid)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, uid: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        full = (
            self._connections.total() >= self._limits.connections
            or self._connections[uid] >= self._limits.connections_per_cluster
        )
        if full or uid not in self._places:
            writer.transport.abort()
            return
        self._connections[uid] += 1
        task = asyncio.create_task(self._serve(uid, reader, writer))
        self._tasks.add(task)

        def ended(_: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._connections[uid] -= 1
            if not self._connections[uid]:
                del self._connections[uid]
            writer.transport.abort() if writer.transport.get_write_buffer_size() == 0 else writer.close()

        task.add_done_callback(ended)

    async def _serve(self, uid: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; whatever goes wrong in it ends it alone."""
        try:
            async with asyncio.timeout(self._limits.hello):
                hello = await read_hello(reader)
            if hello is None:
                return
            async with asyncio.timeout(self._limits.hold):
                upstream = await self._awake(uid)
            if upstream is None:
                return
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            return
        target_reader, target_writer = upstream
        target_writer.write(hello)
        with contextlib.suppress(OSError):
            await splice((reader, writer), (target_reader, target_writer), silence=self._limits.silence)

    async def _awake(self, uid: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Have the cluster woken; return a connection to its API server, or None if it is not to be had any more."""
        while (place := self._places.get(uid)) is not None:
            news = place.news
            if place.sleeper.target:
                host, _, port = place.sleeper.target.rpartition(":")
                with contextlib.suppress(TimeoutError, OSError):
                    async with asyncio.timeout(self._limits.connect):
                        return await asyncio.open_connection(host, int(port), limit=_PIECE_BYTES)
            else:
                await self._ask(place)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await news.wait()
        return None

    async def _ask(self, place: _Place) -> None:
        """Note that a cluster is asked for, if it is not noted yet and allowed; who waits asks again."""
        now, limits = self._clock.monotonic(), self._limits
        if place.sleeper.requested or (place.asked is not None and now - place.asked < limits.again):
            return
        project = self._projects.setdefault(
            place.sleeper.project, Allowance(limits.project_burst, limits.project_refill, now)
        )
        if not (project.there(now) and self._all.there(now)):
            return
        project.take()
        self._all.take()
        place.asked = now
        try:
            await self._request(place.sleeper.uid)
        except HaneulError as error:
            place.asked = None
            _log.warning("cluster not asked for", cluster=place.sleeper.uid, error=str(error))


async def read_hello(reader: asyncio.StreamReader) -> bytes | None:
    """Return the first TLS record of a connection if it begins a ClientHello, else None; reads nothing beyond it.

    Raises IncompleteReadError when the other side ends before that.
    """
    header = await reader.readexactly(_HEADER_BYTES)
    length = int.from_bytes(header[3:5], "big")
    if header[0] != _HANDSHAKE or header[1] != _VERSION_3 or not _LEAST_HELLO_BYTES <= length <= _MOST_RECORD_BYTES:
        return None
    record = await reader.readexactly(length)
    if record[0] != _CLIENT_HELLO or record[4] != _VERSION_3:
        return None
    return header + record


_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def splice(one: _Ends, other: _Ends, *, silence: float) -> None:
    """Copy bytes both ways until both ends have ended, one broke off, or nothing came for ``silence`` seconds.

    Each end's end is passed on by itself (RFC 9293, section 3.6: half-closed). Closes both.
    """
    loop = asyncio.get_running_loop()
    last = loop.time()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal last
        while piece := await reader.read(_PIECE_BYTES):
            last = loop.time()
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    ways = [asyncio.create_task(copy(one[0], other[1])), asyncio.create_task(copy(other[0], one[1]))]
    try:
        pending = set(ways)
        while pending and (left := last + silence - loop.time()) > 0:
            done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                way.result()
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for _, writer in (one, other):
            writer.close()
