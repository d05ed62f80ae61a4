"""Who reaches the object store's servers on loopback: Swift's parts trust whoever does, so nobody else may.

Packets that leave this host's programs know whose program they are of (nft(8), "meta skuid"). A table of its own
refuses connections to the servers' ports from all users but the store's and root; the store's API, which asks for a
secret, is not in it.

The rules lie in a file of root's, by which each part brings them about before it begins: they are gone after a restart
of the machine, and the parts are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from haneul.kernel.files import write_atomically
from haneul.management import nft_table

TABLE: Final = "haneul_kage"


def rules(network: str, ports: Sequence[int], *, user: int, table: str = TABLE) -> str:
    """Return nft's script that makes the guard anew in one transaction."""
    there = f"ip daddr {network} tcp dport {{ {', '.join(map(str, ports))} }}"
    return nft_table.anew(
        table,
        f"""    chain output {{
        type filter hook output priority 0; policy accept;
        {there} meta skuid != {{ 0, {user} }} reject with tcp reset
    }}
""",
    )


async def ensure(file: Path, network: str, ports: Sequence[int], *, user: int, table: str = TABLE) -> None:
    """Guard these ports at a network's addresses for a user, and write the rules into a file.

    Raises CommandFailedError, HostNotReadyError.
    """
    script = rules(network, ports, user=user, table=table)
    write_atomically(file, script)
    await nft_table.bring_about(script)


async def remove(table: str = TABLE) -> None:
    """Remove the guard, if it is there."""
    await nft_table.remove(table)


async def remains(table: str = TABLE) -> list[str]:
    """Return, for people, what there is of ours."""
    return await nft_table.remains(table)
