"""Closes what a token carries for the hub itself and nobody else may read."""

from __future__ import annotations

import base64
from typing import Final

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

#: Makes the key another one than that which signs tokens (RFC 5869, section 3.2).
_PURPOSE: Final = b"haneul d2hub: sign-ins in tokens"


class Seal:
    """Closes and opens texts with a key that is made from the hub's own. All processes of one hub share it."""

    def __init__(self, key: bytes) -> None:
        made = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(key)
        self._fernet = Fernet(base64.urlsafe_b64encode(made))

    def close(self, text: str) -> str:
        """Return a text that only :meth:`open` reads."""
        return self._fernet.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str | None:
        """Return what was closed, or None if it was not closed with this key."""
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except (InvalidToken, UnicodeDecodeError):
            return None
