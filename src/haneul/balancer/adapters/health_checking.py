"""Asking members again and again whether they are well, for balancers that do not do so by themselves.

A TCP member is well if a connection comes about, or, with a path, if it answers a question by HTTP with 200. A UDP
member without a path gets a datagram of one zero octet: it is well unless that is refused, or cannot be delivered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from haneul.balancer.adapters.health_verdicts import Standing, judged
from haneul.balancer.adapters.member_notes import Target
from haneul.balancer.model import Protocol
from haneul.kernel.clock import Clock

_LONGEST_LINE: Final = 1024


class HealthChecker:
    """Asks targets, each at its own pace. ``news`` is set when one has turned."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._asking: dict[Target, asyncio.Task[None]] = {}
        self._up: dict[Target, bool] = {}
        self.news = asyncio.Event()

    @property
    def verdicts(self) -> Mapping[Target, bool]:
        """Return of each target whether it counts as well."""
        return self._up

    def follow(self, targets: Collection[Target], down: Collection[Target]) -> None:
        """Ask these from now on, and no others. A new one counts as well, unless it is among those that were down."""
        for target in [one for one in self._asking if one not in targets]:
            self._asking.pop(target).cancel()
            del self._up[target]
        for target in targets:
            if target not in self._asking:
                self._up[target] = target not in down
                self._asking[target] = asyncio.create_task(self._ask_on(target, Standing(self._up[target])))

    async def end(self) -> None:
        """Ask nobody any more."""
        tasks: Iterable[asyncio.Task[None]] = list(self._asking.values())
        self.follow((), ())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_on(self, target: Target, standing: Standing) -> None:
        while True:
            before, standing = standing, judged(standing, await is_well(target), target.check)
            if standing.up is not before.up:
                self._up[target] = standing.up
                self.news.set()
            await self._clock.sleep(target.check.interval / 1000)


async def is_well(target: Target) -> bool:
    """Ask once."""
    member, check = target.member, target.check
    try:
        async with asyncio.timeout(check.timeout / 1000):
            if check.path:
                return await _answers(member.address, check.port or member.port, check.path)
            if target.protocol is Protocol.UDP:
                return await _takes_datagrams(member.address, member.port)
            _, writer = await asyncio.open_connection(member.address, member.port)
            writer.transport.abort()
            return True
    except TimeoutError:
        # A datagram that nobody complains of in that time was taken.
        return target.protocol is Protocol.UDP and not check.path
    except (OSError, ValueError):
        return False


async def _answers(address: str, port: int, path: str) -> bool:
    """Ask by HTTP/1.0 (RFC 1945); of the answer, its first line counts."""
    reader, writer = await asyncio.open_connection(address, port, limit=_LONGEST_LINE)
    try:
        host = f"[{address}]" if ":" in address else address
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
        words = (await reader.readline()).split()
        return len(words) > 1 and words[0].startswith(b"HTTP/") and words[1] == b"200"
    finally:
        writer.transport.abort()


class _Complaints(asyncio.DatagramProtocol):
    """Waits until the kernel tells that a datagram was refused, or somebody answers it."""

    def __init__(self) -> None:
        self.well: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._say(True)

    def error_received(self, exc: Exception) -> None:
        self._say(False)

    def _say(self, well: bool) -> None:
        if not self.well.done():
            self.well.set_result(well)


async def _takes_datagrams(address: str, port: int) -> bool:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        _Complaints, remote_addr=(address, port)
    )
    with contextlib.closing(transport):
        transport.sendto(b"\0")
        return await protocol.well
