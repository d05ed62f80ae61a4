"""What pools may name as external resources, and what of a pool an approver decides on. Pure.

An external resource lets in only addresses that a person has registered. How one looks is in :mod:`haneul.dkos.model`;
who may let a node reach it is another product's business (port :class:`haneul.dkos.ports.JoinGate`).
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Sequence
from typing import Final

from haneul.dkos.model import NodePool
from haneul.kernel.errors import InvalidInputError

#: A wider network is no resource: who approved it would let a node reach half a company.
_WIDEST: Final = 16
_NOWHERE: Final = tuple(
    ipaddress.IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
)


def check_external_resources(pool: NodePool) -> None:
    """Raise InvalidInputError for what is wrong with a pool's external resources."""
    names = [resource.name for resource in pool.external_resources]
    if len(set(names)) != len(names):
        raise InvalidInputError(
            f"two external resources of pool {pool.name} have the same name", hint="give each a name of its own"
        )
    for resource in pool.external_resources:
        if not resource.reason.strip():
            raise InvalidInputError(
                f"external resource {resource.name} gives no reason", hint="say what the nodes need it for"
            )
        for address in resource.addresses:
            network = ipaddress.IPv4Network(address)
            if network.prefixlen < _WIDEST:
                raise InvalidInputError(
                    f"{network} of external resource {resource.name} is wider than a /{_WIDEST}",
                    hint="name the addresses that the nodes really use",
                )
            if any(network.overlaps(nowhere) for nowhere in _NOWHERE):
                raise InvalidInputError(
                    f"{network} of external resource {resource.name} is no place outside of a machine",
                    hint="name the addresses at which it is reached",
                )


def asked_digest(pool: NodePool) -> str:
    """Return a digest of what is asked for with a gated pool: its nodes and what they are to reach.

    Who asked for it is known by it; a pool that was written past the platform's API has one that nobody asked for.
    """
    asked = pool.model_dump(mode="json", include={"name", "provider", "count", "machines", "external_resources"})
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def newly_asked(before: Sequence[NodePool], after: Sequence[NodePool]) -> list[NodePool]:
    """Return the gated pools that a change makes, or makes different in any way."""
    known = {pool.name: pool for pool in before}
    return [pool for pool in after if pool.external_resources and known.get(pool.name) != pool]
