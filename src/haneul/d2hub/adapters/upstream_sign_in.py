"""Signing in to upstreams: Basic authentication, and Docker's token flow (distribution documentation, "Token").

Secrets go to the upstream itself by Basic, or to the token service that it names: over TLS, unless the upstream itself
is reached without. A token is used until shortly before its end, for one repository.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from yarl import URL

from haneul.d2hub.adapters.upstream_addresses import UpstreamAddresses
from haneul.d2hub.caches import Lru
from haneul.d2hub.errors import UpstreamError, UpstreamLimitedError, UpstreamRefusedError, UpstreamWrongError
from haneul.kernel.clock import Clock
from haneul.kernel.files import NotPrivateError, read_private

_PARAMETER: Final = re.compile(r'([a-zA-Z_]+)="([^"]*)"')
_LARGEST_ANSWER: Final = 1 << 20
#: How long a token is good if its service does not say (distribution documentation, "Token response").
_LIFE: Final = 60.0
_MARGIN: Final = 10.0
_REMEMBERED: Final = 1000


@dataclass(frozen=True)
class _Authorization:
    header: str
    until: float


class SignIn:
    """Knows what to send with requests to one upstream."""

    def __init__(
        self, url: URL, addresses: UpstreamAddresses, credentials: Path | None, *, seconds: float, clock: Clock
    ) -> None:
        self._url, self._addresses, self._credentials = url, addresses, credentials
        self._seconds, self._clock = seconds, clock
        self._known: Lru[str, _Authorization] = Lru(_REMEMBERED)
        self._turn = asyncio.Lock()

    def header(self, repository: str) -> str:
        """Return the header ``Authorization`` for a repository, or nothing."""
        known = self._known.get(repository)
        return known.header if known is not None and self._clock.monotonic() < known.until else ""

    async def answer(
        self, session: aiohttp.ClientSession, repository: str, challenges: Sequence[str], *, sent: str
    ) -> str:
        """Return the header that a challenge asks for; ``sent`` is the one that was not enough.

        Raises UpstreamRefusedError if there is no such, UpstreamError.
        """
        async with self._turn:
            known = self.header(repository)
            if known and known != sent:
                # Somebody else was challenged at the same time.
                return known
            made = await self._made(session, repository, challenges)
            self._known.put(repository, made)
            return made.header

    async def _made(self, session: aiohttp.ClientSession, repository: str, challenges: Sequence[str]) -> _Authorization:
        basic = self._basic()
        for challenge in challenges:
            kind, _, rest = challenge.strip().partition(" ")
            if kind.lower() == "bearer":
                said = {key.lower(): value for key, value in _PARAMETER.findall(rest)}
                return await self._token(session, repository, said, basic)
        if basic and any(challenge.lower().startswith("basic") for challenge in challenges):
            return _Authorization(basic, float("inf"))
        raise _refused(self._url, "it asks for credentials, and there are none for it")

    async def _token(
        self, session: aiohttp.ClientSession, repository: str, said: dict[str, str], basic: str
    ) -> _Authorization:
        realm = self._realm(said.get("realm", ""))
        self._addresses.check(realm)
        query = {"service": said.get("service", ""), "scope": said.get("scope") or f"repository:{repository}:pull"}
        limit = aiohttp.ClientTimeout(total=self._seconds)
        async with session.get(
            realm.update_query(query),
            headers={"Authorization": basic} if basic else {},
            timeout=limit,
            allow_redirects=False,
        ) as response:
            if response.status in (400, 401, 403):
                raise _refused(self._url, f"its token service answered {response.status}")
            if response.status == 429:
                raise UpstreamLimitedError(f"the token service of {self._url} takes no more requests", rest=_LIFE)
            if response.status != 200:
                raise UpstreamError(f"the token service of {self._url} answered {response.status}")
            answer: Any = await _document(response)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise UpstreamWrongError(f"the token service of {self._url} sent no token")
        life = answer.get("expires_in")
        seconds = float(life) if isinstance(life, int) and life > 0 else _LIFE
        return _Authorization(f"Bearer {token}", self._clock.monotonic() + max(seconds - _MARGIN, 1.0))

    def _realm(self, text: str) -> URL:
        try:
            realm = URL(text)
        except ValueError:
            realm = URL()
        safe = realm.scheme == "https" or (realm.scheme == "http" and self._url.scheme == "http")
        if not safe or not realm.host or realm.user is not None:
            raise UpstreamWrongError(
                f"{self._url} names {text[:200]!r} as its token service, which is not asked",
                hint="a token service is reached over https",
            )
        return realm

    def _basic(self) -> str:
        """Return the header for name and secret, read anew each time: they may change while the registry runs."""
        file = self._credentials
        if file is None:
            return ""
        try:
            name, colon, secret = read_private(file).strip().partition(":")
        except NotPrivateError as error:
            why = f"others may read {file}, so it is not used"
            raise _refused(self._url, why, hint=f"chmod 600 {file}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise _refused(self._url, f"{file} cannot be read: {type(error).__name__}") from error
        if not colon:
            raise _refused(self._url, f"{file} is not of the form NAME:SECRET")
        return aiohttp.encode_basic_auth(name, secret)


async def _document(response: aiohttp.ClientResponse) -> dict[str, Any]:
    length = response.content_length
    if length is not None and length > _LARGEST_ANSWER:
        raise UpstreamWrongError("the answer of a token service is too large")
    try:
        answer = await response.json(content_type=None)
    except ValueError as error:
        raise UpstreamWrongError("the answer of a token service is no JSON") from error
    if not isinstance(answer, dict):
        raise UpstreamWrongError("the answer of a token service is no JSON object")
    return answer


def _refused(url: URL, why: str, *, hint: str = "") -> UpstreamRefusedError:
    return UpstreamRefusedError(f"{url} does not let this registry pull: {why}", hint=hint or "mend credentialsFile")
