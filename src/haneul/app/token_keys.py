"""Public keys of Kubernetes' service account tokens, from its own files to JSON Web Keys (RFC 7517)."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from joserfc.jwk import ECKey, RSAKey

_PEM: Final = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


def json_web_keys(pem: bytes) -> list[dict[str, Any]]:
    """Return public keys, one after the other in PEM, each with the name that tokens call it by.

    That is the hash of the key, as Kubernetes' API server makes it (``keyIDFromPublicKey`` of its service accounts).
    """
    return [_json_web_key(found) for found in _PEM.findall(pem)]


def _json_web_key(pem: bytes) -> dict[str, Any]:
    key = load_pem_public_key(pem)
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    made = RSAKey.import_key(pem) if isinstance(key, RSAPublicKey) else ECKey.import_key(pem)
    name = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    return {**made.as_dict(private=False), "kid": name, "use": "sig"}
