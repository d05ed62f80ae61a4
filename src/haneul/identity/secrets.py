"""Token secrets: made, hashed with Argon2id (RFC 9106), and checked.

A token reads ``haneul_<id>_<secret>``. The hash is deliberately slow; a token that was just checked is remembered for
a short while by the SHA-256 of its text, so that a busy client does not pay for it on every request.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from haneul.kernel.clock import Clock
from haneul.kernel.errors import UnauthenticatedError

_REMEMBER_SECONDS: Final = 30.0
_REMEMBER_MOST: Final = 1000


def new_token(mark: str = "") -> tuple[str, str, str]:
    """Return a fresh token's id, which begins with ``mark``, its secret, and its whole text."""
    identity, secret = mark + secrets.token_hex(6), secrets.token_urlsafe(32)
    return identity, secret, f"haneul_{identity}_{secret}"


def split_token(text: str) -> tuple[str, str]:
    """Return a token's id and secret. Raises UnauthenticatedError if it has not a token's form."""
    prefix, _, rest = text.partition("_")
    identity, _, secret = rest.partition("_")
    if prefix != "haneul" or not identity or not secret:
        raise UnauthenticatedError(
            "the token has not the form of a Haneul token", hint="run 'haneul login' with a token that was shown whole"
        )
    return identity, secret


@dataclass(frozen=True)
class Work:
    """What a hash costs: passes over memory, and KiB of it."""

    passes: int
    memory_kib: int


#: Enough for secrets that somebody may have chosen (OWASP, "Password Storage Cheat Sheet").
WORK: Final = Work(passes=2, memory_kib=19 * 1024)


class SecretHasher:
    """Hashes secrets, and checks them against their hashes."""

    def __init__(self, clock: Clock, work: Work = WORK) -> None:
        self._clock = clock
        self._hasher = PasswordHasher(time_cost=work.passes, memory_cost=work.memory_kib, parallelism=1)
        self._checked: OrderedDict[tuple[str, str], float] = OrderedDict()
        # Of no token: what is checked when there is none, so that the answer takes as long.
        self._decoy = self._hasher.hash(secrets.token_urlsafe(32))

    def hash(self, secret: str) -> str:
        """Return the secret's hash with its salt and parameters."""
        return self._hasher.hash(secret)

    def matches(self, hashed: str | None, secret: str) -> bool:
        """Say whether ``secret`` is the one that was hashed; never where nothing was, after just as long."""
        if hashed is None:
            self._verified(self._decoy, secret)
            return False
        key = (hashed, hashlib.sha256(secret.encode()).hexdigest())
        now = self._clock.monotonic()
        if (until := self._checked.get(key)) is not None and now < until:
            return True
        if not self._verified(hashed, secret):
            return False
        self._checked[key] = now + _REMEMBER_SECONDS
        while len(self._checked) > _REMEMBER_MOST:
            self._checked.popitem(last=False)
        return True

    def _verified(self, hashed: str, secret: str) -> bool:
        try:
            return self._hasher.verify(hashed, secret)
        except (VerificationError, InvalidHashError):
            return False
