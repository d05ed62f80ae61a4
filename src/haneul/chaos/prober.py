"""Asks many addresses twenty times a second each, and notes every answer in their ledgers.

The pace does not depend on the answers: a question is asked when it is due, also while earlier ones wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Self

import aiohttp

from haneul.chaos.ledger import INTERVAL, Ledger
from haneul.chaos.ports import Question
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import NAMESPACES, KubeClient

#: After this many seconds without an answer a question has failed.
PATIENCE: Final = 5.0


class Prober:
    """Asks from when it is entered until it is left; the ledgers can be read all the while."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._pacers: list[asyncio.Task[None]] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ask nothing more, and wait for the last answers."""
        for pacer in self._pacers:
            pacer.cancel()
        await asyncio.gather(*self._pacers, return_exceptions=True)
        await asyncio.gather(*self._under_way)

    def ask(self, name: str, question: Question) -> Ledger:
        """Begin to ask a question again and again; return the ledger of its answers."""
        ledger = Ledger(name)
        self._pacers.append(asyncio.create_task(self._pace(ledger, question)))
        return ledger

    async def _pace(self, ledger: Ledger, question: Question) -> None:
        due = self._clock.monotonic()
        while True:
            task = asyncio.create_task(self._ask_once(ledger, question))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            due += INTERVAL
            behind = int((self._clock.monotonic() - due) / INTERVAL)
            if behind > 0:
                # What could not be asked in time was not asked: it is neither an answer nor a failure.
                ledger.missed += behind
                due += behind * INTERVAL
            await self._clock.sleep(max(0.0, due - self._clock.monotonic()))

    async def _ask_once(self, ledger: Ledger, question: Question) -> None:
        asked = self._clock.monotonic()
        good = False
        with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError, HaneulError):
            async with asyncio.timeout(PATIENCE):
                good = await question()
        ledger.note(asked, good=good, seconds=self._clock.monotonic() - asked)


class NodesInTurn:
    """One port at several nodes, as what stands before a cluster asks it: beginning with another node each time."""

    def __init__(self, port: int, addresses: Sequence[str] = ()) -> None:
        self._port = port
        self._addresses = tuple(addresses)
        self._turns = itertools.count()

    def are_at(self, addresses: Sequence[str]) -> None:
        """Take over where the nodes are now; while nobody knows, they are where they were."""
        self._addresses = tuple(addresses) or self._addresses

    def urls(self) -> list[str]:
        """Return the addresses to ask, in the order of this turn."""
        first = next(self._turns) % max(len(self._addresses), 1)
        turned = self._addresses[first:] + self._addresses[:first]
        return [f"http://{address}:{self._port}/hostname" for address in turned]


def at(*urls: str) -> Callable[[], Iterable[str]]:
    """Return what always names the same addresses."""
    return lambda: urls


def any_of(session: aiohttp.ClientSession, urls: Callable[[], Iterable[str]]) -> Question:
    """Ask addresses in turn until one answers with 200, as what stands before several nodes does."""

    async def question() -> bool:
        there = list(urls())
        # One address has all the time; of several, the first leaves half of it to the next.
        limit = aiohttp.ClientTimeout(total=PATIENCE / min(max(len(there), 1), 2))
        for url in there:
            with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with session.get(url, timeout=limit) as response:
                    await response.read()
                    if response.status == 200:
                        return True
        return False

    return question


def reads(kube: KubeClient) -> Question:
    """Ask an API server for an object, which it has to get from etcd."""

    async def question() -> bool:
        return await kube.get(NAMESPACES, "default") is not None

    return question
