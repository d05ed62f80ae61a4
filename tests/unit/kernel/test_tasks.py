"""A loop outlives what its turns leave behind."""

from __future__ import annotations

import asyncio

import pytest

from haneul.kernel.tasks import in_own_task, to_its_end


async def failing() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("of one member")

    async with asyncio.TaskGroup() as group:
        group.create_task(fail())
        group.create_task(fail())


async def test_a_failed_turn_leaves_nothing_that_would_end_the_next_wait() -> None:
    for _ in range(3):
        with pytest.raises(ExceptionGroup):
            await in_own_task(failing())
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()


async def test_who_is_cancelled_cancels_the_work() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    outer = asyncio.create_task(in_own_task(work()))
    await begun.wait()
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer
    assert ended.is_set()


async def test_what_is_done_to_its_end_is_waited_for_by_who_is_cancelled() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    ended: list[str] = []

    async def work() -> str:
        begun.set()
        await go_on.wait()
        ended.append("work")
        return "done"

    outer = asyncio.create_task(to_its_end(work()))
    await begun.wait()
    outer.cancel()
    # It takes the cancellation up, and waits on.
    for _ in range(3):
        await asyncio.sleep(0)
    assert not outer.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await outer
    assert ended == ["work"]
    assert await to_its_end(work()) == "done"
