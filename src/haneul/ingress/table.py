"""Where requests go, as the proxy's Lua reads it: all that changes without a reload. Pure.

```json
{"u0123456789abcdef0123": {
  "peers": [["10.0.0.7", 8080], ["2001:db8::7", 8080]],
  "affinity": {"name": "session", "attributes": "; Path=/; HttpOnly", "secure": false},
  "canary": {"peers": [["10.0.0.8", 8080]], "header": "x-canary", "cookie": "canary", "weight": 10, "total": 100}}}
```
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from haneul.ingress.model import Affinity, Backend, Canary, Peer, Upstream

Peers = Callable[[Backend], tuple[Peer, ...]]


@dataclass(frozen=True)
class Table:
    """Each upstream's entry by the upstream's name."""

    entries: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """Return the table as JSON, the same for the same entries."""
        return json.dumps(self.entries, sort_keys=True, separators=(",", ":"))

    def beside(self, other: Table) -> Table:
        """Return this table with those entries of another one that it does not have."""
        return Table({**other.entries, **self.entries})

    def led_only_to(self, addresses: Collection[str]) -> Table:
        """Return this table without peers at any other address."""
        return Table({name: _led_only_to(entry, addresses) for name, entry in self.entries.items()})


def _led_only_to(entry: Mapping[str, Any], addresses: Collection[str]) -> dict[str, Any]:
    kept = {**entry, "peers": [peer for peer in entry["peers"] if peer[0] in addresses]}
    return kept | ({"canary": _led_only_to(entry["canary"], addresses)} if "canary" in entry else {})


def table_of(upstreams: Mapping[str, Upstream], peers: Peers) -> Table:
    """Return where the requests of upstreams go; ``peers`` says where a backend's pods answer."""
    return Table({name: _entry(upstream, peers) for name, upstream in upstreams.items()})


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
