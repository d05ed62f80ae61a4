"""The protocol towards an OpenID Connect provider, as its client.

OpenID Connect Core and Discovery; RFC 6749 (codes, refresh tokens), 7009 (revocation), 7517 (keys), 7636 (PKCE), 9207
(who answers). What the provider says of itself, and its keys, are remembered: while it is away, tokens that it signed
before are still told from forged ones.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

import httpx2
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import extract_compact
from joserfc.jwt import JWTClaimsRegistry

from haneul.kernel.clock import Clock
from haneul.kernel.errors import UnauthenticatedError, UnavailableError

_METADATA_SECONDS: Final = 300.0
#: How old keys may become while the provider does not answer.
_STALE_SECONDS: Final = 24 * 3600.0
#: Keys are asked for anew at most so often: whoever sends forged tokens shall not make us ask for each of them.
_KEYS_APART_SECONDS: Final = 5.0
_LEEWAY_SECONDS: Final = 60
#: None of these has a key that the provider shares with its clients, and "none" is none of them.
_ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
_LONGEST_ANSWER: Final = 1 << 20


@dataclass(frozen=True)
class OpenIdAccess:
    """Who the provider is, and who we are to it. ``name`` is what people call it; the file has our secret alone.

    ``patience`` is how many seconds an answer may take.
    """

    name: str
    issuer: str
    client_id: str
    client_secret_file: Path
    scopes: tuple[str, ...]
    authority_file: Path | None = None
    patience: float = 5.0


class GrantRefusedError(Exception):
    """The provider said no to a code or refresh token: it was none, the person left, or their sign-on there ended."""


@dataclass(frozen=True)
class Asked:
    """A request to the provider: where the browser goes, and what its answer is checked with."""

    url: str
    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True)
class Said:
    """What the provider said: claims of a verified ID token, if it gave one, and a refresh token."""

    claims: dict[str, Any] | None
    refresh_token: str


class OpenIdClient:
    """A client of one provider."""

    def __init__(self, access: OpenIdAccess, callback: str, *, clock: Clock) -> None:
        self._access = access
        self._callback = callback
        self._clock = clock
        self._http: httpx2.AsyncClient | None = None
        self._metadata: tuple[float, dict[str, Any]] | None = None
        self._keys: tuple[float, KeySet] | None = None
        self._keys_asked = -_KEYS_APART_SECONDS

    @property
    def issuer(self) -> str:
        """Return the provider's issuer URL."""
        return self._access.issuer

    async def ask(self, *, prompt: str = "") -> Asked:
        """Return where to send a browser to. Raises UnavailableError."""
        metadata = await self._discover()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        query = {
            "response_type": "code",
            "client_id": self._access.client_id,
            "redirect_uri": self._callback,
            "scope": " ".join(self._access.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge_of(verifier),
            "code_challenge_method": "S256",
            "prompt": prompt,
        }
        return Asked(with_parameters(metadata["authorization_endpoint"], query), state, nonce, verifier)

    async def redeem(self, answer: Mapping[str, str], *, nonce: str, verifier: str) -> Said:
        """Turn what the browser brought back into claims. Raises UnauthenticatedError and UnavailableError."""
        metadata = await self._discover()
        if metadata.get("authorization_response_iss_parameter_supported") or "iss" in answer:
            self._demand(answer.get("iss") == self._access.issuer, "the answer is of another provider")
        if "error" in answer:
            raise self._refused(f"the provider said {answer['error'][:60]}")
        form = {"grant_type": "authorization_code", "code": answer.get("code", ""), "redirect_uri": self._callback}
        try:
            said = await self._token({**form, "code_verifier": verifier})
        except GrantRefusedError as error:
            raise self._refused("the provider did not know the code") from error
        self._demand(said.claims is not None and said.claims.get("nonce") == nonce, "the answer is for another request")
        return said

    async def refresh(self, token: str) -> Said:
        """Ask about a person again. Raises GrantRefusedError, and UnavailableError where nothing was said."""
        said = await self._token({"grant_type": "refresh_token", "refresh_token": token})
        return Said(said.claims, said.refresh_token or token)

    async def revoke(self, token: str) -> None:
        """Have the provider end what a refresh token is for, if it can (RFC 7009). Raises UnavailableError."""
        endpoint = (await self._discover()).get("revocation_endpoint")
        if isinstance(endpoint, str):
            await self._post(endpoint, {"token": token, "token_type_hint": "refresh_token"})

    async def verified(self, token: str, audiences: Sequence[str], *, direct: bool = False) -> dict[str, Any]:
        """Return the claims of a token that the provider signed for one of the audiences.

        ``direct`` says that the provider itself just gave it to us: its keys are asked for at once if they do not fit,
        which others' tokens must not bring about at will.
        Raises UnauthenticatedError, and UnavailableError where the provider's keys are not known and not to be had.
        """
        registry = JWTClaimsRegistry(
            now=int(self._clock.now().timestamp()),
            leeway=_LEEWAY_SECONDS,
            iss={"essential": True, "value": self._access.issuer},
            aud={"essential": True, "values": list(audiences)},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
        )
        keys = self._keys
        for fresh in (False, True):
            try:
                decoded = jwt.decode(token, await self._key_set(fresh=fresh, direct=direct), algorithms=_ALGORITHMS)
                registry.validate(decoded.claims)
            except (JoseError, ValueError) as error:
                # Once more with keys asked for anew, if it names none that is known: the provider may have rotated.
                if fresh or self._keys is not keys or self._knows(token):
                    raise self._refused("the token is not signed by the provider, or not for us") from error
                continue
            return dict(decoded.claims)
        raise AssertionError("the second turn returns or raises")

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()

    async def _token(self, form: dict[str, str]) -> Said:
        response = await self._post((await self._discover())["token_endpoint"], form)
        answer = _json(response)
        if response.status_code in (400, 401, 403) and answer.get("error") == "invalid_grant":
            raise GrantRefusedError
        if response.status_code != 200:
            raise UnavailableError(
                f"the sign-on provider answered {response.status_code} {answer.get('error', '')}".rstrip(),
                hint="an administrator finds the cause in the provider's own log",
            )
        claims = None
        if "id_token" in answer:
            us = self._access.client_id
            claims = await self.verified(str(answer["id_token"]), [us], direct=True)
            # OpenID Connect Core, section 3.1.3.7.
            self._demand(claims.get("azp", us) == us, "it is for others")
        return Said(claims, str(answer.get("refresh_token", "")))

    async def _post(self, url: str, form: dict[str, str]) -> httpx2.Response:
        """Send a form as ourselves (RFC 6749, section 2.3.1)."""
        secret = self._access.client_secret_file.read_text().strip()
        return await self._send(
            "POST",
            url,
            content=urlencode(form),
            auth=httpx2.BasicAuth(quote_plus(self._access.client_id), quote_plus(secret)),
            headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
        )

    async def _key_set(self, *, fresh: bool, direct: bool) -> KeySet:
        known, now = self._keys, self._clock.monotonic()
        if known is None:
            self._keys = now, await self._fetched_keys()
            return self._keys[1]
        age = now - known[0]
        asked_lately = now - self._keys_asked < _KEYS_APART_SECONDS and not (fresh and direct)
        if asked_lately or not (fresh or age >= _METADATA_SECONDS):
            return known[1]
        self._keys_asked = now
        try:
            self._keys = now, await self._fetched_keys()
        except UnavailableError:
            # While the provider is away its keys are what they were; not for ever, as it may have withdrawn one.
            if fresh or age >= _STALE_SECONDS:
                raise
        return self._keys[1] if self._keys is not None else known[1]

    async def _fetched_keys(self) -> KeySet:
        answer = _json(await self._send("GET", (await self._discover())["jwks_uri"]))
        try:
            return KeySet.import_key_set(answer)  # type: ignore[arg-type]  # it is checked there
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise UnavailableError("the sign-on provider's keys are not readable") from error

    def _knows(self, token: str) -> bool:
        """Say whether a token names one of the keys that are known."""
        try:
            kid = extract_compact(token.encode()).headers().get("kid")
        except (JoseError, ValueError):
            return True
        return self._keys is not None and any(key.kid == kid for key in self._keys[1].keys if kid)

    async def _discover(self) -> dict[str, Any]:
        now = self._clock.monotonic()
        if self._metadata is None or now - self._metadata[0] > _METADATA_SECONDS:
            response = await self._send("GET", f"{self._access.issuer.rstrip('/')}/.well-known/openid-configuration")
            metadata = _json(response)
            needed = ("authorization_endpoint", "token_endpoint", "jwks_uri")
            whole = response.status_code == 200 and all(isinstance(metadata.get(name), str) for name in needed)
            if not whole or metadata.get("issuer") != self._access.issuer:
                raise UnavailableError(
                    f"{self._access.issuer} does not describe itself as an OpenID Connect provider",
                    hint="compare the issuer URL, to the letter, with the one in its discovery document",
                )
            self._metadata = (now, metadata)
        return self._metadata[1]

    async def _send(self, method: str, url: str, **arguments: Any) -> httpx2.Response:
        if self._http is None:
            authority = self._access.authority_file
            verify = ssl.create_default_context(cafile=str(authority)) if authority else True
            self._http = httpx2.AsyncClient(timeout=self._access.patience, verify=verify, follow_redirects=False)
        try:
            return await self._http.request(method, url, **arguments)
        except httpx2.HTTPError as error:
            raise UnavailableError(
                f"the sign-on provider of {self._access.name} does not answer: {error}", hint="try again in a while"
            ) from error

    def _demand(self, condition: bool, why: str) -> None:
        if not condition:
            raise self._refused(why)

    def _refused(self, why: str) -> UnauthenticatedError:
        return UnauthenticatedError(f"signing on at {self._access.name} did not succeed: {why}", hint="try again")


def challenge_of(verifier: str) -> str:
    """Return the S256 challenge of a verifier (RFC 7636, section 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def with_parameters(uri: str, added: Mapping[str, str]) -> str:
    """Return an address with parameters added to its query; empty ones are left out."""
    separator = "&" if urlsplit(uri).query else "?"
    return uri + separator + urlencode({name: value for name, value in added.items() if value})


def _json(response: httpx2.Response) -> dict[str, Any]:
    try:
        answer = response.json() if len(response.content) <= _LONGEST_ANSWER else {}
    except ValueError:
        answer = {}
    return answer if isinstance(answer, dict) else {}
