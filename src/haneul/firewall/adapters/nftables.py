"""A rule set of our own on a gateway that is a Linux machine, in a table that nobody else writes.

::

    table ip haneul_gate
      chain forward     hook forward: packets to a guarded network go through `ways`; what comes out is dropped
      chain ways        a rule for each source, resource and protocol, with owner, source and resource in its comment

Packets to other places, and what a guarded network sends by itself or in answer, are not looked at. Nothing rests on
connection tracking: with a way, its connections end too. The whole change is one transaction of the kernel (nft(8),
libnftables-json(5)), so there is no moment without rules. What is not marked as the owner's stays.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from haneul.firewall.model import Rule, source_of
from haneul.kernel.errors import CommandFailedError, UnavailableError
from haneul.kernel.process import run

TABLE: Final = "haneul_gate"
_FAMILY: Final = "ip"
_FORWARD, _WAYS = "forward", "ways"
_SECONDS: Final = 10.0
_TABLE_OF: Final = {"family": _FAMILY, "table": TABLE}

Command = dict[str, Any]


@dataclass(frozen=True)
class Gateway:
    """How the gateway is reached, and the networks behind it that let in only whom a way is open for.

    ``entry`` stands before each command: nothing for this machine itself, ``nsenter --net=FILE`` for a network
    namespace of it.
    """

    guarded: tuple[str, ...]
    entry: tuple[str, ...] = ()


class NftablesFirewall:
    """The ways of all clusters on one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        # The kernel takes each change as a whole, but a change is worked out from what was there before.
        self._changing = asyncio.Lock()

    async def apply(self, owner: str, rules: frozenset[Rule], leaving: frozenset[str]) -> None:
        """Replace an owner's rules in one transaction, which also makes the table if it is not there."""
        async with self._changing:
            wanted = {rule.key for rule in rules}
            commands = [*_frame(self._gateway.guarded)]
            there: set[str] = set()
            for key, handle in await self._listed(owner):
                if key in wanted or source_of(key) in leaving:
                    there.add(key)
                else:
                    commands.append({"delete": {"rule": {**_chain(_WAYS), "handle": handle}}})
            for rule in sorted(rules, key=lambda rule: rule.key):
                if rule.key not in there:
                    commands += [{"add": {"rule": entry}} for entry in _rules(owner, rule)]
            await self._nft("-f", "-", script=json.dumps({"nftables": commands}).encode())

    async def opened(self, owner: str) -> frozenset[str]:
        """Return the keys of an owner's rules."""
        return frozenset(key for key, _ in await self._listed(owner))

    async def _listed(self, owner: str) -> list[tuple[str, int]]:
        """Return key and handle of each rule of an owner; none if the table is not there yet."""
        tables = json.loads(await self._nft("list", "tables"))["nftables"]
        if not any(entry.get("table", {}).items() >= {"family": _FAMILY, "name": TABLE}.items() for entry in tables):
            return []
        listed = json.loads(await self._nft("list", "table", _FAMILY, TABLE))["nftables"]
        rules = [entry["rule"] for entry in listed if entry.get("rule", {}).get("chain") == _WAYS]
        marked = [(rule.get("comment", "").partition(" "), rule["handle"]) for rule in rules]
        return [(key, handle) for (whose, _, key), handle in marked if whose == owner]

    async def _nft(self, *arguments: str, script: bytes | None = None) -> str:
        try:
            done = await run([*self._gateway.entry, "nft", "-j", *arguments], timeout=_SECONDS, stdin=script)
        except CommandFailedError as error:
            raise UnavailableError(f"the gateway refused its rules: {error.detail}") from error
        return done.stdout


def _frame(guarded: Sequence[str]) -> list[Command]:
    """Return what makes the table, and its first chain anew: packets to a guarded network need a way."""
    base = {**_TABLE_OF, "name": _FORWARD, "type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}
    to_guarded = _match("ip", "daddr", [_network(text) for text in _collapsed(guarded)])
    return [
        {"add": {"table": {"family": _FAMILY, "name": TABLE}}},
        {"add": {"chain": base}},
        {"add": {"chain": {**_TABLE_OF, "name": _WAYS}}},
        {"flush": {"chain": {**_TABLE_OF, "name": _FORWARD}}},
        {"add": {"rule": {**_chain(_FORWARD), "expr": [to_guarded, {"jump": {"target": _WAYS}}]}}},
        {"add": {"rule": {**_chain(_FORWARD), "expr": [to_guarded, {"drop": None}]}}},
    ]


def _rules(owner: str, rule: Rule) -> list[Command]:
    """Return the rules of one way: one for each protocol."""
    source = _match("ip", "saddr", [rule.source])
    destination = _match("ip", "daddr", [_network(text) for text in _collapsed(rule.destinations)])
    made = []
    for protocol in ("tcp", "udp"):
        if ports := _port_ranges(rule.ports, protocol):
            expr = [source, destination, _match(protocol, "dport", ports), {"accept": None}]
            made.append({**_chain(_WAYS), "comment": f"{owner} {rule.key}", "expr": expr})
    return made


def _chain(name: str) -> Command:
    return {**_TABLE_OF, "chain": name}


def _match(protocol: str, field: str, values: Sequence[Any]) -> Command:
    return {
        "match": {
            "op": "==",
            "left": {"payload": {"protocol": protocol, "field": field}},
            "right": {"set": list(values)} if len(values) > 1 else values[0],
        }
    }


def _collapsed(networks: Sequence[str]) -> list[str]:
    """Return networks without overlaps, which a set of the kernel does not take."""
    return [str(one) for one in ipaddress.collapse_addresses(ipaddress.IPv4Network(text) for text in networks)]


def _network(text: str) -> Any:
    address, _, bits = text.partition("/")
    return address if bits == "32" else {"prefix": {"addr": address, "len": int(bits)}}


def _port_ranges(ports: Sequence[str], protocol: str) -> list[Any]:
    """Return a protocol's ports in ranges without overlaps."""
    found = sorted(_bounds(port) for port in ports if port.endswith(f"/{protocol}"))
    merged: list[tuple[int, int]] = []
    for first, last in found:
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return [first if first == last else {"range": [first, last]} for first, last in merged]


def _bounds(port: str) -> tuple[int, int]:
    first, _, last = port.partition("/")[0].partition("-")
    return int(first), int(last or first)
