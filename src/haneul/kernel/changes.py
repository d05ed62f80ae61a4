"""Changes as they are remembered: who did what to what, and how it ended.

A port of every product that changes something. Changes of the database are recorded in their own transaction, so
that neither is ever without the other; changes elsewhere are recorded as ``begun`` before they are made and with
their outcome after, so that a crash in between leaves a trace.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from haneul.kernel.access import Caller
from haneul.kernel.errors import HaneulError


class Result(StrEnum):
    """How a change ended. ``begun`` is followed by ``done`` or ``failed``, unless the process died in between."""

    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True)
class Change:
    """One change: ``action`` is ``<kind>.<verb>`` such as ``cluster.create``; ``detail`` never holds a secret."""

    action: str
    object: str
    project: str = ""
    result: Result = Result.DONE
    detail: Mapping[str, str] = field(default_factory=dict)


class ChangeLog(Protocol):
    """Keeps changes; nothing is ever altered or taken out."""

    async def record(self, caller: Caller, change: Change, transaction: AsyncConnection | None = None) -> None:
        """Keep ``change``, within ``transaction`` if there is one. Raises UnavailableError if it cannot be kept."""
        ...


@asynccontextmanager
async def recorded(log: ChangeLog, caller: Caller, change: Change) -> AsyncIterator[None]:
    """Record a change that is made outside the database: before its block as begun, after it with the outcome."""

    async def note(result: Result, **more: str) -> None:
        detail = {**change.detail, **more}
        await log.record(caller, Change(change.action, change.object, change.project, result, detail))

    await note(Result.BEGUN)
    try:
        yield
    except HaneulError as error:
        await note(Result.FAILED, code=error.code, reason=error.detail)
        raise
    except BaseException as error:
        # Whether the change was made is not known here; the record says so instead of guessing.
        await note(Result.FAILED, code="internal", reason=type(error).__name__)
        raise
    await note(Result.DONE)
