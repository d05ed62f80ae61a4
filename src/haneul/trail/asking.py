"""Asks a controller by its socket, from another process of the same machine and owner."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp

from haneul.kernel.errors import ConflictError, HaneulError, InvalidInputError, UnavailableError
from haneul.trail.model import Record, record_of_line
from haneul.trail.ports import TrailStoreAwayError

_ANSWER: Final = 30.0
#: A collection writes a whole ring to a store that may be slow.
_COLLECTION: Final = 600.0
_LONGEST_LINE: Final = 32 << 20
_ERRORS: Final = (ConflictError, InvalidInputError, TrailStoreAwayError, UnavailableError)


class ControllerTrail:
    """The trail of a controller that runs."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def state(self) -> dict[str, Any]:
        """Return counts and the ring's state. Raises UnavailableError."""
        return await self._ask("GET", "/state")

    async def freeze(self) -> int:
        """Hold the ring; return how many records. Raises ConflictError, UnavailableError."""
        return int((await self._ask("POST", "/freeze"))["records"])

    async def thaw(self) -> bool:
        """Let the ring go on; return False if it was not held. Raises UnavailableError."""
        return bool((await self._ask("POST", "/thaw"))["thawed"])

    async def collect(self, since: int) -> dict[str, Any]:
        """Have the ring put into the store. Raises TrailStoreAwayError, UnavailableError."""
        return await self._ask("POST", f"/collect?since={since}", seconds=_COLLECTION)

    async def records(self, since: int, limit: int) -> list[Record]:
        """Return records of the ring, the newest first. Raises UnavailableError."""
        return [record_of_line(line) async for line in self.lines(since, limit)]

    async def lines(self, since: int, limit: int | None = None) -> AsyncIterator[bytes]:
        """Yield records of the ring as they are written, the newest first. Raises UnavailableError."""
        query = f"since={since}" + (f"&limit={limit}" if limit is not None else "")
        try:
            async with (
                self._session(_COLLECTION) as session,
                session.get(f"http://trail/records?{query}") as answer,
            ):
                if answer.status != 200:
                    raise UnavailableError(f"the controller says {answer.status}")
                async for line in answer.content:
                    yield line
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._away(error) from error

    async def _ask(self, method: str, path: str, seconds: float = _ANSWER) -> dict[str, Any]:
        try:
            async with self._session(seconds) as session, session.request(method, f"http://trail{path}") as answer:
                told = json.loads(await answer.read())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise self._away(error) from error
        if answer.status == 200:
            return dict(told)
        kinds: dict[str, type[HaneulError]] = {kind.code: kind for kind in _ERRORS}
        raise kinds.get(told.get("code", ""), UnavailableError)(told.get("detail", ""), hint=told.get("hint", ""))

    def _session(self, seconds: float) -> aiohttp.ClientSession:
        connector = aiohttp.UnixConnector(path=str(self._socket))
        timeout = aiohttp.ClientTimeout(total=seconds)
        return aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=_LONGEST_LINE)

    def _away(self, error: BaseException) -> UnavailableError:
        return UnavailableError(
            f"no controller answers at {self._socket}: {error}",
            hint="'haneul ingress serve' with an 'audit' has to run, as the same user, or the platform's ingress, "
            "where 'haneul ingress audit' says on; what was kept is found by 'haneul logs search' all the same",
        )
