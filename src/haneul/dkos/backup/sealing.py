"""Encryption of a backup's objects, whatever their size, with a key that is the cluster's own.

Each object has a key of its own, derived from the cluster's key, a random salt and the object's name (HKDF with
SHA-256, RFC 5869). The content is sealed in pieces of a mebibyte by AES-256-GCM; the nonce is the number of the piece,
and whether it is the last. So nobody can change, exchange, reorder or cut off anything without being noticed (the
construction is STREAM: Hoang, Reyhanitabar, Rogaway, Vizár, "Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance", section 7).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from haneul.kernel.errors import BackupDamagedError

KEY_BYTES: Final = 32
_MAGIC: Final = b"haneul-backup-1\n"
_SALT_BYTES: Final = 32
_PIECE: Final = 1 << 20
_TAG: Final = 16


def new_key() -> bytes:
    """Return a fresh key for a cluster's backup."""
    return os.urandom(KEY_BYTES)


async def seal(key: bytes, name: str, content: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield ``content`` sealed under the object's ``name``."""
    salt = os.urandom(_SALT_BYTES)
    cipher = _cipher(key, name, salt)
    yield _MAGIC + salt
    number = 0
    async for piece, last in _pieces(content, _PIECE):
        yield cipher.encrypt(_nonce(number, last=last), piece, None)
        number += 1


async def open_sealed(key: bytes, name: str, content: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield what was sealed under ``name``. Raises BackupDamagedError at the first byte that is not so.

    What was yielded before is good; that all of it was there is certain only at the end.
    """
    head = len(_MAGIC) + _SALT_BYTES
    cipher: AESGCM | None = None
    number = 0
    async for piece, last in _pieces(content, _PIECE + _TAG, head=head):
        if cipher is None:
            if len(piece) != head or not piece.startswith(_MAGIC):
                raise _damaged(name)
            cipher = _cipher(key, name, piece[len(_MAGIC) :])
            if last:
                raise _damaged(name)
            continue
        try:
            yield cipher.decrypt(_nonce(number, last=last), piece, None)
        except InvalidTag as error:
            raise _damaged(name) from error
        number += 1


def _damaged(name: str) -> BackupDamagedError:
    return BackupDamagedError(
        f"{name} is not what was written there", hint="restore another moment, from before or after it"
    )


def _cipher(key: bytes, name: str, salt: bytes) -> AESGCM:
    derived = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=b"haneul backup " + name.encode())
    return AESGCM(derived.derive(key))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


async def _pieces(content: AsyncIterable[bytes], size: int, *, head: int = 0) -> AsyncIterator[tuple[bytes, bool]]:
    """Yield ``content`` in pieces of ``size`` bytes, the first of ``head`` if given; with each, if it is the last."""
    buffer = bytearray()
    wanted = head or size
    async for part in content:
        buffer += part
        # A piece is given out when something comes after it, so that the last one is known to be it.
        while len(buffer) > wanted:
            yield bytes(buffer[:wanted]), False
            del buffer[:wanted]
            wanted = size
    yield bytes(buffer), True
