"""Where requests go, as the proxy's Lua reads it: all that changes without a reload. Pure.

```json
{"u0123456789abcdef0123": {
  "peers": [["10.0.0.7", 8080], ["2001:db8::7", 8080]],
  "affinity": {"name": "session", "attributes": "; Path=/; HttpOnly", "secure": false},
  "canary": {"peers": [["10.0.0.8", 8080]], "header": "x-canary", "cookie": "canary", "weight": 10, "total": 100}},
 "r0123456789abcdef0123": {
  "shares": [{"weight": 9, "peers": [["10.0.0.9", 8080]]}, {"weight": 1, "missing": true}],
  "request": {"set": [["x-from", "here"]], "add": [], "remove": ["x-old"]}, "answer": {…}, "path": {"to": "/new"}},
 "r1123456789abcdef0123": {"redirect": {"status": 301, "host": "www.example.com", "path": {"to": "/a", "of": "/b"}}},
 "c0123456789abcdef0123": {"choices": [
  {"at": "@haneul_rule_0123456789abcdef0123", "method": "GET", "headers": [["x-is", "it"]], "queries": []}]}}
```

``challenges`` has what an issuer of certificates wants to find, by its tokens. An entry whose name begins with ``u`` is
an upstream's, with ``r`` a rule's, with ``c`` and a digest one that chooses among rules.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from haneul.ingress.model import Affinity, Backend, Canary, Location, Peer, Routes, Upstream
from haneul.ingress.rules import HeaderChanges, Redirect, Rule, Share

#: The entry for an issuer; no upstream's, rule's or choice's name is like it.
CHALLENGES: Final = "challenges"

Peers = Callable[[Backend], tuple[Peer, ...]]


@dataclass(frozen=True)
class Table:
    """Every entry by its name."""

    entries: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """Return the table as JSON, the same for the same entries."""
        return json.dumps(self.entries, sort_keys=True, separators=(",", ":"))

    def with_challenges(self, challenges: Mapping[str, str]) -> Table:
        """Return this table with what an issuer wants to find, by its tokens."""
        return Table({**self.entries, CHALLENGES: dict(challenges)}) if challenges else self

    def beside(self, other: Table) -> Table:
        """Return this table with those entries of another one that it does not have."""
        return Table({**other.entries, **self.entries})

    def led_only_to(self, addresses: Collection[str]) -> Table:
        """Return this table without peers at any other address."""
        return Table({name: _led_only_to(entry, addresses) for name, entry in self.entries.items()})


def _led_only_to(entry: Mapping[str, Any], addresses: Collection[str]) -> dict[str, Any]:
    """Return an entry without peers at other addresses, wherever in it they are."""
    kept = dict(entry)
    if "peers" in entry:
        kept["peers"] = [peer for peer in entry["peers"] if peer[0] in addresses]
    if "canary" in entry:
        kept["canary"] = _led_only_to(entry["canary"], addresses)
    if "shares" in entry:
        kept["shares"] = [_led_only_to(share, addresses) for share in entry["shares"]]
    return kept


def table_of(routes: Routes, peers: Peers) -> Table:
    """Return where requests go; ``peers`` says where a backend's pods answer."""
    entries: dict[str, Any] = {name: _entry(upstream, peers) for name, upstream in routes.upstreams.items()}
    entries |= {name: _rule(rule, peers) for name, rule in routes.rules.items()}
    entries |= {name: {"choices": list(map(_choice, locations))} for name, locations in routes.choices.items()}
    return Table(entries)


def _entry(upstream: Upstream, peers: Peers) -> dict[str, Any]:
    entry: dict[str, Any] = {"peers": _pairs(peers(upstream.backend))}
    if upstream.affinity:
        entry["affinity"] = _affinity(upstream.affinity)
    if upstream.canary:
        entry["canary"] = _canary(upstream.canary, peers)
    return entry


def _pairs(peers: tuple[Peer, ...]) -> list[list[Any]]:
    return [[peer.address, peer.port] for peer in peers]


def _affinity(affinity: Affinity) -> dict[str, Any]:
    attributes = f"; Path={affinity.path}; HttpOnly"
    if affinity.max_age:
        attributes += f"; Max-Age={affinity.max_age}"
    if affinity.same_site:
        attributes += f"; SameSite={affinity.same_site}"
    return {"name": affinity.cookie, "attributes": attributes, "secure": affinity.secure}


def _canary(canary: Canary, peers: Peers) -> dict[str, Any]:
    asked = {"header": canary.header.lower(), "value": canary.value, "cookie": canary.cookie}
    return {
        "peers": _pairs(peers(canary.backend)),
        "weight": canary.weight,
        "total": canary.total,
        **{name: text for name, text in asked.items() if text},
    }


def _rule(rule: Rule, peers: Peers) -> dict[str, Any]:
    entry: dict[str, Any] = {"answer": _changes(rule.answer)}
    if rule.redirect:
        return {**entry, "redirect": _redirect(rule.redirect)}
    entry |= {"shares": [_share(share, peers) for share in rule.shares], "request": _changes(rule.request)}
    return {**entry, "path": _filled(asdict(rule.path))} if rule.path else entry


def _share(share: Share, peers: Peers) -> dict[str, Any]:
    if share.backend is None:
        return {"weight": share.weight, "missing": True}
    return {"weight": share.weight, "peers": _pairs(peers(share.backend))}


def _changes(changes: HeaderChanges) -> dict[str, Any]:
    return {
        "set": list(map(list, changes.set)),
        "add": list(map(list, changes.add)),
        "remove": list(changes.remove),
    }


def _redirect(redirect: Redirect) -> dict[str, Any]:
    found = {name: value for name, value in asdict(redirect).items() if value}
    return {**found, "path": _filled(found["path"])} if "path" in found else found


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _choice(location: Location) -> dict[str, Any]:
    conditions = location.conditions
    return {
        "at": f"@{location.name}",
        "method": conditions.method,
        "headers": list(map(list, conditions.headers)),
        "queries": list(map(list, conditions.queries)),
    }
