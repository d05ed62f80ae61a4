"""Names of clusters, as they are asked for from outside and from pods."""

from __future__ import annotations

import contextlib
import json

import aiohttp
import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode

from haneul.app.installation import Installation
from haneul.kernel.clock import SystemClock
from haneul.kernel.waiting import wait_for
from haneul.management.name_server import DNS_PORT

CLOCK = SystemClock()


async def reaches(pod: str, host: str, port: int = 80) -> bool:
    """Say whether a pod, which is asked at its Service's address outside, reaches the workload by a name."""
    query = {"host": host, "port": str(port), "protocol": "http", "request": "hostname", "tries": "1"}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(f"http://{pod}/dial", params=query) as answer,
        ):
            # A name that it cannot resolve is a request that it cannot read.
            said = json.loads(await answer.text()) if answer.status == 200 else {}
    except (aiohttp.ClientError, TimeoutError):
        return False
    return bool(said.get("responses"))


async def resolved(installation: Installation, name: str, kind: str = "A") -> tuple[str, list[str]]:
    """Ask from outside; return the code and the values."""
    question = dns.message.make_query(name, kind)
    address = installation.settings.address
    said = await dns.asyncquery.udp(question, address, 2, port=DNS_PORT)
    values = [record.to_text() for found in said.answer for record in found]
    return dns.rcode.to_text(said.rcode()), values


async def until_resolved(
    installation: Installation, name: str, expected: tuple[str, list[str]], *, kind: str = "A", seconds: float = 60
) -> None:
    async def seen() -> bool:
        with contextlib.suppress(OSError, dns.exception.DNSException):
            return await resolved(installation, name, kind) == expected
        return False

    await wait_for(seen, what=f"{name} {kind} to be {expected}", timeout=seconds, clock=CLOCK)
