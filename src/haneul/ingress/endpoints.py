"""Where the pods of a Service's port answer, by its EndpointSlices. Pure.

Pods that are ready get requests. Where none is, those that end but still serve do, so that the last one of a Service
that is replaced loses none (Kubernetes documentation "EndpointSlices", "Conditions").
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from haneul.ingress.model import Backend, Peer
from haneul.kernel.kube import Manifest


def port_of(service: Manifest, wanted: Manifest) -> str | None:
    """Return the name of a Service's port that a backend asks for by name or number; None if it has none such."""
    for port in (service.get("spec") or {}).get("ports") or []:
        if port.get("protocol", "TCP") == "TCP" and (
            ("name" in wanted and port.get("name") == wanted["name"])
            or ("number" in wanted and port.get("port") == wanted["number"])
        ):
            return str(port.get("name") or "")
    return None


def peers(backend: Backend, slices: Iterable[Manifest]) -> tuple[Peer, ...]:
    """Return the peers of a backend, in order; ``slices`` are those of its Service, ``backend.port`` is a name."""
    ready, serving = set[Peer](), set[Peer]()
    for piece in slices:
        numbers = [
            port["port"]
            for port in piece.get("ports") or []
            if (port.get("name") or "") == backend.port and port.get("port") and port.get("protocol", "TCP") == "TCP"
        ]
        for endpoint in piece.get("endpoints") or []:
            found = {Peer(address, number) for address in _addresses(endpoint) for number in numbers}
            conditions = endpoint.get("conditions") or {}
            if conditions.get("ready") is not False:
                ready |= found
            elif conditions.get("serving"):
                serving |= found
    return tuple(sorted(ready or serving))


def _addresses(endpoint: Any) -> list[str]:
    """Return an endpoint's addresses; consumers take the first (Kubernetes API reference "EndpointSlice")."""
    for address in (endpoint.get("addresses") or [])[:1]:
        try:
            return [str(ipaddress.ip_address(address))]
        except ValueError:
            return []
    return []
