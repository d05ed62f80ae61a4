"""Pieces of manifests that several products render in the same way: rights, hardening, encryption at rest. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from haneul.kernel.kube import Manifest

_RBAC: Final = "rbac.authorization.k8s.io"
READ: Final = ("get", "list", "watch")
WRITE: Final = (*READ, "create", "update", "patch", "delete")
#: Suites of TLS 1.2 that keep past connections secret and authenticate what they encrypt, as Go names them.
STRONG_CIPHERS: Final = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
)
#: What an API server answers without a credential: health checks, which kubelets ask without one.
HEALTH_PATHS: Final = ("/livez", "/readyz", "/healthz")
#: What a host reads before it has a credential, to join a cluster that kubeadm made.
JOIN_PATH: Final = "/api/v1/namespaces/kube-public/configmaps/cluster-info"


def rule(group: str, resources: Sequence[str], verbs: Sequence[str], *, names: Sequence[str] = ()) -> Manifest:
    """Return a rule of a role: ``verbs`` on resources of one API group, on the objects of these ``names`` if any."""
    limits = {"resourceNames": list(names)} if names else {}
    return {"apiGroups": [group], "resources": list(resources), **limits, "verbs": list(verbs)}


def account(name: str, namespace: str) -> Manifest:
    """Return a service account as a subject of a binding."""
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def group(name: str) -> Manifest:
    """Return a group of users as a subject of a binding."""
    return {"apiGroup": _RBAC, "kind": "Group", "name": name}


def user(name: str) -> Manifest:
    """Return a user as a subject of a binding."""
    return {"apiGroup": _RBAC, "kind": "User", "name": name}


def cluster_role(name: str, rules: Sequence[Manifest], labels: Mapping[str, str]) -> Manifest:
    """Return a role for the whole cluster."""
    metadata = {"name": name, "labels": dict(labels)}
    return {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": list(rules)}


def cluster_role_binding(name: str, role: str, subject: Manifest, labels: Mapping[str, str]) -> Manifest:
    """Return what gives a role for the whole cluster to a subject."""
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name, "labels": dict(labels)},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }


def account_with_rights(
    name: str, namespace: str, rules: Sequence[Manifest], labels: Mapping[str, str]
) -> list[Manifest]:
    """Return a service account and its rights in the whole cluster, all of one name."""
    metadata = {"name": name, "namespace": namespace, "labels": dict(labels)}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        cluster_role(name, rules, labels),
        cluster_role_binding(name, name, account(name, namespace), labels),
    ]


def rights_in_namespace(
    name: str, namespace: str, rules: Sequence[Manifest], subject: Manifest, labels: Mapping[str, str]
) -> list[Manifest]:
    """Return a role of one namespace and what gives it to a subject, both of one name."""
    metadata = {"name": name, "namespace": namespace, "labels": dict(labels)}
    return [
        {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": list(rules)},
        role_binding(name, namespace, "Role", subject, labels),
    ]


def role_binding(role: str, namespace: str, kind: str, subject: Manifest, labels: Mapping[str, str]) -> Manifest:
    """Return what gives a role to a subject in one namespace, under the role's own name.

    ``kind`` is ``Role``, for one of the namespace, or ``ClusterRole``.
    """
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": role, "namespace": namespace, "labels": dict(labels)},
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": role},
        "subjects": [subject],
    }


def hardened_container() -> Manifest:
    """Return the security context of a container that writes only to its volumes and has no capability."""
    return {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }


def hardened_pod(user: int) -> Manifest:
    """Return the security context of a pod that runs as ``user``, under the runtime's seccomp profile."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def encryption_configuration(keys: Sequence[tuple[str, bytes]]) -> Manifest:
    """Return the configuration by which an API server encrypts Secrets, from names and keys of 32 bytes in base 64.

    The first key encrypts, all decrypt. A key's name stands before everything that it encrypted.

    What was written in the clear before can still be read. See Kubernetes documentation "Encrypting Confidential Data
    at Rest"; the provider ``secretbox`` is XSalsa20 with Poly1305.
    """
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [
            {
                "resources": ["secrets"],
                "providers": [
                    {"secretbox": {"keys": [{"name": name, "secret": key.decode()} for name, key in keys]}},
                    {"identity": {}},
                ],
            }
        ],
    }


def anonymous_access(paths: Sequence[str]) -> Manifest:
    """Return an API server's authentication configuration by which who is not known reaches ``paths`` only."""
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "anonymous": {"enabled": True, "conditions": [{"path": path} for path in paths]},
    }


def admission_configuration(*more: Manifest) -> Manifest:
    """Return an API server's configuration of admission plugins: ``more``, and how many events it takes a second.

    Far more than a healthy cluster tells, so that only a flood is refused; see Kubernetes documentation "Admission
    Control in Kubernetes", section "EventRateLimit".
    """
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [
            *more,
            {
                "name": "EventRateLimit",
                "configuration": {
                    "apiVersion": "eventratelimit.admission.k8s.io/v1alpha1",
                    "kind": "Configuration",
                    "limits": [
                        {"type": "Server", "qps": 500, "burst": 2000},
                        {"type": "Namespace", "qps": 100, "burst": 500, "cacheSize": 512},
                    ],
                },
            },
        ],
    }
