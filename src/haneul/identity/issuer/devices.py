"""The device flow (RFC 8628): a program without a browser shows a code, and a person lets it in from another device."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import RowMapping, delete, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from haneul.identity.audit import AuditLog
from haneul.identity.issuer import tables
from haneul.identity.issuer.digests import digest, new_secret
from haneul.identity.issuer.model import DEVICE_INTERVAL, DEVICE_LIFE, Client, Grant, OAuthError, SignOn
from haneul.identity.issuer.sessions import Begun, Sessions
from haneul.identity.model import Origin
from haneul.identity.rows import first_row
from haneul.kernel.clock import Clock
from haneul.kernel.database import aware, writing
from haneul.kernel.errors import NotFoundError

#: No vowels, so that no words come out, and nothing that looks like something else (RFC 8628, section 6.1).
_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"


@dataclass(frozen=True)
class Waiting:
    """A device that waits for a person."""

    user_code: str
    client: str
    source: str


class Devices:
    """Devices that wait, in one database."""

    def __init__(self, engine: AsyncEngine, sessions: Sessions, *, audit: AuditLog, clock: Clock) -> None:
        self._engine = engine
        self._sessions = sessions
        self._audit = audit
        self._clock = clock

    async def start(self, client: Client, scope: str, source: str) -> tuple[str, str]:
        """Return a device code for the program, and a user code for the person."""
        code, now, table = new_secret(), self._clock.now(), tables.device_codes
        letters = "".join(secrets.choice(_LETTERS) for _ in range(8))
        async with writing(self._engine) as connection:
            await connection.execute(delete(table).where(table.c.expires < now - timedelta(hours=1)))
            await connection.execute(
                insert(table).values(
                    hash=digest(code),
                    user_code=letters,
                    client=client.id,
                    scope=scope,
                    source=source[:64],
                    state="pending",
                    interval=DEVICE_INTERVAL,
                    expires=now + DEVICE_LIFE,
                )
            )
        return code, f"{letters[:4]}-{letters[4:]}"

    async def find(self, user_code: str) -> Waiting | None:
        """Return the device that shows a code, however it was typed."""
        async with self._engine.connect() as connection:
            row = await self._pending(connection, user_code)
        return None if row is None else Waiting(user_code, row["client"], row["source"])

    async def decide(self, user_code: str, sign_on: SignOn, *, approve: bool, origin: Origin) -> None:
        """Let a device in as the person who is signed on, or refuse it."""
        verb, state = ("approve", "approved") if approve else ("deny", "denied")
        async with self._audit.change(origin, f"device.{verb}", _letters(user_code)) as connection:
            row = await self._pending(connection, user_code)
            if row is None:
                raise NotFoundError("no device shows this code", hint="start again on the device")
            one = tables.device_codes.c.hash == row["hash"]
            values = {"state": state, "person": sign_on.person, "auth_time": sign_on.auth_time}
            await connection.execute(update(tables.device_codes).where(one).values(**values))

    async def poll(self, client: Client, code: str, *, origin: Origin) -> Begun:
        """Return the device's session once it was let in. Raises OAuthError until then (RFC 8628, section 3.5)."""
        now, table = self._clock.now(), tables.device_codes
        one = table.c.hash == digest(code)
        async with writing(self._engine) as connection:
            row = await first_row(connection, table, hash=digest(code))
            if row is None or row["client"] != client.id or row["state"] == "used":
                raise OAuthError("invalid_grant", "the device code is unknown or was used")
            hurried = row["polled"] is not None and now - aware(row["polled"]) < timedelta(seconds=row["interval"])
            interval = row["interval"] + (DEVICE_INTERVAL if hurried else 0)
            await connection.execute(update(table).where(one).values(polled=now, interval=interval))
        if aware(row["expires"]) <= now:
            raise OAuthError("expired_token", "nobody let the device in in time")
        if row["state"] == "denied":
            raise OAuthError("access_denied", "the device was refused")
        if hurried:
            raise OAuthError("slow_down", f"ask every {interval} seconds")
        if row["state"] == "pending":
            raise OAuthError("authorization_pending", "nobody let the device in yet")
        grant = Grant(person=row["person"], client=client.id, scope=row["scope"], auth_time=aware(row["auth_time"]))

        async def use(connection: AsyncConnection, _: str) -> None:
            spent = update(table).where(one & (table.c.state == "approved")).values(state="used")
            if (await connection.execute(spent)).rowcount == 0:
                raise OAuthError("invalid_grant", "the device code is unknown or was used")

        return await self._sessions.begin(grant, use, origin=origin)

    async def _pending(self, connection: AsyncConnection, user_code: str) -> RowMapping | None:
        row = await first_row(connection, tables.device_codes, user_code=_letters(user_code))
        if row is None or row["state"] != "pending" or aware(row["expires"]) <= self._clock.now():
            return None
        return row


def _letters(user_code: str) -> str:
    return "".join(letter for letter in user_code.upper() if letter in _LETTERS)[:8]
