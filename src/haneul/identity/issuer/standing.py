"""Whether a person may be in at all, now: known, not disabled, not refused by the company's provider."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from haneul.identity import tables
from haneul.identity.issuer.tables import provider_links


class ProviderWord(Protocol):
    """What the company's sign-on provider says of people."""

    async def renew(self, person: str) -> None:
        """Ask the provider about a person if its last word is too old, and keep the answer."""
        ...


class NoProvider:
    """For platforms that have none."""

    async def renew(self, person: str) -> None:
        """Nobody is to be asked."""


async def stands(connection: AsyncConnection, person: str) -> bool:
    """Say whether a person may be in, as far as is known here."""
    people, links = tables.people, provider_links
    query = select(people.c.name).outerjoin(links, (links.c.person == people.c.name) & links.c.refused)
    query = query.where((people.c.name == person) & ~people.c.disabled & links.c.person.is_(None))
    return (await connection.execute(query)).first() is not None
