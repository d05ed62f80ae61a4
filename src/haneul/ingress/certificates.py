"""Certificates in Secrets: read whole, and held against the hosts that they are for. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from haneul.ingress.model import Certificate
from haneul.kernel.kube import Manifest

#: Bits of a key: with longer ones each handshake, and each look at the key, keeps everybody else waiting.
LONGEST_KEY: Final = 4096
#: Bytes of a chain and its key.
LARGEST: Final = 64 << 10


def read_certificate(secret: Manifest) -> Certificate:
    """Return the certificate of a Secret of type ``kubernetes.io/tls``, written anew. Raises ValueError."""
    chain, key = _data(secret, "tls.crt"), _data(secret, "tls.key")
    if len(chain) + len(key) > LARGEST:
        raise ValueError(f"its tls.crt and tls.key have more than {LARGEST} bytes")
    # Both digests have one length, so no other two texts make the same name.
    digest = hashlib.sha256(chain).digest() + hashlib.sha256(key).digest()
    found = _parsed(_Pair(digest, chain, key))
    if isinstance(found, str):
        raise ValueError(found)
    return found


@dataclass(frozen=True)
class _Pair:
    """What a Secret holds, known by its digest."""

    digest: bytes
    chain: bytes = field(compare=False, repr=False)
    key: bytes = field(compare=False, repr=False)


@lru_cache(maxsize=1024)
def _parsed(pair: _Pair) -> Certificate | str:
    """Return a certificate, or what is wrong with it; once, as it takes long to see whether an RSA key is one."""
    try:
        return _read(pair.chain, pair.key)
    except ValueError as error:
        return str(error)


def _read(encoded_chain: bytes, encoded_key: bytes) -> Certificate:
    chain = _certificates(encoded_chain, "tls.crt")
    # Before it is held against anything: what that takes grows with the third power of its length.
    if getattr(_private_key(encoded_key, proven=False), "key_size", 0) > LONGEST_KEY:
        raise ValueError(f"its tls.key has more than {LONGEST_KEY} bits")
    key = _private_key(encoded_key, proven=True)
    public = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*public) != chain[0].public_key().public_bytes(*public):
        raise ValueError("its tls.key is not the key of the first certificate in tls.crt")
    written = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificate(_pem(chain), written)


def checked_certificate(chain: bytes, key: bytes, host: str) -> Certificate:
    """Return a certificate that was given for a host, PEM, written anew. Raises ValueError."""
    encoded = {"tls.crt": base64.b64encode(chain).decode(), "tls.key": base64.b64encode(key).decode()}
    certificate = read_certificate({"data": encoded})
    if why := uncovered(certificate, host):
        raise ValueError(why)
    return certificate


def read_authority(secret: Manifest) -> bytes:
    """Return the authorities in a Secret's ``ca.crt``, written anew, PEM. Raises ValueError."""
    return _pem(_certificates(_data(secret, "ca.crt"), "ca.crt"))


def uncovered(certificate: Certificate, host: str) -> str:
    """Return why clients would not take a certificate for a host; empty if they would, its time left aside."""
    leaf = x509.load_pem_x509_certificate(certificate.chain)
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return "it names no hosts"
    found = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    wildcard = f"*.{host.partition('.')[2]}"
    return "" if host in found or wildcard in found else f"it is not for {host}"


def out_of_time(certificate: Certificate, now: datetime) -> str:
    """Return why clients would not take a certificate at a moment, in UTC; empty if they would."""
    leaf = x509.load_pem_x509_certificate(certificate.chain)
    if now > leaf.not_valid_after_utc:
        return f"it ended at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if now < leaf.not_valid_before_utc:
        return f"it begins at {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    return ""


def _private_key(encoded: bytes, *, proven: bool) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(encoded, None, unsafe_skip_rsa_key_validation=not proven)
    except (ValueError, TypeError) as error:
        raise ValueError("its tls.key is no private key without a password, in PEM") from error


def _certificates(encoded: bytes, name: str) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(encoded)
    except ValueError as error:
        raise ValueError(f"its {name} holds no certificates in PEM") from error


def _data(secret: Manifest, name: str) -> bytes:
    try:
        return base64.b64decode((secret.get("data") or {})[name], validate=True)
    except (KeyError, ValueError) as error:
        raise ValueError(f"it has no {name}") from error


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)
