"""How a name comes to its answer, as far as a zone tells: whose it is, and which object asks for it. Pure.

A cluster's domain is known by its schema's version, which every cluster publishes (see :mod:`haneul.dns.records`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from haneul.dns.model import TXT, Key, Present, ZoneState, is_below

_VERSION: Final = "dns-version."


@dataclass(frozen=True)
class Step:
    """One stage on the way of an answer, and what is seen there."""

    stage: str
    seen: str


def steps_in_zone(name: str, state: ZoneState) -> list[Step]:
    """Return what a zone tells of an absolute name in it."""
    found = [Step("zone", f"{state.zone} has it, or nobody; serial {state.serial}")]
    domain, owner = _domain_of(name, state.sets)
    if domain:
        found += [Step("cluster", f"{owner} publishes all below {domain}"), Step("object", object_of(name, domain))]
    else:
        found.append(Step("cluster", "no cluster publishes a domain that it lies in"))
    records = [there for key, there in sorted(state.sets.items()) if key.name == name]
    for there in records:
        mark = there.owner or "nobody that it is marked with"
        values = ", ".join(there.records.values)
        found.append(Step("record", f"{there.records.type} {values}, for {there.records.ttl} s, of {mark}"))
    if not records:
        deeper = any(is_below(key.name, name) for key in state.sets)
        remembered = f"resolvers remember that for {state.negative_ttl} s"
        found.append(Step("record", f"{'only names below it' if deeper else 'none'}; {remembered}"))
    return found


def object_of(name: str, domain: str) -> str:
    """Return which object of a cluster has a name, by the specification that the names follow."""
    below = name.removesuffix(domain).rstrip(".").split(".")
    match below:
        case [*above, service, namespace, "svc"]:
            return f"{_part_of(above)}the Service {service} in the namespace {namespace}"
        case [*above, service, namespace, "lb"]:
            return f"{_part_of(above)}the load balancer of the Service {service} in the namespace {namespace}"
        case [address, namespace, "pod"]:
            return f"the pod with the address {address} in the namespace {namespace}"
        case ["dns-version"]:
            return "the version of the specification"
        case _:
            return "none has such a name: Services are NAME.NAMESPACE.svc, pods ADDRESS.NAMESPACE.pod"


def _part_of(above: list[str]) -> str:
    match above:
        case []:
            return ""
        case [port, protocol] if port.startswith("_") and protocol.startswith("_"):
            return f"the port {port[1:]} ({protocol[1:].upper()}) of "
        case _:
            return f"the endpoint {'.'.join(above)} of "


def _domain_of(name: str, sets: Mapping[Key, Present]) -> tuple[str, str]:
    """Return the domain of the cluster that a name lies in, and whose mark it bears; nothing if it lies in none."""
    domain = name
    while domain:
        if there := sets.get(Key(f"{_VERSION}{domain}", TXT)):
            return domain, there.owner or "somebody unmarked"
        domain = domain.partition(".")[2]
    return "", ""
