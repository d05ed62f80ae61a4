"""Programs that sign in by what they are: a build's or a pod's own OpenID Connect token, and no stored secret.

Whoever runs the hub says which issuers it trusts, and what tokens with which claims may do. A token is taken if it was
signed by its issuer with an algorithm that the trust names, is for this hub (``aud``), is good now, does not live for
longer than a day, and has the claims of at least one rule; it may what all such rules say together (OpenID Connect
Core, section 3.1.3.7; RFC 8725). Before the signature was checked nothing is done by what a token says but to look up
its issuer.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import structlog
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry

from haneul.d2hub.issuer_keys import IssuerKeys, KeySource
from haneul.d2hub.model import Account, Allowance
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ForbiddenError, HaneulError, UnauthenticatedError, UnavailableError

_log = structlog.get_logger(__name__)
#: The user name that such a token is the password of.
WORKLOAD_USER: Final = "oidc"
#: Begins the names of their accounts, which no person's or robot's does.
_MARK: Final = "oidc:"
#: What tokens may be signed with. Symmetric algorithms are none: who checks could sign, too (RFC 8725, section 2.1).
ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
_LONGEST_TOKEN: Final = 16 << 10
_LONGEST_SUBJECT: Final = 200
_LEEWAY_SECONDS: Final = 30
_LONGEST_LIFE_SECONDS: Final = 86_400
_HINT: Final = "whoever runs the hub says in workloads.yaml whom it trusts"


class WorkloadRefusedError(UnauthenticatedError):
    """A workload's token is malformed, not signed by an issuer that the hub trusts, for others, or not good now."""

    code = "workload-refused"
    title = "The workload's token is not taken"


@dataclass(frozen=True)
class WorkloadRule:
    """What tokens may do whose claims match: of each claim one pattern, which are those of file names."""

    claims: Mapping[str, tuple[str, ...]]
    allowance: Allowance

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Say whether a token's claims are those of this rule."""
        return all(
            any(fnmatch.fnmatchcase(text, pattern) for text in _texts(claims.get(name)) for pattern in patterns)
            for name, patterns in self.claims.items()
        )


@dataclass(frozen=True)
class Trust:
    """An issuer whose tokens are taken, if they are for ``audience``. ``name`` is what the hub calls it.

    Of one whose ``keys`` are given nobody is asked for keys, and only tokens count that name one of them.
    """

    name: str
    issuer: str
    audience: str
    rules: tuple[WorkloadRule, ...]
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    jwks_url: str = ""
    jwks_file: Path | None = None
    authority: Path | None = None
    keys: KeySet | None = field(default=None, compare=False)

    def may_have_signed(self, issuer: object, kid: object) -> bool:
        """Say whether a token of which nothing is proved may be this one's."""
        known = self.keys is None or any(key.kid == kid for key in self.keys.keys)
        return self.issuer == issuer and known

    @property
    def source(self) -> KeySource:
        """Return where its keys are."""
        return KeySource(self.issuer, self.jwks_url, self.jwks_file, self.authority)


class Trusts(Protocol):
    """Knows which issuers are trusted."""

    def trusts(self) -> Sequence[Trust]:
        """Return them. Several may have the same issuer, but other keys: Kubernetes clusters seldom choose a name."""
        ...


