"""Tokens that people and robots have from the platform: its API says whose they are."""

from __future__ import annotations

import ssl
from typing import Any, Final

import httpx2

from haneul.kernel.errors import UnauthenticatedError, UnavailableError
from haneul.signon.model import Who
from haneul.signon.settings import PlatformSettings

_PROVIDER: Final = "platform"


class PlatformTokens:
    """Asks the platform."""

    def __init__(self, settings: PlatformSettings) -> None:
        authority = settings.authority_file
        self._prefix = settings.prefix
        self._http = httpx2.AsyncClient(
            base_url=settings.url,
            timeout=settings.patience_seconds,
            verify=ssl.create_default_context(cafile=str(authority)) if authority else True,
            follow_redirects=False,
        )

    async def holder(self, token: str) -> Who:
        """Return who holds a token. Raises UnauthenticatedError and UnavailableError."""
        if not (token.isascii() and token.isprintable()):
            raise UnauthenticatedError("the token is none of the platform's")
        try:
            answer = await self._http.get("/api/v1/whoami", headers={"Authorization": f"Bearer {token}"})
        except httpx2.HTTPError as error:
            raise UnavailableError(f"the platform does not answer: {error}", hint="try again in a while") from error
        if answer.status_code in (401, 403):
            raise UnauthenticatedError(
                "the platform does not know the token, or it has ended", hint="make a new one: haneul token create"
            )
        try:
            caller = answer.json()
            if answer.status_code != 200:
                raise ValueError(answer.status_code)
            return self._who(caller)
        except (ValueError, KeyError, TypeError) as error:
            raise UnavailableError(
                f"the platform answered {answer.status_code}, and not who it is", hint="try again in a while"
            ) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _who(self, caller: Any) -> Who:
        name = str(caller["person"])
        groups, projects = (
            tuple(f"{self._prefix}{entry}" for entry in caller[field]) for field in ("groups", "projects")
        )
        return Who(_PROVIDER, name, f"{self._prefix}{name}", groups=groups, projects=projects)
