"""The tokens that the issuer signs (RFC 7519), and the check of those that come back.

Each kind has an audience of its own, so that none is taken for another: the platform's API, a client, a cluster.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jws import extract_compact
from joserfc.jwt import JWTClaimsRegistry

from haneul.identity.issuer.keys import KeyRing
from haneul.identity.issuer.model import ACCESS_LIFE, CLUSTER_LIFE, ES256, RS256, Client, Grant
from haneul.identity.model import Person
from haneul.kernel.clock import Clock
from haneul.kernel.errors import UnauthenticatedError

#: Media type of access tokens (RFC 9068, section 2.1).
ACCESS_TYPE: Final = "at+jwt"


def claims_of(person: Person, groups: tuple[str, ...], projects: tuple[str, ...], scope: str) -> dict[str, Any]:
    """Return what a scope lets a client know of a person (OpenID Connect Core, section 5.4)."""
    asked = scope.split()
    claims: dict[str, Any] = {"sub": person.name}
    if "profile" in asked:
        claims |= {"preferred_username": person.name, "name": person.display_name or person.name}
    if "email" in asked and person.email:
        # Addresses are an administrator's or the company's provider's word; nobody here has proved them.
        claims |= {"email": person.email, "email_verified": False}
    if "groups" in asked:
        claims["groups"] = list(groups)
    if "projects" in asked:
        claims["projects"] = list(projects)
    return claims


class Tokens:
    """Makes and verifies tokens."""

    def __init__(self, issuer: str, *, api: str, ring: KeyRing, clock: Clock) -> None:
        self._issuer = issuer
        self._api = api
        self._ring = ring
        self._clock = clock

    async def access(self, grant: Grant, client: Client, session: str) -> str:
        """Return an access token (RFC 9068). Only the platform's own clients get one for the platform's API."""
        audience = self._api if client.platform else self.userinfo_audience
        claims: dict[str, Any] = {"sub": grant.person}
        claims |= {"aud": audience, "client_id": client.id, "scope": grant.scope, "sid": session}
        claims |= {"auth_time": int(grant.auth_time.timestamp()), "jti": secrets.token_hex(8)}
        return await self._sign(claims, ACCESS_LIFE, kind=ACCESS_TYPE)

    async def identity(self, grant: Grant, client: Client, session: str, claims: dict[str, Any]) -> str:
        """Return an ID token (OpenID Connect Core, section 2)."""
        claims = {**claims, "aud": client.id, "auth_time": int(grant.auth_time.timestamp()), "sid": session}
        if grant.nonce:
            claims["nonce"] = grant.nonce
        return await self._sign(claims, ACCESS_LIFE, algorithm=client.algorithm)

    async def cluster(self, person: str, role: str, audience: str) -> str:
        """Return a token for one cluster, whose API server turns the group into rights. No client's id has a colon."""
        if ":" not in audience:
            raise ValueError("clients could be taken for clusters")
        return await self._sign({"sub": person, "aud": audience, "groups": [f"{role}s"]}, CLUSTER_LIFE)

    async def verify_access(self, token: str, *, userinfo: bool = False) -> dict[str, Any]:
        """Return an access token's claims. Raises UnauthenticatedError."""
        audiences = [self._api, *([self.userinfo_audience] if userinfo else [])]
        registry = JWTClaimsRegistry(
            now=int(self._clock.now().timestamp()),
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "values": audiences},
            exp={"essential": True},
            sub={"essential": True},
            sid={"essential": True},
        )
        try:
            kid = str(extract_compact(token.encode()).headers().get("kid", ""))
            decoded = jwt.decode(token, await self._ring.verifying(kid), algorithms=[ES256, RS256])
            registry.validate(decoded.claims)
        except (JoseError, ValueError) as error:
            raise _unknown() from error
        if decoded.header.get("typ") != ACCESS_TYPE:
            raise _unknown()
        return dict(decoded.claims)

    @property
    def userinfo_audience(self) -> str:
        """Return the audience of access tokens that are good for claims about the person and nothing else."""
        return f"{self._issuer}/userinfo"

    async def _sign(self, claims: dict[str, Any], life: timedelta, *, algorithm: str = ES256, kind: str = "JWT") -> str:
        key = await self._ring.signing(algorithm)
        now = self._clock.now()
        whole = {**claims, "iss": self._issuer, "iat": int(now.timestamp()), "exp": int((now + life).timestamp())}
        return jwt.encode({"alg": algorithm, "kid": key.kid, "typ": kind}, whole, key, algorithms=[algorithm])


def _unknown() -> UnauthenticatedError:
    return UnauthenticatedError("the token is unknown, expired or revoked", hint="run 'haneul login' again")
