"""Network policies of one cluster: only its own parts meet. Pure rendering.

The API server answers everyone, as any API server on a network does; everything else of a cluster is reached by
exactly who needs it. Policies are the management cluster's (``networking.k8s.io/v1``); the host itself always reaches
its own pods, which is how health checks work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from haneul.dkos.authentication import IssuerTrust
from haneul.dkos.backup.record import NAMESPACE as BACKUP_NAMESPACE
from haneul.dkos.backup.record import WORKER_NAME
from haneul.dkos.control_plane import CLUSTER_LABEL, ROLE_LABEL, labels
from haneul.dkos.door import NODE_PORTS, WAKER_NAMESPACE
from haneul.dkos.etcd_slots import CLIENT_PORT, GATEWAY_PORT, PEER_PORT
from haneul.dkos.image_hub import ImageHub
from haneul.dkos.model import Cluster
from haneul.dkos.naming import DNS_PORT, Naming
from haneul.dkos.readers import Reader
from haneul.kernel.kube import Manifest

#: The only one besides a cluster's own API server that reaches its etcd.
_BACKUP_WORKER: Final = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": BACKUP_NAMESPACE}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": WORKER_NAME}},
}


def network_policies(
    cluster: Cluster,
    trust: IssuerTrust | None = None,
    *,
    several: bool = False,
    naming: Naming | None = None,
    hub: ImageHub | None = None,
) -> list[Manifest]:
    """Return all policies of a cluster's two namespaces. The API server also reaches an issuer that it trusts.

    Of ``several`` etcd members, some of which join or leave, the operator reaches those that vote. With a ``naming``,
    nodes reach the DNS server, and with a ``hub`` the image hub.
    """
    own_nodes = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": cluster.nodes_namespace}},
        "podSelector": {"matchLabels": {CLUSTER_LABEL: cluster.uid}},
    }
    own_masters = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": cluster.masters_namespace}},
        "podSelector": {"matchLabels": {CLUSTER_LABEL: cluster.uid}},
    }
    own_apiserver = {"podSelector": {"matchLabels": labels(cluster, "kube-apiserver")}}
    own_etcd = {"podSelector": {"matchLabels": labels(cluster, "etcd")}}
    masters, nodes = cluster.masters_namespace, cluster.nodes_namespace
    # Everything outside the management cluster: its own pods and hosts are never matched by addresses.
    world = {"ipBlock": {"cidr": "0.0.0.0/0"}}
    return [
        _policy(cluster, masters, "default", {}, ingress=[], egress=[]),
        _policy(
            cluster,
            masters,
            "etcd",
            labels(cluster, "etcd"),
            ingress=[
                _from([own_apiserver, _BACKUP_WORKER], CLIENT_PORT),
                # Who was one of several answers in JSON there, also when the others are gone.
                _from([_BACKUP_WORKER], GATEWAY_PORT),
                _from([own_etcd], PEER_PORT),
                # Of an etcd with one member, the operator has nothing to ask.
                *(_from([_operator()], port) for port in ((CLIENT_PORT, GATEWAY_PORT) if several else ())),
            ],
            egress=[_to([own_etcd], PEER_PORT)],
        ),
        _policy(
            cluster,
            masters,
            "kube-apiserver",
            labels(cluster, "kube-apiserver"),
            ingress=[{"ports": [{"port": 6443, "protocol": "TCP"}]}],
            # Besides etcd and kubelets, an API server calls its users' webhooks, which run on the nodes or outside.
            egress=[_to([own_etcd], CLIENT_PORT), {"to": [own_nodes, world]}, *_issuer(trust)],
        ),
        *(
            _policy(cluster, masters, role, labels(cluster, role), ingress=[], egress=[_to([own_apiserver], 6443)])
            for role in ("kube-controller-manager", "kube-scheduler", "cilium-operator")
        ),
        _policy(
            cluster,
            nodes,
            "nodes",
            {},
            ingress=[{"from": [own_nodes, own_masters]}],
            egress=[{"to": [own_nodes, world]}, _to([own_masters], 6443)],
        ),
        *([_names(cluster)] if naming is not None else []),
        *([_images(cluster, hub)] if hub is not None else []),
    ]


def _names(cluster: Cluster) -> Manifest:
    """The DNS server is a program of a host, and hosts have no address for policies; of theirs, this port alone is."""
    return _to_hosts(cluster, "names", DNS_PORT, ("UDP", "TCP"))


def _images(cluster: Cluster, hub: ImageHub) -> Manifest:
    """So is the image hub. Pods come as their node: builds in them may push, with a right of their own."""
    return _to_hosts(cluster, "images", hub.port, ("TCP",))


def _to_hosts(cluster: Cluster, name: str, port: int, protocols: Sequence[str]) -> Manifest:
    ports = [{"port": str(port), "protocol": protocol} for protocol in protocols]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": cluster.nodes_namespace, "labels": labels(cluster)},
        "spec": {
            "endpointSelector": {},
            "egress": [{"toEntities": ["host", "remote-node"], "toPorts": [{"ports": ports}]}],
        },
    }


def waker_policies(marks: Mapping[str, str]) -> list[Manifest]:
    """Return the policies of the waker's namespace, which bear ``marks`` as labels.

    Everybody may come to the ports of sleeping clusters, as to any API server. From there the waker reaches the port
    of API servers and nothing else of any cluster. Where the management cluster's own API is, which runs on hosts, a
    plain policy cannot say; Cilium's own kind can (Cilium documentation "Layer 3 Policies", entity kube-apiserver).
    """
    any_apiserver = {
        "namespaceSelector": {"matchExpressions": [{"key": CLUSTER_LABEL, "operator": "Exists"}]},
        "podSelector": {"matchLabels": {ROLE_LABEL: "kube-apiserver"}},
    }
    first, last = NODE_PORTS
    metadata = {"namespace": WAKER_NAMESPACE, "labels": dict(marks)}
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "waker", **metadata},
            "spec": {
                "podSelector": {},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"ports": [{"port": first, "endPort": last, "protocol": "TCP"}]}],
                "egress": [_to([any_apiserver], 6443)],
            },
        },
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "waker-management-api", **metadata},
            "spec": {"endpointSelector": {}, "egress": [{"toEntities": ["kube-apiserver"]}]},
        },
    ]


def _operator() -> dict[str, Any]:
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "haneul-system"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "haneul-operator"}},
    }


def backup_policies(marks: Mapping[str, str]) -> list[Manifest]:
    """Return the policies of the backup worker's namespace: nobody comes to it, and it reaches the port of etcds alone.

    Jobs of restores, which are there too, reach nothing at all.
    """
    any_etcd = {
        "namespaceSelector": {"matchExpressions": [{"key": CLUSTER_LABEL, "operator": "Exists"}]},
        "podSelector": {"matchLabels": {ROLE_LABEL: "etcd"}},
    }
    worker = {"app.kubernetes.io/name": WORKER_NAME}
    metadata = {"namespace": BACKUP_NAMESPACE, "labels": dict(marks)}

    def policy(name: str, selector: Manifest, egress: list[Any]) -> Manifest:
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, **metadata},
            "spec": {"podSelector": selector, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": egress},
        }

    return [
        policy("default", {}, []),
        policy("worker", {"matchLabels": worker}, [_to([any_etcd], port) for port in (CLIENT_PORT, GATEWAY_PORT)]),
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "worker-management-api", **metadata},
            "spec": {"endpointSelector": {"matchLabels": worker}, "egress": [{"toEntities": ["kube-apiserver"]}]},
        },
    ]


def reader_policies(reader: Reader, marks: Mapping[str, str], *, host_port: int | None = None) -> list[Manifest]:
    """Return the policies of a reader's namespace, which bear ``marks`` as labels.

    Nobody comes to it. It reaches the API servers of clusters, the management cluster's, and ``host_port`` of the
    hosts if its work is done there.
    """
    any_apiserver = {
        "namespaceSelector": {"matchExpressions": [{"key": CLUSTER_LABEL, "operator": "Exists"}]},
        "podSelector": {"matchLabels": {ROLE_LABEL: "kube-apiserver"}},
    }
    metadata = {"namespace": reader.name, "labels": dict(marks)}
    hosts: list[Any] = [{"toEntities": ["kube-apiserver"]}]
    if host_port is not None:
        ports = [{"port": str(host_port), "protocol": "TCP"}]
        hosts.append({"toEntities": ["host", "remote-node"], "toPorts": [{"ports": ports}]})
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": reader.role, **metadata},
            "spec": {
                "podSelector": {},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [],
                "egress": [_to([any_apiserver], 6443)],
            },
        },
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNetworkPolicy",
            "metadata": {"name": f"{reader.role}-hosts", **metadata},
            "spec": {"endpointSelector": {}, "egress": hosts},
        },
    ]


def _issuer(trust: IssuerTrust | None) -> list[Any]:
    """The issuer is a pod of the management cluster, whichever of the host's addresses its name leads to."""
    if trust is None:
        return []
    namespace = {"matchLabels": {"kubernetes.io/metadata.name": trust.namespace}}
    pods = {"matchLabels": {"app.kubernetes.io/name": trust.application}}
    return [_to([{"namespaceSelector": namespace, "podSelector": pods}], trust.port)]


def _policy(
    cluster: Cluster,
    namespace: str,
    name: str,
    selector: dict[str, str],
    *,
    ingress: list[Any],
    egress: list[Any],
) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "labels": labels(cluster)},
        "spec": {
            "podSelector": {"matchLabels": selector} if selector else {},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    }


def _from(peers: list[Any], port: int) -> dict[str, Any]:
    return {"from": peers, "ports": [{"port": port, "protocol": "TCP"}]}


def _to(peers: list[Any], port: int) -> dict[str, Any]:
    return {"to": peers, "ports": [{"port": port, "protocol": "TCP"}]}
