"""Which certificates a host of the management cluster has, how long they last, and what is to be renewed. Pure.

kubeadm's certificates live a year, its authorities ten (kubeadm documentation "Certificate Management with kubeadm").
The kubelet renews its own client certificate long before its end; its serving certificate, which only shows who it
says it is, it makes for a year and never again.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from haneul.kernel.documents import from_yaml

#: Files below /etc/kubernetes that `kubeadm certs renew` renews, in the order in which it does.
LEAVES: Final = (
    "admin.conf",
    "pki/apiserver.crt",
    "pki/apiserver-etcd-client.crt",
    "pki/apiserver-kubelet-client.crt",
    "controller-manager.conf",
    "pki/etcd/healthcheck-client.crt",
    "pki/etcd/peer.crt",
    "pki/etcd/server.crt",
    "pki/front-proxy-client.crt",
    "scheduler.conf",
    "super-admin.conf",
)
AUTHORITIES: Final = ("pki/ca.crt", "pki/etcd/ca.crt", "pki/front-proxy-ca.crt")
#: Static pods in the order in which they are started anew, and the files that each reads once.
STATIC_PODS: Final[Mapping[str, tuple[str, ...]]] = {
    "etcd": ("pki/etcd/ca.crt", "pki/etcd/healthcheck-client.crt", "pki/etcd/peer.crt", "pki/etcd/server.crt"),
    "kube-apiserver": (
        "pki/ca.crt",
        "pki/etcd/ca.crt",
        "pki/front-proxy-ca.crt",
        "pki/apiserver.crt",
        "pki/apiserver-etcd-client.crt",
        "pki/apiserver-kubelet-client.crt",
        "pki/front-proxy-client.crt",
    ),
    "kube-controller-manager": ("pki/ca.crt", "controller-manager.conf"),
    "kube-scheduler": ("scheduler.conf",),
}
#: kubeadm's phase that writes each static pod's manifest.
PHASES: Final[Mapping[str, tuple[str, ...]]] = {
    "etcd": ("etcd", "local"),
    "kube-apiserver": ("control-plane", "apiserver"),
    "kube-controller-manager": ("control-plane", "controller-manager"),
    "kube-scheduler": ("control-plane", "scheduler"),
}
WARN_OF_AUTHORITY: Final = timedelta(days=365)


@dataclass(frozen=True)
class Held:
    """A certificate that lies on this host.

    ``whole`` says that its key belongs to it; ``renew_at`` is the share of its life that is left when it is renewed.
    """

    name: str
    begins: datetime
    ends: datetime
    authority: bool = False
    whole: bool = True
    renew_at: float = 1 / 3

    def left(self, now: datetime) -> timedelta:
        """Return how long it still lives."""
        return self.ends - now

    def due(self, now: datetime) -> bool:
        """Say whether it should be made anew."""
        return not self.whole or self.left(now) < (self.ends - self.begins) * self.renew_at

    def worrying(self, now: datetime) -> bool:
        """Say whether somebody should look: an authority within its last year, a leaf that should be renewed by now."""
        if self.authority:
            return self.left(now) < WARN_OF_AUTHORITY
        # What renews looks several times a day; it missed a leaf of which much less is left than when it was due.
        return not self.whole or self.left(now) < (self.ends - self.begins) * self.renew_at * 0.75


def held(
    name: str, content: bytes, key: bytes | None = None, *, authority: bool = False, renew_at: float = 1 / 3
) -> Held:
    """Return what a file holds: a certificate in PEM, with its key in ``key`` if given, or a kubeconfig with both.

    Raises ValueError for a file that holds none.
    """
    if name.endswith(".conf"):
        users = (from_yaml(content) or {}).get("users") or [{}]
        user = users[0].get("user") or {}
        key = base64.b64decode(user.get("client-key-data", ""))
        content = base64.b64decode(user.get("client-certificate-data", ""))
    certificate = x509.load_pem_x509_certificate(content)
    whole = key is None or _public(key) == certificate.public_key().public_bytes(*_PUBLIC)
    return Held(name, certificate.not_valid_before_utc, certificate.not_valid_after_utc, authority, whole, renew_at)


def nearest(certificates: Iterable[Held]) -> Held | None:
    """Return the certificate that ends first."""
    return min(certificates, key=lambda entry: entry.ends, default=None)


def used_by(pod: str, files: Mapping[str, bytes]) -> str:
    """Return a digest of the certificate files that a static pod reads when it starts; a missing one counts too."""
    digest = hashlib.sha256()
    for name in STATIC_PODS[pod]:
        digest.update(name.encode() + b"\0" + hashlib.sha256(files.get(name, b"")).digest())
    return digest.hexdigest()[:16]


def outdated(wanted: Mapping[str, str], written: Mapping[str, str]) -> Sequence[str]:
    """Return the static pods whose manifests do not name the certificates that lie there, in the order to restart."""
    return [pod for pod in STATIC_PODS if wanted.get(pod) != written.get(pod)]


_PUBLIC: Final = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _public(key: bytes) -> bytes:
    try:
        return serialization.load_pem_private_key(key, password=None).public_key().public_bytes(*_PUBLIC)
    except (ValueError, TypeError):
        return b""
