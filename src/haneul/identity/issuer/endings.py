"""The end of everything that a person has open."""

from __future__ import annotations

from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncConnection

from haneul.identity.issuer import tables


async def end_everything(connection: AsyncConnection, person: str) -> None:
    """End a person's sessions, browsers, and what could still become one."""
    await connection.execute(update(tables.sessions).where(tables.sessions.c.person == person).values(ended=True))
    await connection.execute(delete(tables.sign_ons).where(tables.sign_ons.c.person == person))
    unused = (tables.codes.c.person == person) & tables.codes.c.session.is_(None)
    await connection.execute(delete(tables.codes).where(unused))
    await connection.execute(delete(tables.device_codes).where(tables.device_codes.c.person == person))
