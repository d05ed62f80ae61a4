"""Clients: the platform's own command line, and programs that administrators registered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from sqlalchemy import RowMapping, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from haneul.identity.audit import AuditLog
from haneul.identity.issuer import tables
from haneul.identity.issuer.digests import new_secret
from haneul.identity.issuer.model import CLI, ES256, RS256, Client, IssuedClient, OAuthError
from haneul.identity.issuer.requests import parse_redirect_uri
from haneul.identity.model import LONGEST_NAME, Origin
from haneul.identity.rows import all_rows
from haneul.identity.secrets import SecretHasher
from haneul.kernel.clock import Clock
from haneul.kernel.database import aware
from haneul.kernel.errors import ConflictError, InvalidInputError, NotFoundError
from haneul.kernel.names import parse_label


class Clients:
    """Clients in one database."""

    def __init__(self, engine: AsyncEngine, *, audit: AuditLog, hasher: SecretHasher, clock: Clock) -> None:
        self._engine = engine
        self._audit = audit
        self._hasher = hasher
        self._clock = clock

    async def create(
        self, identity: str, name: str, redirect_uris: Sequence[str], algorithm: str, *, origin: Origin
    ) -> IssuedClient:
        """Register a confidential client; its secret is in the answer and nowhere else."""
        parse_label(identity, what="client id", longest=LONGEST_NAME)
        uris = tuple(parse_redirect_uri(uri) for uri in redirect_uris)
        if not 1 <= len(uris) <= 10:
            raise InvalidInputError("a client has 1 to 10 addresses to send codes to")
        if algorithm not in (ES256, RS256):
            raise InvalidInputError(f"ID tokens are signed with {ES256} or {RS256}")
        if identity == CLI.id:
            raise ConflictError(f"{identity} is the platform's own client", hint="choose another id")
        now, secret = self._clock.now(), new_secret()
        hashed = await asyncio.to_thread(self._hasher.hash, secret)
        client = Client(id=identity, name=name or identity, redirect_uris=uris, algorithm=algorithm, created=now)
        row = {"id": identity, "name": client.name, "hash": hashed, "redirect_uris": json.dumps(uris)}
        row |= {"algorithm": algorithm}
        try:
            async with self._audit.change(origin, "client.create", identity) as connection:
                await connection.execute(insert(tables.clients).values(**row, created=now))
        except IntegrityError as error:
            raise ConflictError(f"there is a client {identity} already", hint="choose another id") from error
        return IssuedClient(client=client, secret=secret)

    async def list(self) -> Sequence[Client]:
        """Return the registered clients."""
        return [_client(row) for row in await all_rows(self._engine, select(tables.clients).order_by("id"))]

    async def delete(self, identity: str, *, origin: Origin) -> None:
        """Remove a client; its sessions end with it, so that a later client of the id inherits none."""
        async with self._audit.change(origin, "client.delete", identity) as connection:
            result = await connection.execute(delete(tables.clients).where(tables.clients.c.id == identity))
            if result.rowcount == 0:
                raise NotFoundError(f"there is no client {identity}", hint="'haneul client list' shows them")
            sessions, codes = tables.sessions, tables.codes
            await connection.execute(update(sessions).where(sessions.c.client == identity).values(ended=True))
            await connection.execute(delete(codes).where((codes.c.client == identity) & codes.c.session.is_(None)))

    async def find(self, identity: str) -> Client | None:
        """Return a client."""
        if identity == CLI.id:
            return CLI
        rows = await all_rows(self._engine, select(tables.clients).where(tables.clients.c.id == identity))
        return _client(rows[0]) if rows else None

    async def authenticate(self, identity: str, secret: str) -> Client:
        """Return who asks: a public client by its id, a confidential one by its secret. Raises OAuthError."""
        if identity == CLI.id and not secret:
            return CLI
        rows = await all_rows(self._engine, select(tables.clients).where(tables.clients.c.id == identity))
        matches = await asyncio.to_thread(self._hasher.matches, rows[0]["hash"] if rows else None, secret)
        if not rows or not matches:
            raise OAuthError("invalid_client", "the client is unknown, or its secret is wrong")
        return _client(rows[0])


def _client(row: RowMapping) -> Client:
    return Client(
        id=row["id"],
        name=row["name"],
        redirect_uris=tuple(json.loads(row["redirect_uris"])),
        algorithm=row["algorithm"],
        created=aware(row["created"]),
    )