class Workloads:
    """Signs workloads in."""

    def __init__(self, trusts: Trusts, keys: IssuerKeys, *, clock: Clock) -> None:
        self._trusts, self._keys, self._clock = trusts, keys, clock

    async def sign_in(self, token: str) -> Account:
        """Return the account of a token, with all that it may.

        Raises WorkloadRefusedError, ForbiddenError if no rule is for it, UnavailableError if its issuer's keys cannot
        be had now.
        """
        header, unproved = _parts(token)
        issuer = unproved.get("iss")
        problem: HaneulError = _refused(f"its issuer {_shown(issuer)} is not trusted here")
        for trust in self._trusts.trusts():
            if not trust.may_have_signed(issuer, header.get("kid")):
                continue
            try:
                claims = await self._signed(trust, token, header)
            except WorkloadRefusedError as error:
                # One whose keys cannot be had now may be the right one.
                problem = problem if isinstance(problem, UnavailableError) else error
            except UnavailableError as error:
                problem = error
            else:
                self._check(trust, claims)
                return self._account(trust, claims)
        raise problem

    async def _signed(self, trust: Trust, token: str, header: Mapping[str, Any]) -> dict[str, Any]:
        """Return a token's claims if its signature is of a trusted key. Raises WorkloadRefusedError."""
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in trust.algorithms:
            raise _refused(f"it is signed with {_shown(algorithm)}, and {', '.join(trust.algorithms)} are taken")
        keys = trust.keys or await self._keys.of(trust.source, kid if isinstance(kid, str) else None)
        try:
            return jwt.decode(token, keys, algorithms=list(trust.algorithms)).claims
        except (JoseError, ValueError, RecursionError) as error:
            raise _refused(f"it was not signed by {trust.issuer}") from error

    def _check(self, trust: Trust, claims: dict[str, Any]) -> None:
        registry = JWTClaimsRegistry(
            now=int(self._clock.now().timestamp()),
            leeway=_LEEWAY_SECONDS,
            iss={"essential": True, "value": trust.issuer},
            aud={"essential": True, "value": trust.audience},
            sub={"essential": True},
            iat={"essential": True},
            exp={"essential": True},
        )
        try:
            registry.validate(claims)
        except ExpiredTokenError as error:
            raise _refused("it has expired", hint="have its issuer make another one") from error
        except MissingClaimError as error:
            raise _refused(f"it says nothing of {error.claim!r}") from error
        except InvalidClaimError as error:
            if error.claim == "aud":
                raise _refused(
                    f"it is for {_shown(claims['aud'])}, not for {trust.audience}",
                    hint="have its issuer make one for this audience",
                ) from error
            raise _refused(f"what it says of {error.claim!r} does not hold") from error
        except JoseError as error:
            raise _refused("its claims do not hold") from error
        if claims["exp"] - claims["iat"] > _LONGEST_LIFE_SECONDS:
            raise _refused("it lives for longer than a day", hint="that is a stored secret; ask for a shorter one")
        subject = claims["sub"]
        if not 0 < len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
            raise _refused(f"its subject has more than {_LONGEST_SUBJECT} characters, or some that none has")

    def _account(self, trust: Trust, claims: dict[str, Any]) -> Account:
        name = f"{_MARK}{trust.name}:{claims['sub']}"
        allowances = tuple(rule.allowance for rule in trust.rules if rule.matches(claims))
        if not allowances:
            _log.info("no rule for a workload", account=name)
            raise ForbiddenError(f"{claims['sub']} of {trust.issuer} may nothing here", hint=_HINT)
        _log.info("workload signed in", account=name)
        return Account(name, allowances=allowances)


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a token's header and claims, of which nothing is proved. Raises WorkloadRefusedError."""
    parts = token.split(".") if len(token) <= _LONGEST_TOKEN else []
    if len(parts) != 3:
        raise _refused("it is no signed JSON Web Token")
    header, claims = (_object(part) for part in parts[:2])
    return header, claims


def _object(part: str) -> dict[str, Any]:
    try:
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise _refused("it is no signed JSON Web Token") from error
    if not isinstance(found, dict):
        raise _refused("it is no signed JSON Web Token")
    return found


def _texts(value: Any) -> Sequence[str]:
    """Return what a claim says, to be compared: a text, a number, yes or no, or any of a list of these."""
    match value:
        case bool():
            return ["true" if value else "false"]
        case str() | int():
            return [str(value)]
        case list():
            return [str(entry) for entry in value if isinstance(entry, str)]
        case _:
            return []


def _shown(value: Any) -> str:
    return repr(value)[:200]


def _refused(why: str, *, hint: str = "") -> WorkloadRefusedError:
    return WorkloadRefusedError(f"the token is not taken: {why}", hint=hint or _HINT)
