"""How often somebody may try: failures are counted per name at an address, per address, and per name.

What anybody may begin without saying who they are is counted too, whether it succeeds or not.

A pure rule and its counters in the database, which all API processes share. An attempt is counted before it is looked
at, so that many at once are no way around, and taken back when it was right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from haneul.identity.issuer import tables
from haneul.identity.issuer.digests import digest
from haneul.identity.issuer.model import TooManyAttemptsError
from haneul.kernel.clock import Clock
from haneul.kernel.database import aware, writing


@dataclass(frozen=True)
class Limit:
    """How many attempts may fail in a window, which begins with the first."""

    failures: int
    window: timedelta


@dataclass(frozen=True)
class Window:
    """What was counted so far."""

    failures: int
    ends: datetime


#: A person's name is guessed at from many addresses too, but nobody shall lock others out easily.
LIMITS: Final[Mapping[str, Limit]] = {
    "pair": Limit(5, timedelta(minutes=5)),
    "address": Limit(30, timedelta(minutes=15)),
    "name": Limit(50, timedelta(hours=1)),
    #: Codes of devices, by who is signed on and by where from.
    "user-code": Limit(10, timedelta(minutes=10)),
    "user-code-address": Limit(30, timedelta(minutes=10)),
    #: Sign-ons begun by devices and at the company's provider: each is kept until it ends. Many share an address.
    "begun": Limit(100, timedelta(minutes=10)),
}


def count(window: Window | None, limit: Limit, now: datetime) -> Window | None:
    """Return the window with one more attempt in it; None if there were too many already."""
    if window is None or window.ends <= now:
        return Window(1, now + limit.window)
    return None if window.failures >= limit.failures else Window(window.failures + 1, window.ends)


class Attempts:
    """The counters."""

    def __init__(self, engine: AsyncEngine, *, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def begin(self, keys: Mapping[str, str]) -> None:
        """Count an attempt under each limit's key. Raises TooManyAttemptsError, and counts nothing then."""
        now, table = self._clock.now(), tables.attempts
        hashed = _hashed(keys)
        async with writing(self._engine) as connection:
            await connection.execute(delete(table).where(table.c.ends <= now))
            rows = (await connection.execute(select(table).where(table.c.key.in_(hashed.values())))).mappings().all()
            known = {row["key"]: Window(row["failures"], aware(row["ends"])) for row in rows}
            for name, key in hashed.items():
                counted = count(known.get(key), LIMITS[name], now)
                if counted is None:
                    seconds = int((known[key].ends - now).total_seconds()) + 1
                    raise TooManyAttemptsError(
                        "too many attempts failed of late", hint=f"wait {seconds} seconds, then try again"
                    )
                await connection.execute(delete(table).where(table.c.key == key))
                await connection.execute(insert(table).values(key=key, failures=counted.failures, ends=counted.ends))

    async def succeed(self, keys: Mapping[str, str]) -> None:
        """Take an attempt back; whoever was right begins anew at their address."""
        table = tables.attempts
        async with writing(self._engine) as connection:
            for name, key in _hashed(keys).items():
                one = table.c.key == key
                if name == "pair":
                    await connection.execute(delete(table).where(one))
                else:
                    await connection.execute(table.update().where(one).values(failures=table.c.failures - 1))


def _hashed(keys: Mapping[str, str]) -> dict[str, str]:
    return {name: digest(f"{name} {key}") for name, key in keys.items()}
