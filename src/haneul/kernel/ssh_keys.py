"""Keys for signing in by SSH: made here or given, in OpenSSH's formats (RFC 4253 section 6.6, RFC 8709)."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from haneul.kernel.errors import InvalidInputError

_LEAST_RSA_BITS = 3072


@dataclass(frozen=True)
class SshKey:
    """A key pair: the private half in OpenSSH's format, the public half as a line of ``authorized_keys``."""

    private: bytes = field(repr=False)
    public: str


def new_ssh_key(name: str) -> SshKey:
    """Return a fresh Ed25519 key whose public line ends with a comment that names it."""
    return _pair(Ed25519PrivateKey.generate(), name)


def ssh_key_from(text: bytes, name: str) -> SshKey:
    """Return the pair of a private key that somebody gave. Raises InvalidInputError for what is none, or too weak."""
    hint = "give an unencrypted private key of Ed25519, ECDSA or RSA with 3072 bits, as ssh-keygen makes it"
    try:
        if b"OPENSSH" in text.partition(b"\n")[0]:
            key: object = serialization.load_ssh_private_key(text, password=None)
        else:
            key = serialization.load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidInputError("that is no private key that can be read", hint=hint) from error
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _LEAST_RSA_BITS:
        raise InvalidInputError(f"an RSA key of {key.key_size} bits is too weak", hint=hint)
    if not isinstance(key, (Ed25519PrivateKey, ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise InvalidInputError("keys of that kind do not sign in to machines", hint=hint)
    return _pair(key, name)


def _pair(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, name: str) -> SshKey:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return SshKey(private, f"{public.decode()} haneul-{name}")
