"""Digests: what names content by its content (OCI image specification, "Digests")."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Protocol

from haneul.d2hub.errors import DigestInvalidError

#: Hexadecimal digits of each registered algorithm that is supported.
ALGORITHMS: Final = {"sha256": 64, "sha512": 128}
CANONICAL: Final = "sha256"
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


class Hasher(Protocol):
    """What hashlib returns."""

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""
        ...

    def hexdigest(self) -> str:
        """Return the hash so far."""
        ...


@dataclass(frozen=True)
class Digest:
    """An algorithm and a hash in small hexadecimal digits; its text is ``algorithm:hex``."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def is_digest(text: str) -> bool:
    """Say whether ``text`` is a well-formed digest of a supported algorithm."""
    return _DIGEST.fullmatch(text) is not None


def parse_digest(text: str) -> Digest:
    """Return a digest. Raises DigestInvalidError."""
    if not is_digest(text):
        raise DigestInvalidError(
            f"{text[:200]!r} is no digest of the algorithms {' and '.join(ALGORITHMS)}",
            hint="a digest reads sha256: and 64 small hexadecimal digits",
        )
    algorithm, _, digits = text.partition(":")
    return Digest(algorithm, digits)


def new_hasher(algorithm: str = CANONICAL) -> Hasher:
    """Return what takes in bytes and gives their hash."""
    return hashlib.new(algorithm)


def digest_of(data: bytes, algorithm: str = CANONICAL) -> Digest:
    """Return the digest of some bytes."""
    return Digest(algorithm, hashlib.new(algorithm, data).hexdigest())
