"""The issuer, put together of its parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from haneul.identity import tables
from haneul.identity.audit import AuditLog
from haneul.identity.issuer.clients import Clients
from haneul.identity.issuer.devices import Devices
from haneul.identity.issuer.keys import KeyRing
from haneul.identity.issuer.limits import Attempts
from haneul.identity.issuer.provider import Provider
from haneul.identity.issuer.relying import ProviderSettings
from haneul.identity.issuer.sealing import Sealer
from haneul.identity.issuer.sessions import Sessions
from haneul.identity.issuer.sign_ons import SignOns
from haneul.identity.issuer.standing import NoProvider
from haneul.identity.issuer.tokens import Tokens
from haneul.identity.memberships import memberships
from haneul.identity.model import Caller, Person
from haneul.identity.secrets import SecretHasher
from haneul.kernel.clock import Clock
from haneul.kernel.database import aware
from haneul.kernel.errors import NotFoundError


@dataclass(frozen=True)
class IssuerSettings:
    """Where people reach the platform, the file that seals its keys, and the company's provider, if there is one.

    ``origin`` is a URL without a path, such as ``https://cloud.example.com:7443``.
    """

    origin: str
    key_file: Path
    provider: ProviderSettings | None = None


class Issuer:
    """Everything that signs people on and gives programs tokens."""

    def __init__(
        self, settings: IssuerSettings, engine: AsyncEngine, *, audit: AuditLog, hasher: SecretHasher, clock: Clock
    ) -> None:
        self.origin = settings.origin
        self.url = f"{settings.origin}/oidc"
        sealer = Sealer.from_file(settings.key_file)
        self.provider = (
            Provider(settings.provider, engine, self.url, audit=audit, sealer=sealer, clock=clock)
            if settings.provider is not None
            else None
        )
        word = self.provider or NoProvider()
        self.attempts = Attempts(engine, clock=clock)
        self.ring = KeyRing(engine, audit=audit, sealer=sealer, clock=clock)
        self.tokens = Tokens(self.url, api=f"{settings.origin}/api/v1", ring=self.ring, clock=clock)
        self.clients = Clients(engine, audit=audit, hasher=hasher, clock=clock)
        self.sessions = Sessions(engine, audit=audit, word=word, clock=clock)
        self.devices = Devices(engine, self.sessions, audit=audit, clock=clock)
        self.sign_ons = SignOns(engine, audit=audit, hasher=hasher, attempts=self.attempts, word=word, clock=clock)
        self.clock = clock
        self._engine = engine
        self._word = word

    async def caller(self, token: str) -> Caller:
        """Return who is behind an access token. Raises UnauthenticatedError."""
        claims = await self.tokens.verify_access(token)
        return await self.sessions.caller(claims["sub"], claims["sid"])

    async def renew(self, person: str) -> None:
        """Have the company's provider asked about a person, if its word is too old."""
        await self._word.renew(person)

    async def person(self, name: str) -> Person:
        """Return a person."""
        async with self._engine.connect() as connection:
            found = await connection.execute(select(tables.people).where(tables.people.c.name == name))
            row = found.mappings().first()
        if row is None:
            raise NotFoundError(f"there is no person named {name}")
        return Person(**{**row, "created": aware(row["created"])})

    async def projects(self, caller: Caller) -> tuple[str, ...]:
        """Return the projects that somebody has a role in."""
        return await memberships(self._engine, caller)

    async def close(self) -> None:
        """Let go of connections."""
        if self.provider is not None:
            await self.provider.close()
