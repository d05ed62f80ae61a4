"""What Cilium may do in a cluster, the management cluster and tenants' alike. Pure.

These are the rights of upstream's chart (``install/kubernetes/cilium/templates``) for what is switched on here. Without
L7 proxy, TLS interception, ingress, Gateway API and BGP no Secret is read (``pkg/envoy/cell.go``, ``pkg/bgp/cell.go``,
``operator/pkg/secretsync``); without ``annotate-k8s-node`` and L2 announcements agents write no nodes and no leases;
without the watcher of unmanaged pods the operator ends none.
"""

from __future__ import annotations

from haneul.kernel.kube import Manifest
from haneul.kernel.kube_manifests import READ, WRITE, rule

_OWN_KINDS = rule("cilium.io", ["*"], [*WRITE, "deletecollection"])


def agent_rules() -> list[Manifest]:
    """Return what an agent may do."""
    return [
        rule("", ["namespaces", "services", "pods", "endpoints", "nodes"], READ),
        rule("networking.k8s.io", ["networkpolicies"], READ),
        rule("discovery.k8s.io", ["endpointslices"], READ),
        rule("apiextensions.k8s.io", ["customresourcedefinitions"], READ),
        _OWN_KINDS,
    ]


def operator_rules() -> list[Manifest]:
    """Return what the operator may do; of services it writes the status, which holds load balancers' addresses."""
    return [
        rule("", ["pods", "namespaces", "services", "endpoints"], READ),
        rule("", ["nodes", "nodes/status"], [*READ, "patch"]),
        rule("", ["services/status"], ["update", "patch"]),
        rule("discovery.k8s.io", ["endpointslices"], READ),
        rule("networking.k8s.io", ["networkpolicies"], READ),
        rule("coordination.k8s.io", ["leases"], ["create", "get", "update"]),
        rule("apiextensions.k8s.io", ["customresourcedefinitions"], [*READ, "create", "update"]),
        _OWN_KINDS,
    ]
