"""A balancer that its machine's own keeper answers for (:mod:`haneul.balancer.keeper`), asked over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from haneul.balancer.messages import LONGEST, Asked, Said, error_of
from haneul.balancer.model import Abilities, Change, Frontends, Listener, Member, MemberHealth, Protocol
from haneul.kernel.errors import UnavailableError

#: The keeper waits a minute for its turn, and may then have to bring HAProxy to what was written down before.
_CALL_SECONDS: Final = 180.0


class KeptBalancer:
    """A balancer behind a socket; each call is a connection of its own, as the keeper may be started anew."""

    def __init__(self, socket: Path, abilities: Abilities | None = None) -> None:
        self._socket = socket
        self._abilities = abilities or Abilities(protocols=frozenset({Protocol.TCP}))

    @property
    def name(self) -> str:
        """Return where it is."""
        return f"the balancer behind {self._socket}"

    @property
    def abilities(self) -> Abilities:
        """Return what it can do; TCP alone, as HAProxy, if nothing else was said."""
        return self._abilities

    async def read(self) -> Frontends:
        """Return all frontends that are served."""
        said = await self._ask(Asked(do="read"))
        return {there.frontend.listener: there for there in said.frontends}

    async def apply(self, owner: str, changes: Sequence[Change]) -> None:
        """Do all changes, or none."""
        await self._ask(Asked(do="apply", owner=owner, changes=tuple(changes)))

    async def tend(self) -> None:
        """The keeper does that by itself."""

    async def health(self) -> Mapping[Listener, Mapping[Member, MemberHealth]]:
        """Return how members are."""
        said = await self._ask(Asked(do="health"))
        return {listener: dict(found) for listener, found in said.health}

    async def close(self) -> None:
        """Nothing is open."""

    async def _ask(self, asked: Asked) -> Said:
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                line = await self._converse(asked.model_dump_json(exclude_defaults=True).encode() + b"\n")
            said = Said.model_validate_json(line)
        except (OSError, TimeoutError, ValueError, ValidationError) as error:
            raise UnavailableError(
                f"{self.name} does not answer: {error or type(error).__name__}",
                hint="'haneul status' shows whether the host service 'balancer-keeper' runs",
            ) from error
        if said.wrong is not None:
            raise error_of(said.wrong)
        return said

    async def _converse(self, line: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(self._socket, limit=LONGEST)
        try:
            writer.write(line)
            await writer.drain()
            return await reader.readline()
        finally:
            writer.close()
