"""A platform over its REST API: who holds a token, asked with that token itself.

So the hub has no credential of its own there, and learns of nobody who does not sign in to it.
"""

from __future__ import annotations

import asyncio
import ssl
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from haneul.d2hub.model import ProjectRole, Standing
from haneul.kernel.errors import InvalidInputError, UnavailableError
from haneul.kernel.hosts import is_loopback

_PATH: Final = "/api/v1/whoami/roles"
_TIMEOUT: Final = httpx2.Timeout(5.0, connect=3.0)
#: For the whole of an answer, however it drips.
_SECONDS: Final = 10.0
_LIMITS: Final = httpx2.Limits(max_connections=16, max_keepalive_connections=4)
_LARGEST_ANSWER: Final = 1 << 20
_AUDITOR: Final = "auditor"


class _Said(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class _Caller(_Said):
    person: str
    admin: bool
    platform_roles: list[str]


class _Answer(_Said):
    caller: _Caller
    roles: dict[str, ProjectRole]


class HttpPlatform:
    """One platform. ``transport`` replaces the network in tests."""

    def __init__(
        self, url: str, *, authority: Path | None = None, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        """Raise InvalidInputError if the address, or the authority's file, cannot be used."""
        self._url = parse_platform_url(url)
        self._client = httpx2.AsyncClient(
            base_url=self._url,
            verify=_trust(authority),
            timeout=_TIMEOUT,
            limits=_LIMITS,
            headers={"User-Agent": "haneul-d2hub"},
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    async def standing(self, secret: str) -> Standing | None:
        """Ask whose token this is."""
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            # No token has such characters, and no header may.
            return None
        try:
            async with (
                asyncio.timeout(_SECONDS),
                self._client.stream("GET", _PATH, headers={"Authorization": f"Bearer {secret}"}) as answer,
            ):
                if answer.status_code == HTTPStatus.UNAUTHORIZED:
                    return None
                if answer.status_code != HTTPStatus.OK:
                    raise self._away(f"answers {answer.status_code}")
                return _standing(await self._read(answer))
        except (httpx2.HTTPError, ssl.SSLError, TimeoutError) as error:
            raise self._away(f"does not answer: {type(error).__name__}") from error
        except ValidationError as error:
            raise self._away("answers something that is not understood") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _read(self, answer: httpx2.Response) -> bytes:
        parts, size = [], 0
        async for part in answer.aiter_bytes():
            size += len(part)
            if size > _LARGEST_ANSWER:
                raise self._away("answers too much")
            parts.append(part)
        return b"".join(parts)

    def _away(self, why: str) -> UnavailableError:
        return UnavailableError(
            f"nobody can sign in now: the platform at {self._url} {why}",
            hint="try again in a while; 'haneul status' on its host tells how it is",
        )


def parse_platform_url(text: str) -> str:
    """Return a platform's address. Raises InvalidInputError: tokens are not sent in the open."""
    try:
        parts = urlsplit(text)
        whole = bool(parts.hostname) and (parts.port or 1) > 0 and not parts.path.strip("/")
    except ValueError:
        whole = False
    if not whole or parts.query or parts.fragment or parts.username is not None:
        raise InvalidInputError(f"{text[:200]!r} is no address of a platform", hint="write https://HOST:PORT")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        raise InvalidInputError(f"{text[:200]!r} would show everybody's tokens", hint="write https://HOST:PORT")
    return f"{parts.scheme}://{parts.netloc}"


def _trust(authority: Path | None) -> ssl.SSLContext | bool:
    if authority is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(authority))
    except (OSError, ssl.SSLError) as error:
        raise InvalidInputError(
            f"{authority} holds no certificate that can be read", hint="name the platform's authority, in PEM"
        ) from error


def _standing(data: bytes) -> Standing:
    said = _Answer.model_validate_json(data)
    caller = said.caller
    return Standing(caller.person, caller.admin, _AUDITOR in caller.platform_roles, said.roles)
