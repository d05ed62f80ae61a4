"""What only the gate can make and read: cookies, sealed with keys that rotate. Pure, but for the chance in it.

AES-256-GCM of the ``cryptography`` library. What is sealed says with which key; for what purpose and which domain it is
is sealed in with it (as associated data), so that nothing is taken for something else: no cookie of another domain, no
begun sign-on for a session. The newest key whose time has come seals; all others still open.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from haneul.kernel.errors import InvalidInputError

_BITS: Final = 256
_NONCE: Final = 12
#: A new key seals from so long after it was written: by then every gate that reads the file can open what it seals.
AHEAD: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Key:
    """A key of 32 bytes, and from when on it seals."""

    id: str
    seals_from: datetime
    secret: bytes


def new_key(seals_from: datetime) -> Key:
    """Return a key of chance."""
    return Key(secrets.token_hex(4), seals_from.replace(microsecond=0), AESGCM.generate_key(_BITS))


def rotated(keys: Sequence[Key], *, now: datetime, life: timedelta) -> list[Key]:
    """Return the keys with a new one, without those that sealed nothing which is still good.

    A key seals until the next one's time comes; what it sealed last is good for ``life`` from then.
    """
    ordered = sorted(keys, key=lambda key: key.seals_from)
    kept = [
        key
        for key, successor in zip(ordered, [*ordered[1:], None], strict=True)
        if successor is None or successor.seals_from + life > now
    ]
    return [*kept, new_key(now + AHEAD)]


def as_text(keys: Sequence[Key]) -> str:
    """Return the file of keys: one a line, with its id, from when it seals, and the key in base64."""
    return "".join(
        f"{key.id} {key.seals_from.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} {base64.b64encode(key.secret).decode()}\n"
        for key in keys
    )


def from_text(text: str) -> list[Key]:
    """Return the keys of a file. Raises InvalidInputError, which does not repeat what stands there."""
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            identity, moment, secret = line.split()
            key = Key(identity, datetime.fromisoformat(moment), base64.b64decode(secret, validate=True))
        except (ValueError, binascii.Error) as error:
            raise _unreadable(number) from error
        if len(key.secret) * 8 != _BITS or key.seals_from.tzinfo is None or "." in identity or not identity.isascii():
            raise _unreadable(number)
        keys.append(key)
    if not keys:
        raise InvalidInputError("the file of keys is empty", hint="remove it, and a new one is made")
    return keys


class Keyring:
    """Seals and opens for one domain."""

    def __init__(self, domain: str, keys: Sequence[Key]) -> None:
        self._domain = domain
        self._keys = sorted(keys, key=lambda key: key.seals_from)
        self._ciphers = {key.id: AESGCM(key.secret) for key in keys}

    def seal(self, purpose: str, content: bytes, *, now: datetime) -> str:
        """Return content as text that fits into a cookie: the key's id, a dot, and base64 without padding."""
        due = [key for key in self._keys if key.seals_from <= now]
        key = due[-1] if due else self._keys[0]
        nonce = secrets.token_bytes(_NONCE)
        sealed = nonce + self._ciphers[key.id].encrypt(nonce, content, self._about(purpose, key.id))
        return f"{key.id}.{_as_cookie(sealed)}"

    def open(self, purpose: str, text: str) -> bytes | None:
        """Return what was sealed for a purpose; None for what was not, or was changed."""
        identity, _, encoded = text.partition(".")
        cipher = self._ciphers.get(identity)
        if cipher is None:
            return None
        try:
            sealed = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
            # There is more than one way to write the same bytes (RFC 4648, sections 3.5 and 5), and one is ours.
            if _as_cookie(sealed) != encoded:
                return None
            return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], self._about(purpose, identity))
        except (InvalidTag, ValueError):
            return None

    def knows(self, text: str) -> bool:
        """Say whether a text names a key that is here."""
        return text.partition(".")[0] in self._ciphers

    def _about(self, purpose: str, identity: str) -> bytes:
        return f"haneul-auth {self._domain} {purpose} {identity}".encode()


def _as_cookie(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def _unreadable(line: int) -> InvalidInputError:
    return InvalidInputError(
        f"line {line} of the file of keys is none", hint="put the file back, or remove it: everybody signs on again"
    )
