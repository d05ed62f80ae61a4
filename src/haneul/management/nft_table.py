"""A table of packet rules of our own: made anew in one transaction, looked for and removed by its name. See nft(8)."""

from __future__ import annotations

import shutil
from typing import Final

from haneul.kernel.process import run

_CALL_SECONDS: Final = 10.0


def anew(table: str, chain: str) -> str:
    """Return nft's script that makes a table of IPv4 anew with one chain, in one transaction, whatever is there."""
    return f"""table ip {table} {{ }}
delete table ip {table}
table ip {table} {{
{chain}}}
"""


async def bring_about(script: str) -> None:
    """Do what a script says. Raises CommandFailedError."""
    await run(["nft", "-f", "-"], stdin=script.encode(), timeout=_CALL_SECONDS)


async def is_there(table: str) -> bool:
    """Say whether a table is there; where nothing knows of tables, none is."""
    if shutil.which("nft") is None:
        return False
    listed = await run(["nft", "list", "table", "ip", table], timeout=_CALL_SECONDS, check=False)
    return listed.status == 0


async def remains(table: str) -> list[str]:
    """Return, for people, what there is of ours."""
    return [f"nft table ip {table}"] if await is_there(table) else []


async def remove(table: str) -> None:
    """Remove a table, if it is there."""
    if await is_there(table):
        await run(["nft", "delete", "table", "ip", table], timeout=_CALL_SECONDS)
