"""The PKI of one cluster, decided purely: which secrets must exist, and which must be made anew.

A cluster has three authorities (cluster, etcd, front proxy; Kubernetes documentation "PKI certificates and
requirements"), a key for service account tokens and one for encryption at rest. They lie in the secret
``authorities``, which only the operator reads; each component gets a secret with just what it needs. Leaf
certificates live 90 days and are renewed when a third of that is left.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets as randomness
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import serialization

from haneul.kernel.documents import to_yaml
from haneul.kernel.kube import KubeAccess, Manifest
from haneul.kernel.kube_manifests import encryption_configuration
from haneul.kernel.pki import (
    KeyPair,
    LeafProfile,
    issue_authority,
    issue_leaf,
    new_private_key,
    private_key_pem,
)

_PROFILE_ANNOTATION = "dkos.haneul.dev/issued-for"
_AUTHORITIES = ("cluster", "etcd", "front-proxy")


@dataclass(frozen=True)
class Authorities:
    """What a cluster's certificates, tokens and encryption come from."""

    cluster: KeyPair
    etcd: KeyPair
    front_proxy: KeyPair
    service_account_key: bytes = field(repr=False)
    encryption_key: bytes = field(repr=False)

    def data(self) -> dict[str, bytes]:
        """Return the contents of the secret ``authorities``."""
        pairs = {"cluster": self.cluster, "etcd": self.etcd, "front-proxy": self.front_proxy}
        files = {f"{name}.crt": pair.certificate for name, pair in pairs.items()}
        files |= {f"{name}.key": pair.key for name, pair in pairs.items()}
        return files | {"service-account.key": self.service_account_key, "encryption.key": self.encryption_key}


def new_authorities(cluster: str, now: datetime) -> Authorities:
    """Return fresh authorities for the cluster of that name."""
    return Authorities(
        cluster=issue_authority(f"{cluster} cluster", now=now),
        etcd=issue_authority(f"{cluster} etcd", now=now),
        front_proxy=issue_authority(f"{cluster} front proxy", now=now),
        service_account_key=private_key_pem(new_private_key()),
        encryption_key=base64.b64encode(randomness.token_bytes(32)),
    )


def authorities_from(data: Mapping[str, bytes]) -> Authorities:
    """Return the authorities kept in a secret's data."""
    pairs = {name: KeyPair(data[f"{name}.crt"], data[f"{name}.key"]) for name in _AUTHORITIES}
    return Authorities(
        pairs["cluster"],
        pairs["etcd"],
        pairs["front-proxy"],
        data["service-account.key"],
        data["encryption.key"],
    )


@dataclass(frozen=True)
class Endpoints:
    """Where a cluster's etcd and API server are reached: addresses that survive every pod and need no DNS."""

    etcd_addresses: tuple[str, ...]
    service_address: str
    kubernetes_service_address: str
    outside_address: str
    outside_port: int

    @property
    def inside(self) -> str:
        """Return the URL for masters, nodes and the operator."""
        return f"https://{self.service_address}:6443"

    @property
    def outside(self) -> str:
        """Return the URL for people."""
        return f"https://{self.outside_address}:{self.outside_port}"


def component_profiles(endpoints: Endpoints, *, cilium: bool) -> dict[str, dict[str, LeafProfile]]:
    """Return the leaf certificates of each component's secret, by file name."""
    etcd_addresses = ("127.0.0.1", *endpoints.etcd_addresses)
    operators = {
        "cilium-operator": {"client": LeafProfile("haneul:cilium-operator", ("haneul:cilium-operators",), client=True)}
    }
    return (operators if cilium else {}) | {
        "etcd": {"server": LeafProfile("etcd", (), ("localhost",), etcd_addresses, server=True, client=True)},
        "kube-apiserver": {
            "server": LeafProfile(
                "kube-apiserver",
                (),
                (
                    "kubernetes",
                    "kubernetes.default",
                    "kubernetes.default.svc",
                    "localhost",
                ),
                (
                    "127.0.0.1",
                    endpoints.service_address,
                    endpoints.kubernetes_service_address,
                    endpoints.outside_address,
                ),
                server=True,
            ),
            "etcd-client": LeafProfile("kube-apiserver", client=True),
            "kubelet-client": LeafProfile("haneul:kube-apiserver", ("haneul:kubelet-clients",), client=True),
            "front-proxy-client": LeafProfile("front-proxy-client", client=True),
        },
        "kube-controller-manager": {"client": LeafProfile("system:kube-controller-manager", client=True)},
        "kube-scheduler": {"client": LeafProfile("system:kube-scheduler", client=True)},
    }


_ISSUERS = {("etcd", "server"): "etcd", ("kube-apiserver", "etcd-client"): "etcd"}
_ISSUERS |= {("kube-apiserver", "front-proxy-client"): "front-proxy"}


