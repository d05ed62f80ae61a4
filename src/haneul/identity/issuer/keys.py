"""The issuer's keys: in the database, sealed, made and forgotten by plan; all API processes use the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from joserfc.jwk import ECKey, KeySet, RSAKey
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from haneul.identity.audit import AuditLog
from haneul.identity.issuer import tables
from haneul.identity.issuer.key_plan import KeyPlan, KeyTimes, plan_keys
from haneul.identity.issuer.model import ES256
from haneul.identity.issuer.sealing import Sealer
from haneul.identity.model import Origin
from haneul.kernel.clock import Clock
from haneul.kernel.database import aware
from haneul.kernel.errors import UnavailableError

_READ_EVERY: Final = 30.0
_READ_FOR_UNKNOWN_EVERY: Final = 2.0
_PLATFORM: Final = Origin(person="platform", source="issuer")


class _NothingToDoError(Exception):
    """Another process was faster."""


@dataclass(frozen=True)
class _Known:
    kid: str
    algorithm: str
    active_from: datetime
    key: ECKey | RSAKey


class KeyRing:
    """The keys of each algorithm in use. ES256 always is; RS256 from its first use on."""

    def __init__(self, engine: AsyncEngine, *, audit: AuditLog, sealer: Sealer, clock: Clock) -> None:
        self._engine = engine
        self._audit = audit
        self._sealer = sealer
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._read: float | None = None

    async def signing(self, algorithm: str) -> ECKey | RSAKey:
        """Return the key that signs now."""
        await self._look({algorithm})
        plan = self._plan(algorithm)
        if plan.signing is None:
            raise UnavailableError("there is no signing key yet", hint="try again")
        return self._known[plan.signing].key

    async def published(self) -> dict[str, Any]:
        """Return the public keys as a JWK set (RFC 7517): those that sign, signed, or will sign."""
        await self._look({ES256})
        keys = [
            {**dict(known.key.as_dict(private=False)), "use": "sig", "alg": known.algorithm}
            for known in sorted(self._known.values(), key=lambda known: known.active_from)
        ]
        return {"keys": keys}

    async def verifying(self, kid: str) -> KeySet:
        """Return the keys to verify with; the database is asked anew where none has this id."""
        await self._look({ES256})
        if kid not in self._known and self._age() > _READ_FOR_UNKNOWN_EVERY:
            await self._read_all()
        return KeySet([known.key for known in self._known.values()])

    async def _look(self, algorithms: set[str]) -> None:
        if self._age() > _READ_EVERY:
            await self._read_all()
        for algorithm in sorted(algorithms | {known.algorithm for known in self._known.values()}):
            plan = self._plan(algorithm)
            if plan.make or plan.drop:
                await self._carry_out(algorithm)

    def _age(self) -> float:
        return float("inf") if self._read is None else self._clock.monotonic() - self._read

    def _plan(self, algorithm: str) -> KeyPlan:
        return plan_keys(
            [KeyTimes(known.kid, known.active_from) for known in self._known.values() if known.algorithm == algorithm],
            self._clock.now(),
        )

    async def _read_all(self) -> None:
        async with self._engine.connect() as connection:
            self._known = await self._rows(connection)
        self._read = self._clock.monotonic()

    async def _rows(self, connection: AsyncConnection) -> dict[str, _Known]:
        found = {}
        for row in (await connection.execute(select(tables.signing_keys))).mappings():
            if (known := self._known.get(row["kid"])) is None:
                secret = json.loads(self._sealer.open(row["sealed"]))
                key = ECKey.import_key(secret) if row["algorithm"] == ES256 else RSAKey.import_key(secret)
                known = _Known(row["kid"], row["algorithm"], aware(row["active_from"]), key)
            found[known.kid] = known
        return found

    async def _carry_out(self, algorithm: str) -> None:
        """Make and forget keys. Processes wait for each other, and the second finds nothing left to do."""
        key = ECKey.generate_key("P-256", auto_kid=True) if algorithm == ES256 else RSAKey.generate_key(auto_kid=True)
        try:
            async with self._audit.change(_PLATFORM, "signing-keys.rotate", algorithm) as connection:
                self._known = await self._rows(connection)
                plan = self._plan(algorithm)
                if not plan.make and not plan.drop:
                    raise _NothingToDoError
                if plan.make is not None:
                    sealed = self._sealer.seal(json.dumps(key.as_dict(private=True)))
                    row = {"kid": key.kid, "algorithm": algorithm, "sealed": sealed, "active_from": plan.make}
                    await connection.execute(insert(tables.signing_keys).values(**row))
                for kid in plan.drop:
                    await connection.execute(delete(tables.signing_keys).where(tables.signing_keys.c.kid == kid))
        except _NothingToDoError:
            pass
        await self._read_all()
