"""Kage's proxy over HTTP, as its owner: health, and buckets by Swift's own API (a bucket is a container)."""

from __future__ import annotations

from typing import Final

import httpx2

from haneul.kage.model import ACCOUNT, USER, KageSettings, Part, Secrets
from haneul.kernel.errors import UnavailableError
from haneul.kernel.listening import listens

_SECONDS: Final = 15.0


class SwiftHttp:
    """The API of one store."""

    def __init__(self, settings: KageSettings) -> None:
        self._settings = settings

    async def answers(self) -> bool:
        """Ask the proxy's health."""
        async with self._client() as http:
            try:
                return (await http.get("/healthcheck")).status_code == 200
            except httpx2.TransportError:
                return False

    async def listens(self, part: Part) -> bool:
        """Connect to a server."""
        return await listens(part.address, part.port, seconds=_SECONDS)

    async def make_bucket(self, name: str, secrets: Secrets) -> None:
        """Sign in and make a container."""
        who = {"X-Auth-User": f"{ACCOUNT}:{USER}", "X-Auth-Key": secrets.secret_key}
        async with self._client() as http:
            try:
                signed_in = await http.get("/auth/v1.0", headers=who)
                signed_in.raise_for_status()
                token = {"X-Auth-Token": signed_in.headers["X-Auth-Token"]}
                made = await http.put(f"/v1/AUTH_{ACCOUNT}/{name}", headers=token)
                made.raise_for_status()
            except (httpx2.TransportError, httpx2.HTTPStatusError) as error:
                raise UnavailableError(
                    f"the bucket {name} could not be made: {error}", hint="look at the proxy's log"
                ) from error

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self._settings.endpoint, timeout=_SECONDS, trust_env=False)
