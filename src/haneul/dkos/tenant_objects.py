"""What DKOS puts into a tenant's cluster: rights of nodes, people and network, and bootstrap tokens. Pure rendering."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from haneul.dkos.credentials import Endpoints
from haneul.dkos.image_hub import ImageHub, token_rules
from haneul.dkos.model import Cluster, NetworkPlugin
from haneul.dkos.readers import Reader
from haneul.kernel.cilium_rights import agent_rules, operator_rules
from haneul.kernel.kube import Manifest
from haneul.kernel.kube_manifests import READ, cluster_role, cluster_role_binding, group, rule

BOOTSTRAP_GROUP: Final = "system:bootstrappers:haneul"
BOOTSTRAP_LIFE: Final = timedelta(minutes=30)
API_PORT: Final = 6443
#: The resources that an agent of Cilium waits for when it starts.
CILIUM_RESOURCES: Final = (
    "ciliumcidrgroups",
    "ciliumclusterwidenetworkpolicies",
    "ciliumendpoints",
    "ciliumidentities",
    "ciliuml2announcementpolicies",
    "ciliumloadbalancerippools",
    "ciliumnetworkpolicies",
    "ciliumnodes",
    "ciliumpodippools",
)
_LABELS: Final = {"app.kubernetes.io/managed-by": "haneul"}


def base_objects(
    cluster: Cluster, endpoints: Endpoints, readers: Iterable[Reader] = (), hub: ImageHub | None = None
) -> list[Manifest]:
    """Return the objects of every cluster: each reader's rights and objects, and nodes' rights towards a ``hub``."""
    bindings = [
        _binding("node-bootstrap", "system:node-bootstrapper", BOOTSTRAP_GROUP),
        _binding("node-proxy", "system:node-proxier", "system:nodes"),
        _binding("kubelet-clients", "system:kubelet-api-admin", "haneul:kubelet-clients"),
        _binding("owners", "cluster-admin", "haneul:owners"),
        _binding("developers", "edit", "haneul:developers"),
        _binding("viewers", "view", "haneul:viewers"),
    ]
    network = [
        # flannel reads where the other nodes are; a node may write to no node but itself (admission NodeRestriction).
        _role("node-network", [rule("", ["nodes"], READ), rule("", ["nodes/status"], ["patch"])]),
        _binding("node-network", "haneul:node-network", "system:nodes"),
    ]
    if cluster.spec.network.plugin is NetworkPlugin.CILIUM:
        network += [
            _role("cilium-agent", agent_rules()),
            _binding("cilium-agent", "haneul:cilium-agent", "system:nodes"),
            _role("cilium-operator", operator_rules()),
            _binding("cilium-operator", "haneul:cilium-operator", "haneul:cilium-operators"),
        ]
    announced = [] if cluster.spec.announces_itself else [kubernetes_endpoint(cluster, endpoints)]
    rights = [
        manifest
        for reader in readers
        for manifest in (
            _role(reader.role, list(reader.rules)),
            _binding(reader.role, f"haneul:{reader.role}", reader.user),
            *reader.objects,
        )
    ]
    if hub is not None:
        rights += [
            _role("image-tokens", token_rules(hub)),
            _binding("image-tokens", "haneul:image-tokens", "system:nodes"),
        ]
    return [*bindings, *network, *announced, *rights]


def kubernetes_endpoint(cluster: Cluster, endpoints: Endpoints) -> Manifest:
    """Return where pods reach API servers that are told to announce nothing (``endpoint-reconciler-type``).

    Pods on machines reach theirs at the hosts' port, as everybody outside does; the API server itself would announce
    the service address in the management cluster, and can announce no port but its own. Where there are several
    masters, each would announce the one service address, and take it back when it ends, though the others go on.
    """
    address, port = endpoints.service_address, API_PORT
    if cluster.spec.outside:
        address, port = endpoints.outside_address, endpoints.outside_port
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {**_LABELS, "kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }


def bootstrap_token(token: str, node: str, now: datetime) -> Manifest:
    """Return the Secret that makes ``token`` (``<id>.<secret>``) valid for a while.

    See Kubernetes documentation "Authenticating with Bootstrap Tokens". The token cleaner deletes it when it expires;
    DKOS deletes it as soon as its node has joined.
    """
    identity, secret = token.split(".")
    data = {
        "token-id": identity,
        "token-secret": secret,
        "expiration": (now + BOOTSTRAP_LIFE).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "usage-bootstrap-authentication": "true",
        "auth-extra-groups": BOOTSTRAP_GROUP,
        "description": f"for node {node} alone",
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": token_secret_name(token), "namespace": "kube-system", "labels": _LABELS},
        "type": "bootstrap.kubernetes.io/token",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }


def token_secret_name(token: str) -> str:
    """Return the name of the Secret that makes a bootstrap token valid."""
    return f"bootstrap-token-{token.split('.', maxsplit=1)[0]}"


def _role(name: str, rules: list[Manifest]) -> Manifest:
    return cluster_role(f"haneul:{name}", rules, _LABELS)


def _binding(name: str, role: str, members: str) -> Manifest:
    return cluster_role_binding(f"haneul:{name}", role, group(members), _LABELS)