def component_data(
    component: str, profiles: Mapping[str, LeafProfile], authorities: Authorities, endpoints: Endpoints, now: datetime
) -> dict[str, bytes]:
    """Return fresh contents for a component's secret."""
    issuers = {"cluster": authorities.cluster, "etcd": authorities.etcd, "front-proxy": authorities.front_proxy}
    leaves = {
        name: issue_leaf(issuers[_ISSUERS.get((component, name), "cluster")], profile, now=now)
        for name, profile in profiles.items()
    }
    files = {f"{name}.crt": leaf.certificate for name, leaf in leaves.items()}
    files |= {f"{name}.key": leaf.key for name, leaf in leaves.items()}
    match component:
        case "etcd":
            files["ca.crt"] = authorities.etcd.certificate
        case "kube-apiserver":
            files |= {
                "ca.crt": authorities.cluster.certificate,
                "etcd-ca.crt": authorities.etcd.certificate,
                "front-proxy-ca.crt": authorities.front_proxy.certificate,
                "service-account.key": authorities.service_account_key,
                "service-account.pub": _public_key(authorities.service_account_key),
                "encryption.yaml": to_yaml(encryption_configuration(authorities.encryption_key.decode())).encode(),
            }
        case _:
            leaf = leaves["client"]
            files["kubeconfig"] = client_kubeconfig(endpoints.inside, authorities.cluster.certificate, leaf)
            files["ca.crt"] = authorities.cluster.certificate
            if component == "kube-controller-manager":
                files["service-account.key"] = authorities.service_account_key
    return files


def needs_issuing(secret: Manifest | None, profiles: Mapping[str, LeafProfile], extra: str, now: datetime) -> bool:
    """Say whether a component's secret is missing, was made for other names, or has a certificate near its end."""
    if secret is None:
        return True
    if secret["metadata"].get("annotations", {}).get(_PROFILE_ANNOTATION) != profile_digest(profiles, extra):
        return True
    data = decode(secret)
    return any(KeyPair(data[f"{name}.crt"], b"").needs_renewal(now) for name in profiles)


def profile_digest(profiles: Mapping[str, LeafProfile], extra: str) -> str:
    """Return a digest of what a secret was made for."""
    return hashlib.sha256((repr(sorted(profiles.items())) + extra).encode()).hexdigest()[:16]


def secret_manifest(
    namespace: str, name: str, data: Mapping[str, bytes], labels: Mapping[str, str], *, issued_for: str = ""
) -> Manifest:
    """Return a Secret with ``data``."""
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": dict(labels)}
    if issued_for:
        metadata["annotations"] = {_PROFILE_ANNOTATION: issued_for}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "Opaque",
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def decode(secret: Manifest) -> dict[str, bytes]:
    """Return a Secret's data."""
    return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}


def content_digest(secret: Manifest) -> str:
    """Return a digest of a Secret's or ConfigMap's contents; a pod template that carries it rolls when they change."""
    return hashlib.sha256(json.dumps(secret.get("data") or {}, sort_keys=True).encode()).hexdigest()[:16]


def client_kubeconfig(server: str, authority: bytes, leaf: KeyPair) -> bytes:
    """Return a kubeconfig with embedded certificates."""
    user = {
        "client-certificate-data": base64.b64encode(leaf.certificate).decode(),
        "client-key-data": base64.b64encode(leaf.key).decode(),
    }
    return _kubeconfig(server, authority, user)


def token_kubeconfig(server: str, authority: bytes, token: str) -> bytes:
    """Return a kubeconfig with a bearer token, as a node asks for its certificate with."""
    return _kubeconfig(server, authority, {"token": token})


def operator_access(authorities: Authorities, endpoints: Endpoints, now: datetime) -> KubeAccess:
    """Return the operator's own access to the cluster, good for an hour and written down nowhere."""
    profile = LeafProfile("haneul:operator", ("system:masters",), client=True)
    leaf = issue_leaf(authorities.cluster, profile, now=now, life=timedelta(hours=1))
    return KubeAccess(endpoints.inside, authorities.cluster.certificate, leaf.certificate, leaf.key)


def _kubeconfig(server: str, authority: bytes, user: Mapping[str, str]) -> bytes:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "default",
        "clusters": [
            {
                "name": "default",
                "cluster": {
                    "server": server,
                    "certificate-authority-data": base64.b64encode(authority).decode(),
                },
            }
        ],
        "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
        "users": [{"name": "default", "user": dict(user)}],
    }
    return to_yaml(config).encode()


def _public_key(private: bytes) -> bytes:
    key = serialization.load_pem_private_key(private, password=None)
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
