"""The packet filter chains that the kubelet and Cilium leave in the host's iptables, and how to take them out.

Both tools name their chains by a prefix (``KUBE``, ``CILIUM``); rules elsewhere are theirs only if they jump into such
a chain. Which prefixes are ours and not another installation's the caller says; nothing else is touched. See
iptables-save(8) and iptables-restore(8) for the format.
"""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
from collections.abc import Sequence
from typing import Final

from haneul.kernel.process import run

_CALL_SECONDS: Final = 30.0
#: Debian's two implementations, for both protocols.
_VARIANTS: Final = ("iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy")


def our_chains(saved: str, prefixes: Sequence[str]) -> list[str]:
    """Return the chains of ours in what iptables-save printed, as ``table CHAIN``."""
    found, table = [], ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":") and _is_ours(line[1:], prefixes):
            found.append(f"{table} {line[1:].split()[0]}")
    return found


def cleaning(saved: str, prefixes: Sequence[str]) -> str:
    """Return input for ``iptables-restore --noflush`` that takes our chains, and the jumps into them, out again.

    Empty when there is nothing to take out. Rules that jump go first, then rules inside, then the chains.
    """
    script: list[str] = []
    for table, lines in _tables(saved).items():
        chains = [line[1:].split()[0] for line in lines if line.startswith(":") and _is_ours(line[1:], prefixes)]
        jumps = [
            f"-D {line.removeprefix('-A ')}"
            for line in lines
            if line.startswith("-A ") and _jumps_to_ours(line, prefixes) and not _is_ours(line.split()[1], prefixes)
        ]
        if chains or jumps:
            script += [f"*{table}", *jumps, *(f"-F {name}" for name in chains), *(f"-X {name}" for name in chains)]
            script.append("COMMIT")
    return "".join(f"{line}\n" for line in script)


def empty_tables(listing: str) -> list[tuple[str, str]]:
    """Return family and name of tables of iptables' that hold no rule and no chain but the built-in, accepting ones.

    ``listing`` is what ``nft -j list ruleset`` printed. Such a table does nothing; iptables makes it when first asked.
    """
    tables: dict[tuple[str, str], bool] = {}
    for entry in json.loads(listing or "{}").get("nftables", []):
        if table := entry.get("table"):
            name = table["name"] in ("filter", "nat", "mangle", "raw", "security") and table["family"] in ("ip", "ip6")
            tables[table["family"], table["name"]] = name
        elif chain := entry.get("chain"):
            if chain.get("policy") != "accept":
                tables[chain["family"], chain["table"]] = False
        else:
            for thing in entry.values():
                if isinstance(thing, dict) and "table" in thing:
                    tables[thing["family"], thing["table"]] = False
    return [key for key, idle in tables.items() if idle]


async def find(prefixes: Sequence[str]) -> list[str]:
    """Return every chain of ours, with the variant of iptables that has it."""
    found = []
    for variant in _variants():
        saved = (await run([f"{variant}-save"], timeout=_CALL_SECONDS, check=False)).stdout
        found += [f"{variant} {chain}" for chain in our_chains(saved, prefixes)]
    return found


async def remove(prefixes: Sequence[str]) -> None:
    """Take our chains out of every variant, and the tables that are idle after that."""
    removed = False
    for variant in _variants():
        saved = (await run([f"{variant}-save"], timeout=_CALL_SECONDS, check=False)).stdout
        if script := cleaning(saved, prefixes):
            removed = True
            await run([f"{variant}-restore", "--noflush"], stdin=script.encode(), timeout=_CALL_SECONDS)
    if removed and shutil.which("nft"):
        listing = await run(["nft", "-j", "list", "ruleset"], timeout=_CALL_SECONDS, check=False)
        for family, name in empty_tables(listing.stdout):
            await run(["nft", "delete", "table", family, name], timeout=_CALL_SECONDS, check=False)


def _variants() -> list[str]:
    return [name for name in _VARIANTS if shutil.which(f"{name}-save") and shutil.which(f"{name}-restore")]


def _tables(saved: str) -> dict[str, list[str]]:
    tables: dict[str, list[str]] = {}
    current: list[str] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            current = tables.setdefault(line[1:], [])
        else:
            current.append(line)
    return tables


def _jumps_to_ours(rule: str, prefixes: Sequence[str]) -> bool:
    words = shlex.split(rule)
    return any(word in ("-j", "-g") and _is_ours(target, prefixes) for word, target in itertools.pairwise(words))


def _is_ours(chain: str, prefixes: Sequence[str]) -> bool:
    return chain.startswith(tuple(f"{prefix}{joint}" for prefix in prefixes for joint in "-_"))
