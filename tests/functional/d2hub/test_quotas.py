"""Quotas under many pushes at once, with a meter that answers when it is told to."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from haneul.d2hub.quotas import FIGURE_SECONDS, Quotas
from haneul.d2hub.rules import ProjectRules
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import QuotaExceededError

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


class Kept:
    """What one project keeps; asking takes a turn of the loop, as a database would."""

    def __init__(self) -> None:
        self.content: dict[str, int] = {}
        self.asked = 0

    async def used(self, _: str) -> int:
        self.asked += 1
        found = sum(self.content.values())
        # What is written from here on is missing in the answer.
        for _turn in range(5):
            await asyncio.sleep(0)
        return found

    async def keeps(self, _: str, digest: str) -> bool:
        await asyncio.sleep(0)
        return digest in self.content


class Limited:
    """Rules with a quota of 100 bytes, or none."""

    limit: int | None = 100

    def rules(self, _: str) -> ProjectRules:
        return ProjectRules(quota_bytes=self.limit)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(NOW)


async def push(quotas: Quotas, kept: Kept, digest: str, size: int) -> bool:
    try:
        async with quotas.room("shop/web", digest, size):
            await asyncio.sleep(0)
            kept.content[digest] = size
            await asyncio.sleep(0)
    except QuotaExceededError:
        return False
    return True


@pytest.mark.parametrize("size", [1, 7, 30, 100])
async def test_pushes_at_once_never_pass_it(kept: Kept, clock: VirtualClock, size: int) -> None:
    quotas = Quotas(kept, Limited(), clock=clock)

    async def later(number: int) -> bool:
        for _ in range(number % 13):
            await asyncio.sleep(0)
        if number % 5 == 0:
            clock.advance(FIGURE_SECONDS)
        return await push(quotas, kept, f"d{number}", size)

    done = await asyncio.gather(*(later(number) for number in range(200)))
    assert sum(kept.content.values()) <= 100
    assert done.count(True) == len(kept.content)
    clock.advance(2)
    # Whatever was refused for another's sake finds its room afterwards: no room is lost.
    while await push(quotas, kept, f"again {len(kept.content)}", size):
        clock.advance(2)
    assert sum(kept.content.values()) == 100 // size * size
    assert "d2hub_quota_refused_total" in "".join(quotas.lines())


async def test_a_figure_is_remembered_and_made_anew_before_a_refusal(kept: Kept, clock: VirtualClock) -> None:
    quotas = Quotas(kept, Limited(), clock=clock)
    for number in range(9):
        assert await push(quotas, kept, f"d{number}", 10)
    assert kept.asked == 1
    clock.advance(2)
    kept.content.clear()
    assert await push(quotas, kept, "large", 95)
    assert kept.asked == 2
    clock.advance(2)
    refused = [await push(quotas, kept, f"e{number}", 10) for number in range(20)]
    assert refused == [False] * 20
    assert kept.asked == 3
    assert await quotas.used("shop") == 95


async def test_what_fails_gives_its_room_back(kept: Kept, clock: VirtualClock) -> None:
    quotas = Quotas(kept, Limited(), clock=clock)
    for _ in range(3):
        with pytest.raises(LookupError):
            async with quotas.room("shop/web", "d", 100):
                raise LookupError
    assert await push(quotas, kept, "d", 100)
    assert await push(quotas, kept, "d", 100)


async def test_without_a_quota_nobody_is_asked(kept: Kept, clock: VirtualClock) -> None:
    free = Limited()
    free.limit = None
    assert await push(Quotas(kept, free, clock=clock), kept, "d", 10**12)
    assert kept.asked == 0
