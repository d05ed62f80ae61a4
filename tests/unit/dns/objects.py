"""Objects of a cluster, as its API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haneul.kernel.kube import Manifest


def service(
    name: str = "web",
    *addresses: str,
    namespace: str = "shop",
    ports: Sequence[Manifest] = ({"name": "http", "protocol": "TCP", "port": 80},),
    **spec: Any,
) -> Manifest:
    if addresses:
        spec |= {"clusterIP": addresses[0], "clusterIPs": list(addresses)}
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": list(ports), **spec}}


def headless(name: str = "db", **spec: Any) -> Manifest:
    return service(name, "None", **spec)


def endpoint(*addresses: str, hostname: str = "", ready: bool | None = True) -> Manifest:
    made: Manifest = {"addresses": list(addresses), "conditions": {} if ready is None else {"ready": ready}}
    return {**made, "hostname": hostname} if hostname else made


def slice_of(
    service_name: str,
    *endpoints: Manifest,
    name: str = "",
    namespace: str = "shop",
    ports: Sequence[Manifest] = ({"name": "http", "protocol": "TCP", "port": 8080},),
) -> Manifest:
    labels = {"kubernetes.io/service-name": service_name}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name or f"{service_name}-1", "namespace": namespace, "labels": labels},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": list(ports),
    }


def pod(name: str, *addresses: str, namespace: str = "shop", phase: str = "Running") -> Manifest:
    status: Manifest = {"phase": phase}
    if addresses:
        status |= {"podIP": addresses[0], "podIPs": [{"ip": address} for address in addresses]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "status": status}


def ingress(*hosts: str, name: str = "web", namespace: str = "shop", served_at: Sequence[str] = ()) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}"},
        "spec": {"rules": [{"host": host} for host in hosts]},
        "status": {"loadBalancer": {"ingress": [{"ip": address} for address in served_at]}},
    }
