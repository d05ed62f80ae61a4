"""Codes become sessions, and sessions go on by refresh tokens that are good once (RFC 6749; RFC 9700, section 4.14).

A code or refresh token that comes a second time was stolen from somebody: its session ends.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from haneul.identity.audit import AuditLog
from haneul.identity.callers import person_caller
from haneul.identity.issuer import tables
from haneul.identity.issuer.digests import digest, new_secret
from haneul.identity.issuer.model import (
    CODE_LIFE,
    REFRESH_LIFE,
    SESSION_LIFE,
    Client,
    Grant,
    OAuthError,
    Session,
    SignOn,
)
from haneul.identity.issuer.requests import AuthorizationRequest, verifies
from haneul.identity.issuer.standing import ProviderWord, stands
from haneul.identity.model import Caller, Origin
from haneul.identity.rows import all_rows, first_row
from haneul.kernel.clock import Clock
from haneul.kernel.database import aware, writing
from haneul.kernel.errors import NotFoundError, UnauthenticatedError


@dataclass(frozen=True)
class Begun:
    """A session that goes on: what it may do, and its next refresh token."""

    session: str
    grant: Grant
    refresh_token: str


class _ReusedError(Exception):
    def __init__(self, session: str, person: str) -> None:
        super().__init__(session)
        self.session = session
        self.person = person


class Sessions:
    """Sessions in one database."""

    def __init__(self, engine: AsyncEngine, *, audit: AuditLog, word: ProviderWord, clock: Clock) -> None:
        self._engine = engine
        self._audit = audit
        self._word = word
        self._clock = clock

    async def issue_code(self, request: AuthorizationRequest, sign_on: SignOn) -> str:
        """Return a code for the client, good for a minute."""
        code, now, table = new_secret(), self._clock.now(), tables.codes
        async with writing(self._engine) as connection:
            # Used codes are kept while they could come again.
            await connection.execute(delete(table).where(table.c.expires < now - SESSION_LIFE))
            await connection.execute(
                insert(table).values(
                    hash=digest(code),
                    client=request.client.id,
                    redirect_uri=request.redirect_uri,
                    scope=request.scope,
                    nonce=request.nonce,
                    challenge=request.parameters["code_challenge"],
                    person=sign_on.person,
                    auth_time=sign_on.auth_time,
                    expires=now + CODE_LIFE,
                )
            )
        return code

    async def redeem(self, client: Client, code: str, redirect_uri: str, verifier: str, *, origin: Origin) -> Begun:
        """Turn a code into a session. Raises OAuthError."""
        async with self._engine.connect() as connection:
            row = await first_row(connection, tables.codes, hash=digest(code))
        if row is None or row["client"] != client.id:
            raise OAuthError("invalid_grant", "the code is unknown or has expired")
        grant = _grant(row, nonce=row["nonce"])
        try:
            return await self._begin(
                grant,
                origin,
                lambda connection, session: self._use_code(connection, digest(code), session, redirect_uri, verifier),
            )
        except _ReusedError as error:
            await self._end_stolen(error, "a code came twice", origin)
            raise OAuthError("invalid_grant", "the code was used before") from error

    async def begin(self, grant: Grant, use: Any, *, origin: Origin) -> Begun:
        """Begin a session; ``use`` makes void, in the same transaction, what it is begun with."""
        return await self._begin(grant, origin, use)

    async def refresh(self, client: Client, token: str, *, origin: Origin) -> Begun:
        """Turn a refresh token into the next. Raises OAuthError."""
        async with self._engine.connect() as connection:
            row = await self._by_refresh_token(connection, token)
        if row is None or row["client"] != client.id:
            raise OAuthError("invalid_grant", "the refresh token is unknown or has expired")
        await self._word.renew(row["person"])
        fresh, now = new_secret(), self._clock.now()
        try:
            async with writing(self._engine) as connection:
                one = tables.refresh_tokens.c.hash == digest(token)
                spent = update(tables.refresh_tokens).where(one & ~tables.refresh_tokens.c.used).values(used=True)
                if (await connection.execute(spent)).rowcount == 0:
                    raise _ReusedError(row["session"], row["person"])
                row = await self._by_refresh_token(connection, token)
                gone = row is None or row["ended"] or min(aware(row["expires"]), aware(row["session_expires"])) <= now
                if row is None or gone or not await stands(connection, row["person"]):
                    raise OAuthError("invalid_grant", "the session has ended")
                await self._add_refresh_token(connection, row["session"], fresh, now)
        except _ReusedError as error:
            await self._end_stolen(error, "a refresh token came twice", origin)
            raise OAuthError("invalid_grant", "the refresh token was used before") from error
        return Begun(row["session"], _grant(row), fresh)

    async def caller(self, person: str, session: str) -> Caller:
        """Return a session's person as a caller. Raises UnauthenticatedError as soon as either is out."""
        await self._word.renew(person)
        async with self._engine.connect() as connection:
            row = await first_row(connection, tables.sessions, id=session)
            lives = row is not None and not row["ended"] and aware(row["expires"]) > self._clock.now()
            if row is None or not lives or row["person"] != person or not await stands(connection, person):
                raise UnauthenticatedError("your session has ended", hint="run 'haneul login' again")
            return await person_caller(connection, person, session=session)

    async def revoke(self, client: Client, token: str, *, origin: Origin) -> None:
        """End the session of a refresh token of this client; what is no such token is void already (RFC 7009)."""
        async with self._engine.connect() as connection:
            row = await self._by_refresh_token(connection, token)
        if row is not None and row["client"] == client.id and not row["ended"]:
            await self.end(row["person"], row["session"], origin=origin.model_copy(update={"person": row["person"]}))

    async def end(self, person: str, session: str, *, origin: Origin) -> None:
        """End a person's session, at once."""
        table = tables.sessions
        one = (table.c.id == session) & (table.c.person == person) & ~table.c.ended
        async with self._audit.change(origin, "session.end", f"{person}/{session}") as connection:
            if (await connection.execute(update(table).where(one).values(ended=True))).rowcount == 0:
                raise NotFoundError(f"{person} has no session {session}", hint="'haneul session list' shows them")

    async def list(self, person: str) -> Sequence[Session]:
        """Return a person's sessions that go on, newest first."""
        table = tables.sessions
        query = select(table).where((table.c.person == person) & ~table.c.ended & (table.c.expires > self._clock.now()))
        rows = await all_rows(self._engine, query.order_by(table.c.created.desc()))
        moments = ("auth_time", "created", "expires")
        return [
            Session.model_validate(
                {name: aware(row[name]) if name in moments else row[name] for name in row if name != "ended"}
            )
            for row in rows
        ]

    async def _begin(self, grant: Grant, origin: Origin, use: Any) -> Begun:
        session, token, now = secrets.token_hex(8), new_secret(), self._clock.now()
        origin = origin.model_copy(update={"person": grant.person})
        await self._word.renew(grant.person)
        async with self._audit.change(origin, "session.begin", f"{grant.client}/{session}") as connection:
            await use(connection, session)
            if not await stands(connection, grant.person):
                raise OAuthError("invalid_grant", "the person may not sign on any more")
            await connection.execute(delete(tables.sessions).where(tables.sessions.c.expires < now))
            await connection.execute(
                insert(tables.sessions).values(
                    **grant.model_dump(exclude={"nonce"}),
                    id=session,
                    source=origin.source[:64],
                    agent=origin.agent[:200],
                    created=now,
                    expires=now + SESSION_LIFE,
                    ended=False,
                )
            )
            await self._add_refresh_token(connection, session, token, now)
        return Begun(session, grant, token)

    async def _use_code(
        self, connection: AsyncConnection, hashed: str, session: str, redirect_uri: str, verifier: str
    ) -> None:
        row = await first_row(connection, tables.codes, hash=hashed)
        if row is None:
            raise OAuthError("invalid_grant", "the code is unknown or has expired")
        if row["session"] is not None:
            raise _ReusedError(row["session"], row["person"])
        if aware(row["expires"]) <= self._clock.now():
            raise OAuthError("invalid_grant", "the code is unknown or has expired")
        if row["redirect_uri"] != redirect_uri or not verifies(verifier, row["challenge"]):
            raise OAuthError("invalid_grant", "the code was asked for by somebody else")
        await connection.execute(update(tables.codes).where(tables.codes.c.hash == hashed).values(session=session))

    async def _add_refresh_token(self, connection: AsyncConnection, session: str, token: str, now: datetime) -> None:
        row = {"hash": digest(token), "session": session, "expires": now + REFRESH_LIFE, "used": False}
        await connection.execute(insert(tables.refresh_tokens).values(**row))

    async def _by_refresh_token(self, connection: AsyncConnection, token: str) -> RowMapping | None:
        session = tables.sessions
        columns = (session.c.person, session.c.client, session.c.scope, session.c.auth_time, session.c.ended)
        query = select(tables.refresh_tokens, *columns, session.c.expires.label("session_expires")).join(session)
        query = query.where(tables.refresh_tokens.c.hash == digest(token))
        return (await connection.execute(query)).mappings().first()

    async def _end_stolen(self, stolen: _ReusedError, why: str, origin: Origin) -> None:
        origin = origin.model_copy(update={"person": stolen.person})
        async with self._audit.change(origin, "session.end", f"{stolen.session}: {why}") as connection:
            one = tables.sessions.c.id == stolen.session
            await connection.execute(update(tables.sessions).where(one).values(ended=True))


def _grant(row: RowMapping, *, nonce: str = "") -> Grant:
    return Grant(
        person=row["person"],
        client=row["client"],
        scope=row["scope"],
        auth_time=aware(row["auth_time"]),
        nonce=nonce,
    )
