"""How requests reach pods: at addresses of their own, or by ports of their cluster's nodes. Pure.

Where nothing outside a cluster has a route to its pods, a Service is reached by a port that every node has for it. One
that has no such port, as most have none, gets a Service beside it that has: its opening. Openings are the controller's,
bear its mark, and go when nobody needs them, or with their Service.

Where the nodes are, whoever made them says, and the ports are of the range that an API server gives them from. So
nothing that a cluster's people write leads a request anywhere but to their own nodes, whatever their endpoints say;
what those reach in turn is bounded where they run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from haneul.ingress.model import Backend, Peer
from haneul.ingress.observed import Observed
from haneul.kernel.kube import SERVICES, Manifest
from haneul.kernel.kube_objects import Place

#: Says of which Service an opening is.
OPENING_LABEL: Final = "ingress.haneul.dev/opening-of"
#: Where API servers give node ports from (Kubernetes documentation "Service", ``--service-node-port-range``).
_NODE_PORTS: Final = range(30000, 32768)
_MARK: Final = {"app.kubernetes.io/managed-by": "haneul"}


class Reach(Protocol):
    """How the pods of backends are reached."""

    def peers(self, observed: Observed, backend: Backend) -> tuple[Peer, ...]:
        """Return where requests for a backend go now; nowhere if none of its pods takes any."""
        ...

    def openings(self, observed: Observed, backends: Iterable[Backend]) -> list[Manifest]:
        """Return the Services that the cluster has to have for this, and does not have as they should be."""
        ...

    def superfluous(self, observed: Observed, backends: Iterable[Backend]) -> list[Place]:
        """Return the openings that nobody needs."""
        ...


class PodAddresses:
    """Pods are reached at their own addresses, as from machines that have routes to them."""

    def peers(self, observed: Observed, backend: Backend) -> tuple[Peer, ...]:
        """Return the pods that take requests."""
        return observed.peers(backend)

    def openings(self, observed: Observed, backends: Iterable[Backend]) -> list[Manifest]:
        """Return none."""
        return []

    def superfluous(self, observed: Observed, backends: Iterable[Backend]) -> list[Place]:
        """Return none."""
        return []


@dataclass(frozen=True)
class NodePorts:
    """Pods are reached by the ports of nodes, whose addresses are ``nodes``."""

    nodes: Sequence[str]

    def peers(self, observed: Observed, backend: Backend) -> tuple[Peer, ...]:
        """Return every node with the Service's port, if a pod takes requests; a node passes on to pods of others."""
        if not observed.peers(backend):
            return ()
        for service in _ways(observed, backend):
            for port in _tcp_ports(service):
                if (port.get("name") or "") == backend.port and port.get("nodePort") in _NODE_PORTS:
                    return tuple(sorted(Peer(address, port["nodePort"]) for address in self.nodes))
        return ()

    def openings(self, observed: Observed, backends: Iterable[Backend]) -> list[Manifest]:
        """Return the openings that are missing, or are not as their Services."""
        made = []
        for namespace, name in sorted({(backend.namespace, backend.service) for backend in backends}):
            service = observed.get(SERVICES, namespace, name)
            if service is None or _has_ports(service) or not (service.get("spec") or {}).get("selector"):
                continue
            wanted = opening_of(service)
            found = observed.get(SERVICES, namespace, wanted["metadata"]["name"])
            if found is None or _essence(found) != _essence(wanted):
                made.append(wanted)
        return made

    def superfluous(self, observed: Observed, backends: Iterable[Backend]) -> list[Place]:
        """Return the openings of Services that no path leads to, or that have ports of their own now."""
        needed = {(backend.namespace, backend.service) for backend in backends}
        found = []
        for opening in observed.all(SERVICES):
            metadata = opening["metadata"]
            name = (metadata.get("labels") or {}).get(OPENING_LABEL)
            if not name:
                continue
            service = observed.get(SERVICES, metadata["namespace"], name)
            if (metadata["namespace"], name) not in needed or service is None or _has_ports(service):
                found.append(Place(SERVICES.kind, metadata["namespace"], metadata["name"]))
        return sorted(found)


def opening_of(service: Manifest) -> Manifest:
    """Return the Service beside a Service by which its pods are reached at nodes' ports."""
    metadata = service["metadata"]
    ports = [
        {name: port[name] for name in ("name", "port", "targetPort", "appProtocol") if port.get(name) is not None}
        | {"protocol": "TCP"}
        for port in _tcp_ports(service)
    ]
    owners = [{"apiVersion": "v1", "kind": "Service", "name": metadata["name"], "uid": metadata.get("uid", "")}]
    return {
        "apiVersion": SERVICES.api_version,
        "kind": SERVICES.kind,
        "metadata": {
            "name": _opening_name(metadata["name"]),
            "namespace": metadata["namespace"],
            "labels": {**_MARK, OPENING_LABEL: metadata["name"]},
            "ownerReferences": owners,
        },
        "spec": {"type": "NodePort", "selector": dict(service["spec"]["selector"]), "ports": ports},
    }


def _opening_name(service: str) -> str:
    """Return a name that no other Service's opening has, also of those with the longest names."""
    return f"haneul-ingress-{hashlib.sha256(service.encode()).hexdigest()[:12]}"


def _ways(observed: Observed, backend: Backend) -> Iterator[Manifest]:
    """Yield the Services whose ports lead to a backend's pods from any node."""
    service = observed.get(SERVICES, backend.namespace, backend.service)
    opening = observed.get(SERVICES, backend.namespace, _opening_name(backend.service))
    if service is not None and _has_ports(service):
        yield service
    if opening is not None and (opening["metadata"].get("labels") or {}).get(OPENING_LABEL) == backend.service:
        yield opening


def _has_ports(service: Manifest) -> bool:
    """Say whether a Service itself is reached at every node: with policy Local only those with its pods pass on."""
    spec = service.get("spec") or {}
    ports = _tcp_ports(service)
    everywhere = spec.get("externalTrafficPolicy") != "Local"
    return everywhere and bool(ports) and all(port.get("nodePort") for port in ports)


def _tcp_ports(service: Manifest) -> list[dict[str, Any]]:
    ports = (service.get("spec") or {}).get("ports") or []
    return [port for port in ports if port.get("protocol", "TCP") == "TCP"]


def _essence(opening: Manifest) -> object:
    """Return of an opening what counts; what an API server fills in is left out."""
    spec = opening.get("spec") or {}
    ports = [
        (port.get("name") or "", port.get("port"), port.get("targetPort", port.get("port")))
        for port in _tcp_ports(opening)
    ]
    owners = [owner.get("uid") for owner in opening["metadata"].get("ownerReferences") or []]
    return spec.get("type"), spec.get("selector"), ports, owners, spec.get("externalTrafficPolicy") == "Local"
