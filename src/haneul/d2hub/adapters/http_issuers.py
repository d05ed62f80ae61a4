"""Public keys of issuers, from their addresses or from files (OpenID Connect Discovery 1.0, section 4; RFC 7517)."""

from __future__ import annotations

import asyncio
import json
import ssl
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from haneul.d2hub.issuer_keys import KeySource
from haneul.kernel.errors import UnavailableError
from haneul.kernel.hosts import is_loopback

_TIMEOUT: Final = httpx2.Timeout(5.0, connect=3.0)
#: For discovery and keys together, however they drip.
_SECONDS: Final = 10.0
_LARGEST_ANSWER: Final = 256 << 10
_MOST_KEYS: Final = 100
#: Kinds of keys that have a public half.
_PUBLIC: Final = frozenset({"RSA", "EC", "OKP"})


class HttpIssuers:
    """Asks issuers. ``transport`` replaces the network in tests."""

    def __init__(self, *, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._transport = transport

    async def fetch(self, source: KeySource) -> KeySet:
        """Read a file, or ask an address; without either look up where the issuer has its keys."""
        if source.jwks_file is not None:
            return _keys(_of_file(source))
        try:
            async with asyncio.timeout(_SECONDS), self._client(source) as client:
                url = source.jwks_url or await self._discovered(client, source)
                return _keys(await _document(client, url))
        except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError, OSError) as error:
            raise UnavailableError(f"{source.issuer} does not answer: {type(error).__name__}") from error

    def _client(self, source: KeySource) -> httpx2.AsyncClient:
        verify = ssl.create_default_context(cafile=str(source.authority)) if source.authority else True
        return httpx2.AsyncClient(
            verify=verify, timeout=_TIMEOUT, follow_redirects=False, trust_env=False, transport=self._transport
        )

    async def _discovered(self, client: httpx2.AsyncClient, source: KeySource) -> str:
        """Return where an issuer's keys are. It has to be its own host: the rest whoever runs the hub names."""
        found = await _document(client, f"{source.issuer.rstrip('/')}/.well-known/openid-configuration")
        url = found.get("jwks_uri")
        if found.get("issuer") != source.issuer or not isinstance(url, str):
            raise UnavailableError(f"{source.issuer} does not describe itself as an issuer")
        if not is_safe(url) or urlsplit(url).hostname != urlsplit(source.issuer).hostname:
            raise UnavailableError(
                f"{source.issuer} has its keys at {url[:200]!r}, which is not its own host", hint="name it with jwksUrl"
            )
        return url


def is_safe(url: str) -> bool:
    """Say whether nobody in between can change what comes from an address."""
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and (parts.port or 1) > 0 and parts.username is None
    except ValueError:
        return False
    return whole and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")))


async def _document(client: httpx2.AsyncClient, url: str) -> dict[str, Any]:
    async with client.stream("GET", url, headers={"Accept": "application/json"}) as answer:
        if answer.status_code != HTTPStatus.OK:
            raise UnavailableError(f"{url} answers {answer.status_code}")
        data = b""
        async for part in answer.aiter_bytes():
            data += part
            if len(data) > _LARGEST_ANSWER:
                raise UnavailableError(f"{url} answers too much")
    return _object(data, url)


def _of_file(source: KeySource) -> dict[str, Any]:
    try:
        with open(str(source.jwks_file), "rb") as file:  # noqa: PTH123 - a bounded part of it
            data = file.read(_LARGEST_ANSWER)
    except OSError as error:
        raise UnavailableError(f"{source.jwks_file} cannot be read: {error.strerror}") from error
    return _object(data, str(source.jwks_file))


def _object(data: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnavailableError(f"{where} has no JSON") from error
    if not isinstance(found, dict):
        raise UnavailableError(f"{where} has no JSON object")
    return found


def _keys(document: dict[str, Any]) -> KeySet:
    """Return the keys that signatures are checked with; others are left out."""
    said = document.get("keys")
    found = [key for key in said if isinstance(key, dict)] if isinstance(said, list) else []
    public = [key for key in found if key.get("kty") in _PUBLIC and key.get("use", "sig") == "sig"][:_MOST_KEYS]
    try:
        return KeySet.import_key_set({"keys": public})
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise UnavailableError("there is no key that can be read") from error
