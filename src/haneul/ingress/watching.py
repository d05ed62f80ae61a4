"""What ModSecurity is to look at, and how a transaction is called there, so that its record says whose it was. Pure.

A transaction's name is ``MSEC~UNIQUE~REQUEST_ID~INGRESS``: when it began, nginx's own number, what the application gets
as ``X-Request-ID``, and a short name of the Ingress. What is kept of it is decided by whoever reads the record, so that
another policy is no reload; only ``off`` is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from haneul.ingress.annotations import Wishes
from haneul.ingress.directives import Node, line
from haneul.ingress.model import Location, Routes
from haneul.kernel.kube_objects import Place

OFF: Final = "off"
#: ModSecurity has all of a body in memory, whatever of it rules see.
LARGEST_BODY: Final = 16 << 20


@dataclass(frozen=True)
class Watched:
    """An Ingress whose requests are looked at; ``policy`` is empty if it says nothing."""

    name: str
    policy: str


def watched(routes: Routes) -> dict[str, Watched]:
    """Return whose requests are looked at, by their short names."""
    return {
        short_name(location.ingress): Watched(_name(location.ingress), location.wishes.audit)
        for server in routes.servers
        for location in server.locations
    }


def short_name(ingress: Place) -> str:
    """Return a name of letters and digits, short enough for the name of a file."""
    return hashlib.sha256(_name(ingress).encode()).hexdigest()[:16]


def watching_nodes(location: Location) -> Iterator[Node]:
    """Yield what lets ModSecurity look at a location's requests, if it is to."""
    if is_watched(location.wishes):
        yield line("modsecurity", "on")
        name = f"$msec~$request_id~$haneul_request_id~{short_name(location.ingress)}"
        yield line("modsecurity_transaction_id", name)


def is_watched(wishes: Wishes) -> bool:
    """Say whether requests are looked at: not those that stream, as a body is read whole before it is sent on."""
    streams = wishes.backend_protocol.startswith("GRPC") or not wishes.gathers_requests
    return wishes.audit != OFF and not streams and 0 < wishes.proxy_body_size <= LARGEST_BODY


def _name(ingress: Place) -> str:
    return f"{ingress.namespace}/{ingress.name}"
