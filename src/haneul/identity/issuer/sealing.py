"""Sealing: what the database keeps of keys and foreign tokens is of no use without a file beside it.

Fernet of the ``cryptography`` library (AES-128-CBC with HMAC-SHA-256). The file holds one key a line, the newest
first: a new first line seals from then on, and the others still open.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from haneul.kernel.errors import HaneulError
from haneul.kernel.files import NotPrivateError, read_private

_OWNER_ONLY = 0o600


class Sealer:
    """Seals and opens texts."""

    def __init__(self, keys: list[bytes]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    @classmethod
    def from_file(cls, path: Path) -> Sealer:
        """Return the sealer of a key file, which is made if it is not there; of several makers one wins."""
        if not path.exists():
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
            with os.fdopen(descriptor, "wb") as file:
                file.write(Fernet.generate_key() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, path)
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
        try:
            return cls(read_private(path).encode().split())
        except NotPrivateError as error:
            raise HaneulError(
                f"others may read {path}, which seals the platform's signing keys", hint=f"chmod 600 {path}"
            ) from error

    def seal(self, text: str) -> str:
        """Return a text so that only this file's keys open it."""
        return self._fernet.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """Return what was sealed. Raises HaneulError if it was sealed with another file."""
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken as error:
            raise HaneulError(
                "the database was sealed with another key file", hint="put the file back that belongs to the database"
            ) from error
