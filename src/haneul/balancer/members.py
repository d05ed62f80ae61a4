"""What is behind a Service's port: pods of its EndpointSlices, or nodes by their node ports. Pure.

A pod that is being ended leaves before it stops: of the endpoints, those that are ready count, and only when none is,
those that still serve while they end (Kubernetes documentation "EndpointSlices", conditions; enhancement 1669). A
node leaves when it is deleted, is about to be, or is not to be used from outside; whether it is well is for the health
check to say, as in Kubernetes' own service controller (enhancement 3458).

Addresses come from inside the cluster, where its owner may write what they like. Only those in the networks that the
operator named for this cluster count, so that nobody reaches another's machines, or the balancer's own, through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Final

from haneul.balancer.model import Member, canonical, is_port
from haneul.kernel.kube import Manifest

_EXCLUDED: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
_TO_BE_DELETED: Final = "ToBeDeletedByClusterAutoscaler"
#: So much of what is no address is repeated.
_SHOWN: Final = 40


class Targets(StrEnum):
    """What connections are given to: nodes, at the Service's node ports; or pods, where the balancer reaches them."""

    NODES = "nodes"
    PODS = "pods"


@dataclass(frozen=True)
class Behind:
    """The members of a port, sorted, and the addresses that were left out as they are not the cluster's."""

    members: tuple[Member, ...] = ()
    strangers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ground:
    """What members may be: which kind, and in which networks."""

    targets: Targets
    networks: tuple[IPv4Network | IPv6Network, ...]

    def has(self, address: str) -> bool:
        """Say whether an address is the cluster's."""
        one = ip_address(address)
        return any(one.version == network.version and one in network for network in self.networks)


@dataclass
class _Found:
    ground: Ground
    members: set[Member] = field(default_factory=set)
    strangers: set[str] = field(default_factory=set)

    def add(self, address: object, port: object) -> None:
        if not is_port(port):
            return
        try:
            text = canonical(str(address))
        except ValueError:
            self.strangers.add(repr(str(address)[:_SHOWN]))
            return
        if self.ground.has(text):
            self.members.add(Member(text, port))
        else:
            self.strangers.add(text)

    def behind(self) -> Behind:
        return Behind(tuple(sorted(self.members)), tuple(sorted(self.strangers)))


def behind(
    service: Manifest, port: Mapping[str, Any], slices: Sequence[Manifest], nodes: Iterable[Manifest], ground: Ground
) -> Behind:
    """Return what is behind one port of a Service; ``slices`` are the Service's own, ``nodes`` the cluster's."""
    found = _Found(ground)
    if ground.targets is Targets.PODS:
        for number, endpoint in _usable(_endpoints(slices, port)):
            # Of several addresses the first one counts, as the API says that they are one and the same endpoint.
            found.add(endpoint["addresses"][0], number)
    elif number := port.get("nodePort") or 0:
        local = service["spec"].get("externalTrafficPolicy") == "Local"
        hosts = {endpoint.get("nodeName") for _, endpoint in _usable(_endpoints(slices, port))} if local else set()
        for node in nodes:
            if _takes_part(node) and (not local or node["metadata"]["name"] in hosts):
                for address in _addresses(node):
                    found.add(address, number)
    return found.behind()


def _endpoints(slices: Sequence[Manifest], port: Mapping[str, Any]) -> Iterator[tuple[int, Manifest]]:
    """Yield each endpoint that has a port of this name and protocol, and the number that it has there."""
    wanted = (port.get("name") or "", port.get("protocol") or "TCP")
    for piece in slices:
        if piece.get("addressType") not in ("IPv4", "IPv6"):
            continue
        for entry in piece.get("ports") or []:
            if (entry.get("name") or "", entry.get("protocol") or "TCP") == wanted and entry.get("port"):
                for endpoint in piece.get("endpoints") or []:
                    yield entry["port"], endpoint


def _usable(endpoints: Iterable[tuple[int, Manifest]]) -> list[tuple[int, Manifest]]:
    """Return those that are ready; if none is, those that still serve while they end."""
    ready, ending = [], []
    for entry in endpoints:
        conditions = entry[1].get("conditions") or {}
        # One that says nothing of being ready counts as ready (API reference, "EndpointConditions").
        if conditions.get("ready") is not False:
            ready.append(entry)
        elif conditions.get("serving") and conditions.get("terminating"):
            ending.append(entry)
    return ready or ending


def _takes_part(node: Manifest) -> bool:
    metadata = node["metadata"]
    if metadata.get("deletionTimestamp") or _EXCLUDED in (metadata.get("labels") or {}):
        return False
    return all(taint.get("key") != _TO_BE_DELETED for taint in node.get("spec", {}).get("taints") or [])


def _addresses(node: Manifest) -> Iterator[str]:
    """Yield the node's own address, the first if it has several: they are one node."""
    for entry in (node.get("status") or {}).get("addresses") or []:
        if entry.get("type") == "InternalIP":
            yield entry["address"]
            return
