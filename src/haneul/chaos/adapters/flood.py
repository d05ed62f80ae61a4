"""Asks an API server for as much as it gives, from several connections at once, until it is ended.

A program of its own, ``python -m haneul.chaos.adapters.flood FILE CONNECTIONS``, so that the flood takes no time from
whoever asks questions meanwhile. The file holds the access; nothing secret stands in an argument.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Final

from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import CONFIG_MAPS, KubeAccess
from haneul.kernel.kube_http import HttpKubeClient

_LOOK_SECONDS: Final = 0.2


def to_json(access: KubeAccess) -> str:
    """Return an access as the program reads it."""
    texts = (access.client_certificate.decode(), access.client_key.decode())
    return json.dumps([access.server, access.authority.decode(), *texts])


def from_json(text: str) -> KubeAccess:
    """Return the access that :func:`to_json` wrote."""
    server, authority, certificate, key = json.loads(text)
    return KubeAccess(server, authority.encode(), certificate.encode(), key.encode())


async def flood(access: KubeAccess, connections: int) -> None:
    """Ask until cancelled."""

    async def ask(client: HttpKubeClient) -> None:
        while True:
            try:
                await client.list(CONFIG_MAPS, "default")
            except HaneulError:
                # Where nobody answers, asking again at once would only keep this process busy.
                await asyncio.sleep(0.05)

    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(HttpKubeClient(access)) for _ in range(connections)]
        await asyncio.gather(*(ask(client) for client in clients))


async def flood_while_wanted(access: KubeAccess, connections: int, starter: int) -> None:
    """Flood as long as the process that started this one lives: nothing of a run that was killed goes on."""
    flooding = asyncio.create_task(flood(access, connections))
    while os.getppid() == starter and not flooding.done():
        await asyncio.wait([flooding], timeout=_LOOK_SECONDS)
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(flood_while_wanted(from_json(Path(sys.argv[1]).read_text()), int(sys.argv[2]), os.getppid()))
