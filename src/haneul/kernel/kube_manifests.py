"""Small pieces of manifests that several products render in the same way. Pure."""

from __future__ import annotations

from haneul.kernel.kube import Manifest


def encryption_configuration(key: str) -> Manifest:
    """Return the configuration by which an API server encrypts Secrets with ``key``, 32 bytes in base 64.

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
                    {"secretbox": {"keys": [{"name": "first", "secret": key}]}},
                    {"identity": {}},
                ],
            }
        ],
    }
