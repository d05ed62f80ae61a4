"""Keeps a balancer on its machine for those who may do nothing else there: they ask over one socket.

Whoever writes a balancer's configuration has its machine. So that the controllers, which read tenants' objects all day,
are not that, they can only say which frontends there are to be; and not even they can have one at an address that is
in no pool, or lead clients to where the machine itself listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final

import structlog

from haneul.balancer.messages import LONGEST, Asked, Said, wrong_of
from haneul.balancer.model import Change, Pool, canonical, is_port
from haneul.balancer.ports import LoadBalancer
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError, InvalidInputError
from haneul.kernel.tasks import in_own_task

_log = structlog.get_logger(__name__)
_TEND_SECONDS: Final = 1.0
_BACKLOG: Final = 512
#: Where no machine of a cluster is: its own in all spellings, links, groups (RFC 6890, RFC 4291).
NO_MACHINES: Final = tuple(
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4"),
        *("::/127", "::ffff:0:0/96", "fe80::/10", "ff00::/8"),
    )
)


@dataclass(frozen=True)
class Bounds:
    """What nobody gets past: listeners are in the pools, members in none of the ``closed`` networks."""

    pools: tuple[Pool, ...]
    closed: tuple[IPv4Network | IPv6Network, ...] = ()

    def check(self, changes: Sequence[Change]) -> None:
        """Raise InvalidInputError if something is to come that may not, ValueError if it is none at all."""
        for frontend in (change.after for change in changes if change.after is not None):
            listener = frontend.listener
            if not any(_checked(listener.address, listener.port) in pool for pool in self.pools):
                raise InvalidInputError(f"{listener} is in no pool")
            for member in frontend.members:
                one = _checked(member.address, member.port)
                if any(one.version == network.version and one in network for network in self.closed):
                    raise InvalidInputError(f"{member} is no machine of a cluster")


class BalancerKeeper:
    """Answers for a balancer."""

    def __init__(self, balancer: LoadBalancer, bounds: Bounds, *, clock: Clock) -> None:
        self._balancer = balancer
        self._bounds = bounds
        self._clock = clock

    async def answer(self, line: bytes) -> bytes:
        """Do what a line asks for, and return the line to answer with."""
        try:
            said = await self._do(Asked.model_validate_json(line))
        except ValueError as error:
            said = Said(wrong=wrong_of(InvalidInputError(f"it cannot be: {error}")))
        except HaneulError as error:
            said = Said(wrong=wrong_of(error))
        return said.model_dump_json(exclude_defaults=True).encode() + b"\n"

    async def _do(self, asked: Asked) -> Said:
        if asked.do == "read":
            present = await self._balancer.read()
            return Said(frontends=tuple(present[listener] for listener in sorted(present)))
        if asked.do == "health":
            health = await self._balancer.health()
            return Said(health=tuple((listener, tuple(found.items())) for listener, found in health.items()))
        self._bounds.check(asked.changes)
        await self._balancer.apply(asked.owner, asked.changes)
        return Said()

    async def run(self, socket: Path, *, group: int) -> None:
        """Keep the balancer, and answer for it at a socket that root and ``group`` may open, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tend())
            tasks.create_task(self._serve(socket, group))

    async def _tend(self) -> None:
        """Let the balancer end what is due; what fails is tried again."""
        while True:
            try:
                await in_own_task(self._balancer.tend())
            except HaneulError as error:
                _log.warning("held up", balancer=self._balancer.name, detail=error.detail)
            await self._clock.sleep(_TEND_SECONDS)

    async def _serve(self, socket: Path, group: int) -> None:
        # The folder, which others see, stays when the socket is made anew, and is theirs alone.
        socket.parent.mkdir(parents=True, exist_ok=True)
        os.chown(socket.parent, -1, group)
        socket.parent.chmod(0o750)
        socket.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._converse, socket, limit=LONGEST, backlog=_BACKLOG)
        os.chown(socket, -1, group)
        socket.chmod(0o660)
        async with server:
            await server.serve_forever()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # Who went away before the answer, or says more than there can be, is not waited for.
            with contextlib.suppress(OSError, ValueError):
                if line := await reader.readline():
                    writer.write(await self.answer(line))
                    await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _checked(address: str, port: int) -> IPv4Address | IPv6Address:
    """Return an address whose text is its one spelling, by which addresses are compared. Raises ValueError."""
    if canonical(address) != address or not is_port(port):
        raise ValueError(f"{address!r} {port} is no place to connect to")
    return ip_address(address)
