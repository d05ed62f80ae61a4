"""Cutting a network namespace off from some addresses, by a table of our own in it.

The table goes with the namespace, and by its name: it is nobody else's (nft(8)).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from haneul.kernel.errors import CommandFailedError
from haneul.kernel.process import run

TABLE: Final = "haneul_chaos"
_SECONDS: Final = 10.0
#: Before all others, so that nothing that is translated first gets through.
_PRIORITY: Final = -450


def cutting(addresses: Sequence[str]) -> str:
    """Return the rule set that drops every packet from and to the addresses; it may be loaded again and again. Pure."""
    members = ", ".join(sorted({str(ipaddress.IPv4Address(address)) for address in addresses}))
    hooks = {"prerouting": "saddr", "postrouting": "daddr"}
    chains = "".join(
        f"  chain {hook} {{ type filter hook {hook} priority {_PRIORITY}; ip {side} {{ {members} }} counter drop; }}\n"
        for hook, side in hooks.items()
    )
    return f"table ip {TABLE} {{}}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n{chains}}}\n"


async def cut(pid: int, addresses: Sequence[str]) -> None:
    """Cut the network namespace of a process off from addresses."""
    await run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "nft", "-f", "-"], stdin=cutting(addresses).encode(), timeout=_SECONDS
    )


async def mend(pid: int) -> None:
    """Take the table away; does nothing where there is none."""
    if await is_cut(pid):
        await run(["nsenter", f"--net=/proc/{pid}/ns/net", "nft", "delete", "table", "ip", TABLE], timeout=_SECONDS)


async def is_cut(pid: int) -> bool:
    """Say whether our table is in the network namespace of a process; of one that is gone, it is not."""
    try:
        listed = await run(["nsenter", f"--net=/proc/{pid}/ns/net", "nft", "list", "tables"], timeout=_SECONDS)
    except CommandFailedError:
        return False
    return f"table ip {TABLE}" in listed.stdout.splitlines()
