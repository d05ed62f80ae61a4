"""Signing on in a browser: by a personal secret, of which an administrator makes the first, or by the provider's word.

A browser that signed on carries a cookie; the database keeps its digest and whose it is.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from sqlalchemy import RowMapping, delete, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from haneul.identity.audit import AuditLog
from haneul.identity.guards import demand_person
from haneul.identity.issuer import tables
from haneul.identity.issuer.digests import digest, new_secret
from haneul.identity.issuer.limits import Attempts
from haneul.identity.issuer.model import ONE_TIME_SECRET_LIFE, SIGN_ON_LIFE, OneTimeSecret, SignOn
from haneul.identity.issuer.standing import ProviderWord, stands
from haneul.identity.model import Origin
from haneul.identity.rows import first_row
from haneul.identity.secrets import SecretHasher
from haneul.kernel.clock import Clock
from haneul.kernel.database import aware
from haneul.kernel.errors import InvalidInputError, NotFoundError, UnauthenticatedError

SHORTEST_SECRET: Final = 12
LONGEST_SECRET: Final = 200


class SignOns:
    """Secrets and signed-on browsers, in one database."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        audit: AuditLog,
        hasher: SecretHasher,
        attempts: Attempts,
        word: ProviderWord,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._audit = audit
        self._hasher = hasher
        self._attempts = attempts
        self._word = word
        self._clock = clock

    async def make_secret(self, person: str, *, origin: Origin) -> OneTimeSecret:
        """Give a person a secret for one use, in the place of any they had; their browsers are signed off."""
        secret = OneTimeSecret(secret=secrets.token_urlsafe(12), expires=self._clock.now() + ONE_TIME_SECRET_LIFE)
        hashed = await asyncio.to_thread(self._hasher.hash, secret.secret)
        async with self._audit.change(origin, "sign-on-secret.create", person) as connection:
            await demand_person(connection, person)
            await self._put(connection, person, hashed, secret)
        return secret

    async def remove_secret(self, person: str, *, origin: Origin) -> None:
        """Take a person's secret away: they sign on no more, but by the company's provider."""
        async with self._audit.change(origin, "sign-on-secret.delete", person) as connection:
            table = tables.sign_on_secrets
            if (await connection.execute(delete(table).where(table.c.person == person))).rowcount == 0:
                raise NotFoundError(f"{person} has no sign-on secret")

    async def check(self, person: str, secret: str, *, origin: Origin) -> bool:
        """Say whether the secret is a person's own; False if it was made for them and is to be changed first.

        Raises UnauthenticatedError, for every cause the same, and TooManyAttemptsError.
        """
        return (await self._checked(person, secret, origin))["expires"] is None

    async def change_secret(self, person: str, old: str, new: str, *, origin: Origin) -> None:
        """Let a person choose their secret. Raises InvalidInputError for one that is easily guessed."""
        checked = await self._checked(person, old, origin)
        if not SHORTEST_SECRET <= len(new) <= LONGEST_SECRET:
            raise InvalidInputError(f"a secret has {SHORTEST_SECRET} to {LONGEST_SECRET} characters")
        if new == old or person in new.lower() or len(set(new)) < 5:
            raise InvalidInputError(
                "the new secret is too easy to guess", hint="several words that you make up do well"
            )
        hashed = await asyncio.to_thread(self._hasher.hash, new)
        origin = origin.model_copy(update={"person": person})
        async with self._audit.change(origin, "sign-on-secret.change", person) as connection:
            # Hashing takes a while: meanwhile it may have been used, replaced or taken away.
            row = await first_row(connection, tables.sign_on_secrets, person=person)
            if row is None or row["hash"] != checked["hash"]:
                raise _wrong()
            await self._put(connection, person, hashed, None)

    async def begin(self, person: str, *, how: str, origin: Origin) -> str:
        """Return a cookie for a browser in which a person has just signed on."""
        cookie, now, table = new_secret(), self._clock.now(), tables.sign_ons
        origin = origin.model_copy(update={"person": person})
        async with self._audit.change(origin, "browser.sign-on", how) as connection:
            if not await stands(connection, person):
                raise UnauthenticatedError("you may not sign on here", hint="ask an administrator")
            await connection.execute(delete(table).where(table.c.expires < now))
            row = {"hash": digest(cookie), "person": person, "auth_time": now, "expires": now + SIGN_ON_LIFE}
            await connection.execute(insert(table).values(**row))
        return cookie

    async def find(self, cookie: str) -> SignOn | None:
        """Return who is signed on in a browser, if anybody is."""
        if not cookie:
            return None
        async with self._engine.connect() as connection:
            row = await first_row(connection, tables.sign_ons, hash=digest(cookie))
        if row is None or aware(row["expires"]) <= self._clock.now():
            return None
        await self._word.renew(row["person"])
        async with self._engine.connect() as connection:
            there = await first_row(connection, tables.sign_ons, hash=digest(cookie))
            if there is None or not await stands(connection, row["person"]):
                return None
        return SignOn(person=row["person"], auth_time=aware(row["auth_time"]))

    async def end(self, cookie: str, sign_on: SignOn, *, origin: Origin) -> None:
        """Sign a browser off."""
        origin = origin.model_copy(update={"person": sign_on.person})
        async with self._audit.change(origin, "browser.sign-off", sign_on.person) as connection:
            await connection.execute(delete(tables.sign_ons).where(tables.sign_ons.c.hash == digest(cookie)))

    async def _checked(self, person: str, secret: str, origin: Origin) -> RowMapping:
        keys = {"pair": f"{person} {origin.source}", "address": origin.source, "name": person}
        await self._attempts.begin(keys)
        async with self._engine.connect() as connection:
            row = await first_row(connection, tables.sign_on_secrets, person=person)
            known = row is not None and await stands(connection, person)
        hashed = row["hash"] if row is not None else None
        matches = len(secret) <= LONGEST_SECRET and await asyncio.to_thread(self._hasher.matches, hashed, secret)
        if not known or row is None or not matches or self._expired(row):
            if row is not None:
                origin = origin.model_copy(update={"person": person})
                await self._audit.record(origin, "browser.sign-on", person, result="refused: unauthenticated")
            raise _wrong()
        await self._attempts.succeed(keys)
        return row

    async def _put(self, connection: AsyncConnection, person: str, hashed: str, made: OneTimeSecret | None) -> None:
        table = tables.sign_on_secrets
        await connection.execute(delete(table).where(table.c.person == person))
        await connection.execute(insert(table).values(person=person, hash=hashed, expires=made and made.expires))
        await connection.execute(delete(tables.sign_ons).where(tables.sign_ons.c.person == person))

    def _expired(self, row: RowMapping) -> bool:
        return row["expires"] is not None and aware(row["expires"]) <= self._clock.now()


def _wrong() -> UnauthenticatedError:
    return UnauthenticatedError("name or secret is wrong", hint="an administrator can make you a new secret")
