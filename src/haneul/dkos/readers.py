"""Who works for clusters outside of them: what each may in a cluster, and where it learns of clusters. Pure.

Each reader is one program in a namespace of the management cluster that is its own. The operator puts a record for each
cluster there (:mod:`haneul.dkos.cluster_record`), and gives the reader's user its rights in the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from haneul.dkos.control_plane import ROLE_LABEL
from haneul.kernel.kube import Manifest
from haneul.kernel.kube_manifests import READ, WRITE, rule


@dataclass(frozen=True)
class Reader:
    """``name`` is that of its namespace, its program and its account; ``role`` that of its records and rights.

    ``rules`` are what it may in a cluster, ``objects`` what else a cluster has for it. With ``nodes``, its records say
    where the cluster's machines are; with ``token_keys``, by which public keys tokens of its service accounts are
    checked; with ``addresses``, a network in CIDR notation, each cluster gets one of these. With ``limits``, its
    records say what a project may have of what it gives out. Of objects' annotations it reads those that begin with one
    of ``annotations``.
    """

    name: str
    role: str
    rules: tuple[Manifest, ...]
    nodes: bool = False
    objects: tuple[Manifest, ...] = ()
    addresses: str = ""
    token_keys: bool = False
    limits: bool = False
    annotations: tuple[str, ...] = ()

    @property
    def user(self) -> str:
        """Return as whom, and in which group, it comes to a cluster's API."""
        return f"haneul:{self.role}"

    @property
    def record_labels(self) -> str:
        """Return what selects its records."""
        return f"{ROLE_LABEL}={self.role}"

    def record_name(self, uid: str) -> str:
        """Return the name of a cluster's record in its namespace."""
        return f"{self.role}-{uid}"


#: By this namespace's id everybody who follows a cluster's objects knows it (:mod:`haneul.kernel.kube_following`).
IDENTITY_RULE: Final = rule("", ["namespaces"], ["get"], names=["kube-system"])
#: Balances Services: it reads what is behind them, marks those that it serves, and tells them.
BALANCER: Final = Reader(
    "haneul-balancer",
    "balancer",
    (
        rule("", ["services"], [*READ, "patch"]),
        rule("", ["nodes"], READ),
        rule("discovery.k8s.io", ["endpointslices"], READ),
        rule("", ["services/status"], ["patch"]),
        rule("events.k8s.io", ["events"], ["create"]),
        IDENTITY_RULE,
    ),
    nodes=True,
    limits=True,
    annotations=("balancer.haneul.dev/",),
)
#: Publishes names: it reads what has some, and gives Services receipts.
NAMES: Final = Reader(
    "haneul-dns",
    "names",
    (
        rule("", ["services", "pods"], READ),
        rule("networking.k8s.io", ["ingresses"], READ),
        rule("discovery.k8s.io", ["endpointslices"], READ),
        rule("", ["services/status"], ["patch"]),
        IDENTITY_RULE,
    ),
)
#: Serves Ingress objects: it reads what they name, tells them what came of it, and opens nodes' ports for Services.
_GATEWAY_API: Final = "gateway.networking.k8s.io"
INGRESS: Final = Reader(
    "haneul-ingress",
    "ingress",
    (
        rule("networking.k8s.io", ["ingresses", "ingressclasses"], READ),
        rule("networking.k8s.io", ["ingresses/status"], ["patch"]),
        rule(_GATEWAY_API, ["gatewayclasses", "gateways", "httproutes", "referencegrants"], READ),
        rule(_GATEWAY_API, ["gatewayclasses/status", "gateways/status", "httproutes/status"], ["patch"]),
        rule("", ["namespaces"], READ),
        rule("", ["services"], WRITE),
        rule("discovery.k8s.io", ["endpointslices"], READ),
        rule("", ["secrets"], READ),
        rule("events.k8s.io", ["events"], ["get", "create", "patch"]),
        IDENTITY_RULE,
    ),
    nodes=True,
    annotations=(
        "haneul.dev/",
        "nginx.ingress.kubernetes.io/",
        "kubernetes.io/ingress.class",
        "ingressclass.kubernetes.io/is-default-class",
    ),
    objects=(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {
                "name": "haneul",
                "labels": {"app.kubernetes.io/managed-by": "haneul"},
                "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"},
            },
            "spec": {"controller": "haneul.dev/ingress"},
        },
    ),
)
#: Tells the image hub whose pods may pull, and which images they run.
HUB: Final = Reader("haneul-hub", "images", (rule("", ["pods"], ["list"]), IDENTITY_RULE), token_keys=True)
