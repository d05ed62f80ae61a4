"""Work in a task of its own, so that what it leaves in its task ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def in_own_task(work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` returns; whoever is cancelled while waiting for it cancels it.

    A task group whose member failed leaves its task marked as being cancelled, in Python 3.11 (CPython issue 95289 and
    pull request 117407); the next ``asyncio.timeout`` that runs out there, however much later, then looks like a
    cancellation that nobody asked for, which ends the task. So a loop that goes on after errors gives each turn a task.
    """
    return await asyncio.create_task(work)


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` returns; whoever is cancelled while waiting for it waits until it has ended.

    For what somebody else does on our word: it is not undone by not waiting for it, so who comes after must.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            # It has been told to whoever waits no more; asking for it keeps asyncio from complaining of it.
            task.exception()
        raise
