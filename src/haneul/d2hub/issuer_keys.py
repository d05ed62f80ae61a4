"""Public keys of issuers: asked for seldom, remembered for a while, however many tokens arrive.

Keys are good for ten minutes. A token that names a key which is not among them has the issuer asked again, as it may
have a new one, but not more than once in some seconds: anybody can make up names of keys. While an issuer does not
answer, the keys that it had are good for an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog
from joserfc.jwk import KeySet

from haneul.d2hub.caches import Lru
from haneul.d2hub.flights import Flights
from haneul.kernel.clock import Clock
from haneul.kernel.errors import UnavailableError

_log = structlog.get_logger(__name__)
_FRESH_SECONDS: Final = 600.0
_STALE_SECONDS: Final = 3600.0
_PAUSE_SECONDS: Final = 10.0
_MOST_ISSUERS: Final = 100


@dataclass(frozen=True)
class KeySource:
    """Where an issuer's keys are: in a file, at an address, or where its own discovery document says."""

    issuer: str
    jwks_url: str = ""
    jwks_file: Path | None = None
    authority: Path | None = None


class KeyFetcher(Protocol):
    """Gets keys from issuers."""

    async def fetch(self, source: KeySource) -> KeySet:
        """Return an issuer's public keys. Raises UnavailableError."""
        ...


@dataclass
class _Held:
    """What is known of an issuer; moments are the clock's seconds."""

    keys: KeySet | None = None
    fetched: float = 0.0
    asked: float = 0.0
    problem: str = ""


class IssuerKeys:
    """Remembers keys of issuers."""

    def __init__(self, fetcher: KeyFetcher, *, clock: Clock) -> None:
        self._fetcher, self._clock = fetcher, clock
        self._held: Lru[KeySource, _Held] = Lru(_MOST_ISSUERS)
        self._fetching: Flights[KeySource, _Held] = Flights()

    async def of(self, source: KeySource, kid: str | None) -> KeySet:
        """Return an issuer's keys, asked for again if none is called ``kid``. Raises UnavailableError."""
        held, now = self._held.get(source), self._clock.monotonic()
        known = held is not None and held.keys is not None and now < held.fetched + _FRESH_SECONDS
        if not (held is not None and known and _has(held, kid)) and (
            held is None or now >= held.asked + _PAUSE_SECONDS
        ):
            held = await self._fetching.join(source, lambda: self._fetch(source, held))
        if held is None or held.keys is None or self._clock.monotonic() >= held.fetched + _STALE_SECONDS:
            raise UnavailableError(
                f"the keys of {source.issuer} cannot be had now: {held.problem if held else ''}",
                hint="try again in a while",
            )
        return held.keys

    async def end(self) -> None:
        """Wait for no answer any more."""
        await self._fetching.end()

    async def _fetch(self, source: KeySource, before: _Held | None) -> _Held:
        asked = self._clock.monotonic()
        try:
            held = _Held(await self._fetcher.fetch(source), asked, asked)
        except UnavailableError as error:
            _log.warning("an issuer's keys cannot be had", issuer=source.issuer, why=error.detail)
            held = _Held(before.keys if before else None, before.fetched if before else 0.0, asked, error.detail)
        self._held.put(source, held)
        return held


def _has(held: _Held, kid: str | None) -> bool:
    return held.keys is not None and (kid is None or any(key.kid == kid for key in held.keys.keys))
