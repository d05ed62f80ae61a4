"""The PKI of one cluster, decided purely: which secrets must exist, and which must be made anew.

What everything comes from lies in the secret ``authorities`` (:mod:`haneul.dkos.keyring`), which only the operator
reads; each component gets a secret with just what it needs. Leaf certificates live 90 days and are renewed when a
third of that is left.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives import serialization

from haneul.dkos.etcd_port import EtcdAccess
from haneul.dkos.etcd_slots import MOST_MEMBERS, component_name
from haneul.dkos.keyring import Keyring
from haneul.kernel.documents import to_yaml
from haneul.kernel.kube import KubeAccess, Manifest
from haneul.kernel.kube_manifests import encryption_configuration
from haneul.kernel.kubeconfig import client_kubeconfig, kubeconfig
from haneul.kernel.pki import KeyPair, LeafProfile, issue_leaf

_PROFILE_ANNOTATION = "dkos.haneul.dev/issued-for"
#: Where every node finds the authorities that it trusts.
NODE_AUTHORITY_FILE: Final = "/etc/haneul/bootstrap/ca.crt"


@dataclass(frozen=True)
class Endpoints:
    """Where a cluster's etcd and API server are reached: addresses that survive every pod and need no DNS."""

    #: Of the etcd members that the API servers use.
    etcd_addresses: tuple[str, ...]
    service_address: str
    kubernetes_service_address: str
    outside_address: str
    outside_port: int
    #: Of all places for etcd members, where there is more than the one that is used.
    etcd_places: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """Return the addresses of all places for etcd members, by their numbers."""
        return self.etcd_places or self.etcd_addresses

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
    members = {
        component_name(index): {"server": _etcd_server(address)} | ({"peer-client": _ETCD_CLIENT} if index else {})
        for index, address in enumerate(endpoints.places)
    }
    operators = {
        "cilium-operator": {"client": LeafProfile("haneul:cilium-operator", ("haneul:cilium-operators",), client=True)}
    }
    return (
        (operators if cilium else {})
        | members
        | {
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
    )


_ISSUERS = {("kube-apiserver", "etcd-client"): "etcd", ("kube-apiserver", "front-proxy-client"): "front-proxy"}
_ISSUERS |= {
    (component_name(index), name): "etcd" for index in range(MOST_MEMBERS) for name in ("server", "peer-client")
}
_MEMBERS: Final = frozenset(component_name(index) for index in range(MOST_MEMBERS))
#: With this, members that joined call the others. It names no address: a member that began alone compares those that
#: it is called with to where it is called from, which is a pod's and not its Service's.
_ETCD_CLIENT: Final = LeafProfile("etcd", client=True)


def _etcd_server(address: str) -> LeafProfile:
    return LeafProfile("etcd", (), ("localhost",), ("127.0.0.1", address), server=True, client=True)


def component_data(
    component: str, profiles: Mapping[str, LeafProfile], keyring: Keyring, endpoints: Endpoints, now: datetime
) -> dict[str, bytes]:
    """Return fresh contents for a component's secret."""
    leaves = {
        name: issue_leaf(keyring.issuer(_ISSUERS.get((component, name), "cluster")), profile, now=now)
        for name, profile in profiles.items()
    }
    files = {f"{name}.crt": leaf.certificate for name, leaf in leaves.items()}
    files |= {f"{name}.key": leaf.key for name, leaf in leaves.items()}
    match component:
        case _ if component in _MEMBERS:
            files["ca.crt"] = keyring.trusted("etcd")
        case "kube-apiserver":
            files |= {
                "ca.crt": keyring.trusted("cluster"),
                "etcd-ca.crt": keyring.trusted("etcd"),
                "front-proxy-ca.crt": keyring.trusted("front-proxy"),
                "service-account.key": keyring.token_keys[0],
                "service-account.pub": public_token_keys(keyring),
                "encryption.yaml": to_yaml(encryption_configuration(keyring.encryption_keys)).encode(),
            }
        case _:
            leaf = leaves["client"]
            files["kubeconfig"] = client_kubeconfig(endpoints.inside, keyring.trusted("cluster"), leaf)
            files["ca.crt"] = keyring.trusted("cluster")
            if component == "kube-controller-manager":
                files["service-account.key"] = keyring.token_keys[0]
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


def node_kubeconfig(server: str, token: str) -> bytes:
    """Return a kubeconfig with a bearer token, as a node asks for its certificate with.

    It names the file of trusted authorities instead of holding them: the kubelet copies that into its own kubeconfig,
    so that programs of the node see when other authorities are trusted.
    """
    return kubeconfig(server, {"certificate-authority": NODE_AUTHORITY_FILE}, {"token": token})


def operator_access(keyring: Keyring, endpoints: Endpoints, now: datetime) -> KubeAccess:
    """Return the operator's own access to the cluster, good for an hour and written down nowhere."""
    profile = LeafProfile("haneul:operator", ("system:masters",), client=True)
    leaf = issue_leaf(keyring.request_signer, profile, now=now, life=timedelta(hours=1))
    return KubeAccess(endpoints.inside, keyring.trusted("cluster"), leaf.certificate, leaf.key)


def etcd_access(keyring: Keyring, urls: tuple[str, ...], now: datetime) -> EtcdAccess:
    """Return the operator's own access to the cluster's etcd, good for an hour and written down nowhere."""
    leaf = issue_leaf(
        keyring.issuer("etcd"), LeafProfile("haneul:operator", client=True), now=now, life=timedelta(hours=1)
    )
    return EtcdAccess(urls, keyring.trusted("etcd"), leaf.certificate, leaf.key)


def public_token_keys(keyring: Keyring) -> bytes:
    """Return the public keys by which tokens of the cluster's service accounts are checked, in PEM."""
    return b"".join(_public_key(key) for key in keyring.token_keys)


def _public_key(private: bytes) -> bytes:
    key = serialization.load_pem_private_key(private, password=None)
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
