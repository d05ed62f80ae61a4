"""Whom programs trust: the authorities of Debian's ca-certificates, in the forms that programs read."""

from __future__ import annotations

import hashlib
import ssl
import struct
from collections.abc import Mapping
from typing import Final

# The Java keystore of the first form ("JKS"): every Java reads it, and nothing in it is random. Its digest is no
# secret's: the password is the one that every Java tries by itself.
_MAGIC: Final = 0xFEEDFEED
_VERSION: Final = 2
_TRUSTED: Final = 2
_PASSWORD: Final = "changeit"  # noqa: S105 - as above
_SALT: Final = b"Mighty Aphrodite"


def pem_bundle(authorities: Mapping[str, bytes]) -> bytes:
    """Return all certificates (PEM, by name) in one file, in the order of their names."""
    return b"".join(authorities[name].rstrip(b"\n") + b"\n" for name in sorted(authorities))


def java_truststore(authorities: Mapping[str, bytes], *, date: int) -> bytes:
    """Return all certificates (PEM, by name) as a Java keystore; ``date`` is seconds since the epoch."""
    parts = [struct.pack(">III", _MAGIC, _VERSION, len(authorities))]
    for name in sorted(authorities):
        certificate = ssl.PEM_cert_to_DER_cert(authorities[name].decode("ascii").strip())
        parts += [struct.pack(">I", _TRUSTED), _text(name.lower()), struct.pack(">Q", date * 1000)]
        parts += [_text("X.509"), struct.pack(">I", len(certificate)), certificate]
    content = b"".join(parts)
    # SHA-1 is what the form has.
    return content + hashlib.sha1(_PASSWORD.encode("utf-16-be") + _SALT + content, usedforsecurity=False).digest()


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">H", len(data)) + data
