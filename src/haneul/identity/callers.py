"""Who is behind a token: people's and robots' own tokens, with the rights of their holders as they are now."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from sqlalchemy import RowMapping, select, union, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from haneul.identity import tables
from haneul.identity.issuer.standing import stands
from haneul.identity.model import Caller, CallerKind, PlatformRole, Role
from haneul.identity.robots import ROBOT_MARK
from haneul.identity.secrets import SecretHasher, split_token
from haneul.kernel.clock import Clock
from haneul.kernel.database import aware, writing
from haneul.kernel.errors import UnauthenticatedError

_LAST_USED_EVERY: Final = timedelta(minutes=1)


class AccessTokens(Protocol):
    """Tokens of sessions, which the platform's issuer signs."""

    async def caller(self, token: str) -> Caller:
        """Return who is behind an access token. Raises UnauthenticatedError."""
        ...

    async def renew(self, person: str) -> None:
        """Have the company's provider asked about a person, if its word is too old."""
        ...


class Callers:
    """Signs callers in by their tokens."""

    def __init__(
        self, engine: AsyncEngine, *, hasher: SecretHasher, clock: Clock, issuer: AccessTokens | None = None
    ) -> None:
        self._engine = engine
        self._issuer = issuer
        self._hasher = hasher
        self._clock = clock

    async def authenticate(self, token: str) -> Caller:
        """Return who holds ``token``. Raises UnauthenticatedError; the reason is the same for every cause."""
        if self._issuer is not None and token.count(".") == 2:
            return await self._issuer.caller(token)
        identity, secret = split_token(token)
        robot = identity.startswith(ROBOT_MARK)
        table = tables.robot_tokens if robot else tables.tokens
        query = _robot_query() if robot else _person_query()
        async with self._engine.connect() as connection:
            row = (await connection.execute(query.where(table.c.id == identity))).mappings().first()
        now = self._clock.now()
        # The secret is checked in any case, so that time does not tell one cause from another either.
        matches = await asyncio.to_thread(self._hasher.matches, None if row is None else row["hash"], secret)
        if row is None or not matches or not _lives(row, now):
            raise _unknown()
        if row["last_used"] is None or now - aware(row["last_used"]) > _LAST_USED_EVERY:
            async with writing(self._engine) as connection:
                await connection.execute(update(table).where(table.c.id == identity).values(last_used=now))
        if robot:
            return Caller(
                person=f"robot:{row['project']}/{row['robot']}",
                kind=CallerKind.ROBOT,
                project=row["project"],
                project_role=Role(row["role"]),
                token_id=identity,
            )
        if self._issuer is not None:
            await self._issuer.renew(row["person"])
        async with self._engine.connect() as connection:
            if not await stands(connection, row["person"]):
                raise _unknown()
            return await person_caller(connection, row["person"], token_id=identity)


async def person_caller(connection: AsyncConnection, person: str, *, token_id: str = "", session: str = "") -> Caller:
    """Return a person as a caller, with their groups and with their own and their groups' platform roles."""
    members, own, through = tables.group_members, tables.platform_roles, tables.group_platform_roles
    groups = await connection.execute(
        select(members.c.group).where(members.c.person == person).order_by(members.c.group)
    )
    roles = await connection.execute(
        union(
            select(own.c.role).where(own.c.person == person),
            select(through.c.role).join(members, members.c.group == through.c.group).where(members.c.person == person),
        )
    )
    return Caller(
        person=person,
        platform_roles=tuple(sorted(PlatformRole(role) for role in roles.scalars())),
        groups=tuple(groups.scalars()),
        token_id=token_id,
        session=session,
    )


def _person_query() -> Any:
    return select(tables.tokens, tables.people.c.disabled).join(tables.people)


def _robot_query() -> Any:
    return select(tables.robot_tokens, tables.robots.c.role).join(tables.robots)


def _lives(row: RowMapping, now: datetime) -> bool:
    return not row["revoked"] and not row.get("disabled") and aware(row["expires"]) > now


def _unknown() -> UnauthenticatedError:
    return UnauthenticatedError(
        "the token is unknown, expired or revoked",
        hint="ask an administrator for a new token, then 'haneul login'",
    )
