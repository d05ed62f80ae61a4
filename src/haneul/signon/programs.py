"""Programs, which bring a token with each request (RFC 6750): one of a provider, or one made on the platform.

What a token was found to be is remembered for a short while, good or bad, by its SHA-256. Tokens of anybody else are
none of the gate's business: an app behind it may have its own.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from haneul.kernel.clock import Clock
from haneul.kernel.errors import UnauthenticatedError
from haneul.signon.claims import who_of
from haneul.signon.model import Who
from haneul.signon.ports import Provider, TokenHolders
from haneul.signon.settings import ProviderSettings

#: How tokens begin that were made on the platform.
_PLATFORM: Final = "haneul_"
_GOOD_SECONDS: Final = 30.0
_BAD_SECONDS: Final = 5.0
_MOST: Final = 5_000
_LONGEST: Final = 8192
#: The platform takes its time for each of its tokens, on purpose; so many at once may be asked for.
_AT_ONCE: Final = 4


class Programs:
    """Says who is behind a token."""

    def __init__(
        self,
        providers: Mapping[str, tuple[ProviderSettings, Provider]],
        holders: TokenHolders | None,
        *,
        clock: Clock,
    ) -> None:
        self._issuers = {
            settings.issuer: (settings, provider) for settings, provider in providers.values() if settings.audiences
        }
        self._holders = holders
        self._clock = clock
        self._found: OrderedDict[bytes, tuple[float, Who | None]] = OrderedDict()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def concerns(self, token: str) -> bool:
        """Say whether a token is one that the gate judges; one that it judges never reaches an app."""
        return token.startswith(_PLATFORM) or _issuer(token) in self._issuers

    async def who(self, token: str) -> Who:
        """Return who is behind a token that concerns the gate. Raises UnauthenticatedError and UnavailableError."""
        if len(token) > _LONGEST:
            raise _bad()
        key, now = hashlib.sha256(token.encode()).digest(), self._clock.monotonic()
        until, found = self._found.get(key, (0.0, None))
        if now < until:
            if found is None:
                raise _bad()
            return found
        try:
            who = await self._asked(token)
        except UnauthenticatedError:
            self._keep(key, now + _BAD_SECONDS, None)
            raise
        self._keep(key, now + _GOOD_SECONDS, who)
        return who

    async def _asked(self, token: str) -> Who:
        if token.startswith(_PLATFORM):
            if self._holders is None:
                raise UnauthenticatedError(
                    "tokens of the platform are not taken here", hint="whoever runs this gate tells it of the platform"
                )
            async with self._turns:
                return await self._holders.holder(token)
        settings, provider = self._issuers[_issuer(token)]
        return who_of(settings, await provider.verified(token, settings.audiences))

    def _keep(self, key: bytes, until: float, who: Who | None) -> None:
        self._found[key] = until, who
        while len(self._found) > _MOST:
            self._found.popitem(last=False)


def _issuer(token: str) -> str:
    """Return who a token says that it is of (RFC 7519, section 4.1.1); nothing is believed yet."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _LONGEST:
        return ""
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return ""
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    return issuer if isinstance(issuer, str) else ""


def _bad() -> UnauthenticatedError:
    return UnauthenticatedError("the token is not good here", hint="make a new one: haneul token create")
