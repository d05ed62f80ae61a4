"""What stands before a cluster in tests, and takes note of every request that fails."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Final

import aiohttp

from haneul.chaos.ledger import Ledger
from haneul.kernel.clock import SystemClock
from tests.e2e.tenants import cluster

CLOCK: Final = SystemClock()


class Balancer:
    """What stands before a cluster: asks one ready node after the other, and the next when one does not answer.

    The nodes are read anew all the while, as a node that is made anew has another address.
    """

    def __init__(self, name: str, port: int) -> None:
        self.ledger = Ledger(name)
        self._name, self._port = name, port
        self._addresses: list[str] = []
        self._turn = itertools.count()

    async def follow(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            nodes = (await asyncio.to_thread(cluster, self._name))["status"]["nodes"]
            self._addresses = [node["address"] for node in nodes if node["ready"]] or self._addresses
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.5)

    async def ask(self, stop: asyncio.Event) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            while not stop.is_set():
                at = CLOCK.monotonic()
                if self._addresses:
                    self.ledger.note(at, good=await self._one(session))
                await asyncio.sleep(max(0.0, 0.05 - (CLOCK.monotonic() - at)))

    async def _one(self, session: aiohttp.ClientSession) -> bool:
        first = next(self._turn)
        for number in range(len(self._addresses)):
            address = self._addresses[(first + number) % len(self._addresses)]
            with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with session.get(
                    f"http://{address}:{self._port}/hostname", timeout=aiohttp.ClientTimeout(total=2)
                ) as answer:
                    await answer.read()
                    if answer.status == 200:
                        return True
        return False
