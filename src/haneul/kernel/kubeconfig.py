"""Kubeconfigs of one context, as Kubernetes' own programs and ours read them. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from haneul.kernel.documents import to_yaml
from haneul.kernel.pki import KeyPair


def client_kubeconfig(server: str, authority: bytes, leaf: KeyPair) -> bytes:
    """Return a kubeconfig with embedded certificates."""
    user = {
        "client-certificate-data": base64.b64encode(leaf.certificate).decode(),
        "client-key-data": base64.b64encode(leaf.key).decode(),
    }
    embedded = {"certificate-authority-data": base64.b64encode(authority).decode()}
    return kubeconfig(server, embedded, user)


def kubeconfig(server: str, authority: Mapping[str, str], user: Mapping[str, str]) -> bytes:
    """Return a kubeconfig; what it says of authority and user is in Kubernetes' own words."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "default",
        "clusters": [
            {
                "name": "default",
                "cluster": {"server": server, **authority},
            }
        ],
        "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
        "users": [{"name": "default", "user": dict(user)}],
    }
    return to_yaml(config).encode()
