"""Tokens of the registry: short-lived, for named repositories (Docker's token specification, JSON Web Tokens).

Only the registry itself reads them, so they are signed with a key that it shares with nobody (HS256). A token that
was checked is remembered by its text until it ends, unless it is long: every request carries one.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from haneul.d2hub.model import Action, Grant
from haneul.kernel.clock import Clock
from haneul.kernel.errors import UnauthenticatedError

_ALGORITHM: Final = "HS256"
_REMEMBERED: Final = 10_000
#: Bytes of a token that is remembered: anybody gets tokens for what they ask for, and shall not fill the memory.
_LONGEST_REMEMBERED: Final = 4 << 10
#: Most scopes in one token: a client asks for a repository and those it mounts from.
MOST_SCOPES: Final = 20


@dataclass(frozen=True)
class Scope:
    """One thing that a client asks for: ``type:name:action,action``."""

    kind: str
    name: str
    actions: tuple[str, ...]


def parse_scopes(texts: Iterable[str]) -> list[Scope]:
    """Return scopes; several may stand in one text, divided by blanks. What is malformed is left out."""
    found = []
    for text in (part for whole in texts for part in whole.split()):
        kind, _, rest = text.partition(":")
        name, _, actions = rest.rpartition(":")
        if kind and name and actions:
            found.append(Scope(kind, name, tuple(actions.split(","))))
    return found[:MOST_SCOPES]


class Tokens:
    """Makes tokens and checks them."""

    def __init__(self, key: bytes, *, service: str, clock: Clock, life: int = 300) -> None:
        self._key = OctKey.import_key(key)
        self._clock = clock
        self._known: OrderedDict[str, Grant] = OrderedDict()
        self.service = service
        self.life = life

    def issue(
        self,
        account: str,
        access: Mapping[str, Iterable[Action]],
        asked: Mapping[str, Iterable[Action]],
        *,
        catalog: bool,
        maintenance: bool,
        proof: str = "",
    ) -> str:
        """Return a token for what was granted, which also says what was asked for."""
        now = int(self._clock.now().timestamp())
        claims = {
            "iss": self.service,
            "aud": self.service,
            "sub": account,
            "iat": now,
            "exp": now + self.life,
            "jti": secrets.token_hex(8),
            "access": {name: sorted(actions) for name, actions in access.items()},
            "asked": {name: sorted(actions) for name, actions in asked.items()},
            "catalog": catalog,
            "maintenance": maintenance,
        }
        if proof:
            claims["proof"] = proof
        return jwt.encode({"alg": _ALGORITHM, "typ": "JWT"}, claims, self._key, algorithms=[_ALGORITHM])

    def grant(self, token: str) -> Grant:
        """Return what a token allows. Raises UnauthenticatedError."""
        grant = self._known.get(token)
        if grant is None:
            grant = self._read(token)
            if len(token) <= _LONGEST_REMEMBERED:
                self._known[token] = grant
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        if grant.ends <= self._clock.now().timestamp():
            self._known.pop(token, None)
            raise UnauthenticatedError("the token has expired", hint="ask for another one")
        return grant

    def _read(self, token: str) -> Grant:
        try:
            claims: dict[str, Any] = jwt.decode(token, self._key, algorithms=[_ALGORITHM]).claims
            if claims["iss"] != self.service or claims["aud"] != self.service:
                raise _unknown()
            return Grant(
                str(claims["sub"]),
                float(claims["exp"]),
                _actions(claims["access"]),
                _actions(claims["asked"]),
                bool(claims["catalog"]),
                bool(claims["maintenance"]),
                str(claims.get("proof", "")),
            )
        except (JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unknown() from error


def _actions(claim: Mapping[str, Iterable[str]]) -> dict[str, frozenset[Action]]:
    return {name: frozenset(Action(action) for action in actions) for name, actions in claim.items()}


def _unknown() -> UnauthenticatedError:
    return UnauthenticatedError("the token is not one of this registry", hint="ask for another one")
