"""Objects of a cluster, as its API shows them, and what is decided with."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

from haneul.balancer.decisions import Site
from haneul.balancer.members import Ground, Targets
from haneul.balancer.model import Abilities, Pool, parse_range
from haneul.kernel.kube import Manifest

POOL = Pool("public", (parse_range("192.0.2.10-192.0.2.13"),))
SIX = Pool("six", (parse_range("2001:db8::/126"),))


def site(
    *pools: Pool, targets: Targets = Targets.PODS, abilities: Abilities | None = None, load_balancer_class: str = ""
) -> Site:
    ground = Ground(targets, (ip_network("10.0.0.0/8"), ip_network("fd00::/8")))
    return Site(pools or (POOL,), ground, abilities or Abilities(), load_balancer_class)


def port(number: int = 80, *, name: str = "http", protocol: str = "TCP", node_port: int = 0) -> Manifest:
    made: Manifest = {"name": name, "protocol": protocol, "port": number}
    return {**made, "nodePort": node_port} if node_port else made


def service(
    name: str = "web",
    *,
    namespace: str = "shop",
    annotations: dict[str, str] | None = None,
    ports: Sequence[Manifest] = (),
    created: str = "",
    ingress: str = "",
    **spec: Any,
) -> Manifest:
    metadata: Manifest = {"name": name, "namespace": namespace, "uid": f"uid-{name}"}
    if annotations:
        metadata["annotations"] = {f"balancer.haneul.dev/{key}": value for key, value in annotations.items()}
    if created:
        metadata["creationTimestamp"] = created
    status: Manifest = {"loadBalancer": {"ingress": [{"ip": ingress}]}} if ingress else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"type": "LoadBalancer", "ports": list(ports) or [port()], **spec},
        "status": status,
    }


def endpoint(address: str, node: str = "n1", **conditions: bool) -> Manifest:
    return {"addresses": [address], "nodeName": node, "conditions": conditions}


def slice_of(
    service_name: str,
    *endpoints: Manifest,
    name: str = "",
    namespace: str = "shop",
    number: int = 8080,
    port_name: str = "http",
    protocol: str = "TCP",
) -> Manifest:
    labels = {"kubernetes.io/service-name": service_name}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name or f"{service_name}-1", "namespace": namespace, "labels": labels},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": port_name, "protocol": protocol, "port": number}],
    }


def node(name: str, address: str, **metadata: Any) -> Manifest:
    taints = metadata.pop("taints", [])
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, **metadata},
        "spec": {"taints": taints},
        "status": {
            "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}],
        },
    }
