"""Roles for the platform as a whole, beside those in projects. Being an administrator is not among them."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from haneul.identity import tables
from haneul.identity.model import Origin
from haneul.identity.service import Identity
from haneul.kernel.errors import NotFoundError


class PlatformRole(StrEnum):
    """What somebody is for the platform as a whole."""

    FIREWALL_APPROVER = "firewall-approver"


class PlatformRoles:
    """Who has which platform role, in identity's database."""

    def __init__(self, engine: AsyncEngine, identity: Identity) -> None:
        self._engine = engine
        self._identity = identity

    async def of(self, person: str) -> frozenset[PlatformRole]:
        """Return a person's platform roles."""
        query = select(tables.platform_roles.c.role).where(tables.platform_roles.c.person == person)
        async with self._engine.connect() as connection:
            return frozenset(PlatformRole(role) for role in (await connection.execute(query)).scalars())

    async def grant(self, person: str, role: PlatformRole, *, origin: Origin) -> None:
        """Give a person a role; again changes nothing."""
        table = tables.platform_roles
        async with self._identity.change(origin, "person-role.grant", f"{person}={role}") as connection:
            known = await connection.execute(select(tables.people.c.name).where(tables.people.c.name == person))
            if known.first() is None:
                raise NotFoundError(
                    f"there is no person named {person}", hint="'haneul person list' shows who there is"
                )
            await connection.execute(delete(table).where((table.c.person == person) & (table.c.role == role)))
            await connection.execute(insert(table).values(person=person, role=role))

    async def withdraw(self, person: str, role: PlatformRole, *, origin: Origin) -> None:
        """Take a role from a person. Raises NotFoundError if they do not have it."""
        table = tables.platform_roles
        async with self._identity.change(origin, "person-role.withdraw", f"{person}={role}") as connection:
            gone = await connection.execute(delete(table).where((table.c.person == person) & (table.c.role == role)))
            if gone.rowcount == 0:
                raise NotFoundError(f"the person {person} has not the role {role}")
