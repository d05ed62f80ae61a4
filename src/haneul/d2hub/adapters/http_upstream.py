"""An upstream by the OCI distribution specification, over HTTP.

Redirects, as registries answer for blobs with, are followed from HTTPS to HTTPS only, and what signs in to the upstream
is sent to the upstream alone (RFC 9110, section 15.4). They do not lead to this machine or its network's own addresses,
nor does the token service, unless the mirror's rules say so. Proxies of the environment are not used.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import aiohttp
from yarl import URL

from haneul.d2hub.adapters.upstream_addresses import UpstreamAddresses
from haneul.d2hub.adapters.upstream_sign_in import SignIn
from haneul.d2hub.digests import is_digest
from haneul.d2hub.errors import (
    BlobUnknownError,
    ManifestUnknownError,
    UpstreamError,
    UpstreamLimitedError,
    UpstreamRefusedError,
    UpstreamWrongError,
)
from haneul.d2hub.manifests import KNOWN
from haneul.d2hub.model import UpstreamBlob, UpstreamManifest
from haneul.d2hub.rules import MirrorRules
from haneul.kernel.clock import Clock
from haneul.kernel.errors import NotFoundError

_ACCEPT: Final = {"Accept": ", ".join(sorted(KNOWN))}
_SENT: Final = {"User-Agent": "haneul-d2hub", "Accept-Encoding": "identity"}
_CONNECT_SECONDS: Final = 5.0
_MOST_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PIECE: Final = 64 << 10
#: How long an upstream is left alone that refuses more requests and does not say for how long.
_LIMITED_SECONDS: Final = 60.0
#: How long after it could not be reached.
_AWAY_SECONDS: Final = 5.0
#: A small answer may come slowly, but for so many times the time of silence at most.
_SMALL_ANSWER_TIMES: Final = 4


@dataclass(frozen=True)
class _Question:
    """What is asked of an upstream; ``path`` is below the repository."""

    method: str
    repository: str
    path: str
    headers: Mapping[str, str]
    limit: aiohttp.ClientTimeout


class HttpUpstream:
    """One registry that is mirrored."""

    def __init__(self, rules: MirrorRules, *, clock: Clock) -> None:
        self._url = URL(rules.url)
        self._seconds = rules.timeout_seconds
        self._ca_file = rules.ca_file
        self._addresses = UpstreamAddresses(self._url, rules.local_hosts)
        self._sign_in = SignIn(self._url, self._addresses, rules.credentials_file, seconds=self._seconds, clock=clock)
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def tag(self, repository: str, tag: str, *, known: str = "") -> str:
        """Ask by HEAD, on the condition that it is another digest than ours."""
        headers = {**_ACCEPT, "If-None-Match": f'"{known}"'} if known else _ACCEPT
        question = _Question("HEAD", repository, f"manifests/{tag}", headers, self._short())
        async with self._answered(question) as response:
            if response.status == HTTPStatus.NOT_MODIFIED:
                return known
            return _digest(response)

    async def manifest(self, repository: str, reference: str, *, most: int) -> UpstreamManifest:
        """Get a manifest."""
        question = _Question("GET", repository, f"manifests/{reference}", _ACCEPT, self._short())
        async with self._answered(question) as response:
            content = bytearray()
            async for part in self._read(response):
                content += part
                if len(content) > most:
                    raise UpstreamWrongError(f"{repository}:{reference} has more than {most} bytes at {self._url}")
            return UpstreamManifest(bytes(content), response.headers.get("Content-Type", ""), _digest(response))

    @contextlib.asynccontextmanager
    async def blob(self, repository: str, digest: str, *, at: int = 0) -> AsyncIterator[UpstreamBlob]:
        """Get a blob, from a byte on if the upstream can; otherwise what comes before is passed over."""
        headers = {"Range": f"bytes={at}-"} if at else {}
        question = _Question("GET", repository, f"blobs/{digest}", headers, self._limit(None))
        async with self._answered(question) as response:
            length, parts = response.content_length, self._read(response)
            if response.status == HTTPStatus.PARTIAL_CONTENT:
                if not response.headers.get("Content-Range", "").startswith(f"bytes {at}-"):
                    raise UpstreamWrongError(f"{self._url} sent another part of {digest} than it was asked for")
                yield UpstreamBlob(None if length is None else at + length, parts)
            else:
                yield UpstreamBlob(length, _without(parts, at))

    async def close(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @contextlib.asynccontextmanager
    async def _answered(self, question: _Question) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield a good answer, signed in to and redirected as need be. Raises what the others are."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                response = await self._redirected(stack, question, await self._signed_in(stack, question))
            except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError) as error:
                raise self._broken_off(error) from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if isinstance(error, aiohttp.InvalidURL):
                    raise self._wrong_address() from error
                raise self._away(error) from error
            except ValueError as error:
                raise self._wrong_address() from error
            self._check(response, question)
            yield response

    async def _signed_in(self, stack: contextlib.AsyncExitStack, question: _Question) -> aiohttp.ClientResponse:
        url = self._url / "v2" / question.repository / question.path
        sent = self._sign_in.header(question.repository)
        for _ in range(2):
            response = await self._ask(stack, question, url, {"Authorization": sent} if sent else {})
            if response.status != HTTPStatus.UNAUTHORIZED:
                return response
            challenges = response.headers.getall("WWW-Authenticate", [])
            response.release()
            sent = await self._sign_in.answer(self._opened(), question.repository, challenges, sent=sent)
        raise self._refusal(question)

    async def _redirected(
        self, stack: contextlib.AsyncExitStack, question: _Question, response: aiohttp.ClientResponse
    ) -> aiohttp.ClientResponse:
        for _ in range(_MOST_REDIRECTS):
            if response.status not in _REDIRECTS:
                return response
            target = response.url.join(URL(response.headers.get("Location", "")))
            safe = target.scheme == "https" or (target.scheme == "http" and response.url.scheme == "http")
            if not safe or not target.host or target.user is not None:
                raise UpstreamWrongError(
                    f"{self._url} sends on to {target.scheme}://{target.host}, which is not asked",
                    hint="an upstream over https sends on to https only",
                )
            response.release()
            # Without what signs in to the upstream: the address says by itself that it may be read.
            response = await self._ask(stack, question, target, {})
        raise UpstreamWrongError(f"{self._url} sends on more than {_MOST_REDIRECTS} times")

    async def _ask(
        self, stack: contextlib.AsyncExitStack, question: _Question, url: URL, signed: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        self._addresses.check(url)
        headers = {**question.headers, **signed}
        request = self._opened().request(
            question.method, url, headers=headers, allow_redirects=False, timeout=question.limit
        )
        return await stack.enter_async_context(request)

    async def _read(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Yield a body. What breaks off is an UpstreamError that may pass, wherever the bytes are used."""
        try:
            async for part in response.content.iter_chunked(_PIECE):
                yield part
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._broken_off(error) from error

    def _check(self, response: aiohttp.ClientResponse, question: _Question) -> None:
        """Raise what a status says."""
        status, repository, path = response.status, question.repository, question.path
        if status in (200, 206, 304):
            return
        if status == HTTPStatus.NOT_FOUND:
            raise _unknown(path, f"{self._url} has no {path} of {repository}")
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise UpstreamLimitedError(
                f"{self._url} takes no more requests for now",
                hint="credentials of a paying account may let through more",
                rest=_retry_after(response, self._clock.now()) or _LIMITED_SECONDS,
            )
        if status in (401, 403):
            raise self._refusal(question)
        rest = _retry_after(response, self._clock.now()) if status == HTTPStatus.SERVICE_UNAVAILABLE else None
        raise UpstreamError(f"{self._url} answered {status} for {repository}", hint="pull again later", rest=rest)

    def _refusal(self, question: _Question) -> UpstreamRefusedError:
        return UpstreamRefusedError(
            f"{self._url} does not let this registry pull {question.repository}",
            hint="is the name right, and do the mirror's credentials allow it?",
        )

    def _broken_off(self, error: Exception) -> UpstreamError:
        return UpstreamError(f"{self._url} broke off its answer: {type(error).__name__}", hint="pull again")

    def _wrong_address(self) -> UpstreamWrongError:
        # Which address is not told: it may let who knows it read.
        return UpstreamWrongError(f"{self._url} sends on to an address that cannot be read")

    def _away(self, error: Exception) -> UpstreamError:
        words = "did not answer in time" if isinstance(error, TimeoutError) else f"cannot be reached ({error})"
        return UpstreamError(f"{self._url} {words}", hint="what is here is served on", rest=_AWAY_SECONDS)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            # How many are asked at once is limited by who asks.
            trust = self._trust() if self._url.scheme == "https" else True
            connector = aiohttp.TCPConnector(limit=0, ssl=trust, resolver=self._addresses)
            self._session = aiohttp.ClientSession(
                connector=connector, headers=_SENT, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    def _limit(self, total: float | None) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=total, sock_connect=_CONNECT_SECONDS, sock_read=self._seconds)

    def _short(self) -> aiohttp.ClientTimeout:
        """Bound the whole of an answer that is small."""
        return self._limit(self._seconds * _SMALL_ANSWER_TIMES)

    def _trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._ca_file is not None:
            try:
                context.load_verify_locations(self._ca_file)
            except OSError as error:
                raise UpstreamError(
                    f"the certificate authorities in {self._ca_file} cannot be read", hint="mend caFile"
                ) from error
        return context


def _digest(response: aiohttp.ClientResponse) -> str:
    text = response.headers.get("Docker-Content-Digest", "")
    return text if is_digest(text) else ""


async def _without(parts: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
    """Yield what comes after so many bytes."""
    async for part in parts:
        if count < len(part):
            yield part[count:] if count else part
        count = max(count - len(part), 0)


def _unknown(path: str, detail: str) -> NotFoundError:
    return BlobUnknownError(detail) if path.startswith("blobs/") else ManifestUnknownError(detail)


def _retry_after(response: aiohttp.ClientResponse, now: datetime) -> float | None:
    """Return the seconds that an answer says to wait (RFC 9110, section 10.2.3), or None."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return max((moment - now).total_seconds(), 0.0)
