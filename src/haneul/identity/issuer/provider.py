"""Signing on by the word of the company's provider, and asking it again whether people are still there.

A person's link keeps the provider's refresh token, sealed. Whenever somebody is at work with anything of a linked
person (a session, a browser, a personal token) and the provider's last word is too old, it is asked again. When it
refuses, everything of the person ends and stays ended until they sign on there again. While it does not answer, people
stay for a limited time.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Final

import structlog
from sqlalchemy import RowMapping, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from haneul.identity import tables as people_tables
from haneul.identity.audit import AuditLog
from haneul.identity.guards import demand_person
from haneul.identity.issuer import tables
from haneul.identity.issuer.claims import Colleague, colleague
from haneul.identity.issuer.digests import digest
from haneul.identity.issuer.endings import end_everything
from haneul.identity.issuer.model import PROVIDER_PATIENCE
from haneul.identity.issuer.relying import ProviderSettings, relying_party
from haneul.identity.issuer.sealing import Sealer
from haneul.identity.issuer.standing import stands
from haneul.identity.model import Origin
from haneul.identity.rows import first_row
from haneul.kernel.clock import Clock
from haneul.kernel.database import aware, writing
from haneul.kernel.errors import ConflictError, HaneulError, UnauthenticatedError, UnavailableError
from haneul.kernel.openid import GrantRefusedError

_log = structlog.get_logger(__name__)
_REQUEST_LIFE: Final = timedelta(minutes=10)


class Provider:
    """The company's provider, for one platform."""

    def __init__(
        self,
        settings: ProviderSettings,
        engine: AsyncEngine,
        issuer: str,
        *,
        audit: AuditLog,
        sealer: Sealer,
        clock: Clock,
    ) -> None:
        self.settings = settings
        self._engine = engine
        self._audit = audit
        self._sealer = sealer
        self._clock = clock
        self._party = relying_party(settings, f"{issuer}/provider/callback", clock=clock)

    async def close(self) -> None:
        """Close the connections."""
        await self._party.close()

    async def start(self, page: str, query: str, browser: str) -> str:
        """Return where the browser that holds the cookie ``browser`` goes to sign on."""
        asked, now, table = await self._party.ask(), self._clock.now(), tables.provider_requests
        async with writing(self._engine) as connection:
            await connection.execute(delete(table).where(table.c.expires < now))
            row = {"hash": digest(asked.state), "browser": digest(browser), "nonce": asked.nonce}
            row |= {"verifier": asked.verifier, "page": page[:16], "query": query}
            await connection.execute(insert(table).values(**row, expires=now + _REQUEST_LIFE))
        return asked.url

    async def finish(self, answer: dict[str, str], browser: str, *, origin: Origin) -> tuple[str, str, str]:
        """Return who signed on, and the page and query that the browser started at. Raises UnauthenticatedError."""
        row = await self._take_request(answer.get("state", ""), browser)
        said = await self._party.redeem(answer, nonce=row["nonce"], verifier=row["verifier"])
        found = colleague(self.settings, said.claims or {})
        if not said.refresh_token:
            raise UnauthenticatedError(
                "the provider gave no refresh token, so nobody would notice when you leave",
                hint="the provider's administrator allows the scope offline_access for this platform",
            )
        person = await self._admit(found, self._sealer.seal(said.refresh_token), origin)
        return person, row["page"], row["query"]

    async def link(self, person: str, subject: str, *, origin: Origin) -> None:
        """Say who a person is at the provider, for people who are known here already."""
        async with self._audit.change(origin, "person.link", f"{person}={subject}") as connection:
            await demand_person(connection, person)
            other = await first_row(connection, tables.provider_links, issuer=self.settings.issuer, subject=subject)
            if other is not None and other["person"] != person:
                raise ConflictError(f"this subject is {other['person']} already", hint="unlink them first")
            await self._put_link(connection, person, subject, None)

    async def renew(self, person: str) -> None:
        """Ask about a person again if the last word is too old. Raises UnavailableError after too long a silence."""
        async with self._engine.connect() as connection:
            link = await first_row(connection, tables.provider_links, person=person)
        now = self._clock.now()
        if link is None or link["refused"] or link["sealed"] is None or now - aware(link["asked"]) < PROVIDER_PATIENCE:
            return
        # Of all processes one asks; the refresh token is good once.
        table = tables.provider_links
        one = (table.c.person == person) & (table.c.asked == link["asked"])
        async with writing(self._engine) as connection:
            if (await connection.execute(update(table).where(one).values(asked=now))).rowcount == 0:
                return
        try:
            said = await self._party.refresh(self._sealer.open(link["sealed"]))
            found = colleague(self.settings, said.claims) if said.claims is not None else None
        except (GrantRefusedError, UnauthenticatedError) as error:
            await self._refuse(person, str(error))
            return
        except HaneulError as error:
            _log.warning("the sign-on provider was not understood", person=person, detail=error.detail)
            if now - aware(link["confirmed"]) > timedelta(minutes=self.settings.outage_minutes):
                raise UnavailableError(
                    "the company's sign-on provider has not answered for too long", hint="try again in a while"
                ) from error
            return
        if found is not None and found.subject != link["subject"]:
            await self._refuse(person, "the provider spoke of somebody else")
            return
        async with writing(self._engine) as connection:
            values = {"confirmed": now, "sealed": self._sealer.seal(said.refresh_token)}
            await connection.execute(update(table).where(table.c.person == person).values(**values))
            if found is not None and found.groups is not None:
                await sync_groups(connection, person, found.groups)

    async def _take_request(self, state: str, browser: str) -> RowMapping:
        table = tables.provider_requests
        async with writing(self._engine) as connection:
            row = await first_row(connection, table, hash=digest(state))
            await connection.execute(delete(table).where(table.c.hash == digest(state)))
        if row is None or row["browser"] != digest(browser) or aware(row["expires"]) <= self._clock.now():
            raise UnauthenticatedError("this sign-on was not started in this browser, or long ago", hint="start again")
        return row

    async def _admit(self, found: Colleague, sealed: str, origin: Origin) -> str:
        """Return the person that the provider speaks of, who is made if they are new."""
        async with self._engine.connect() as connection:
            link = await first_row(
                connection, tables.provider_links, issuer=self.settings.issuer, subject=found.subject
            )
        person = found.name if link is None else str(link["person"])
        origin = origin.model_copy(update={"person": person})
        async with self._audit.change(origin, "provider.sign-on", f"{person}={found.subject}") as connection:
            if link is None:
                if await first_row(connection, people_tables.people, name=person) is not None:
                    raise ConflictError(
                        f"there is a person named {person} here who may be somebody else",
                        hint=f"an administrator links you: haneul person link {person} {found.subject}",
                    )
                await connection.execute(
                    insert(people_tables.people).values(
                        name=person,
                        display_name=found.display_name,
                        email=found.email,
                        disabled=False,
                        created=self._clock.now(),
                    )
                )
            await self._put_link(connection, person, found.subject, sealed)
            if not await stands(connection, person):
                raise UnauthenticatedError("you may not sign on here", hint="ask an administrator")
            await sync_groups(connection, person, found.groups or frozenset())
        return person

    async def _put_link(self, connection: AsyncConnection, person: str, subject: str, sealed: str | None) -> None:
        now, table = self._clock.now(), tables.provider_links
        await connection.execute(delete(table).where(table.c.person == person))
        row = {"person": person, "issuer": self.settings.issuer, "subject": subject, "sealed": sealed}
        await connection.execute(insert(table).values(**row, asked=now, confirmed=now, refused=False))

    async def _refuse(self, person: str, why: str) -> None:
        origin = Origin(person=person, source="provider")
        async with self._audit.change(origin, "provider.refuse", f"{person} {why}".strip()) as connection:
            table = tables.provider_links
            await connection.execute(update(table).where(table.c.person == person).values(refused=True, sealed=None))
            await end_everything(connection, person)


async def sync_groups(connection: AsyncConnection, person: str, said: Collection[str]) -> None:
    """Make a person be in just those of the provider's groups that it says; those kept here stay as they are."""
    groups, members = people_tables.groups, people_tables.group_members
    rows = await connection.execute(select(groups.c.name, groups.c.external).where(groups.c.external.is_not(None)))
    for name, external in rows.all():
        one = (members.c.group == name) & (members.c.person == person)
        await connection.execute(delete(members).where(one))
        if external in said:
            await connection.execute(insert(members).values(group=name, person=person))
