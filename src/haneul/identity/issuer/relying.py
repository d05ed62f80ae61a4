"""The protocol towards the company's sign-on provider, as its client (OpenID Connect Core; RFC 6749, 7636, 9207)."""

from __future__ import annotations

import secrets
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

import httpx2
import yaml
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from haneul.identity.issuer.requests import challenge_of, with_parameters
from haneul.kernel.clock import Clock
from haneul.kernel.errors import InvalidInputError, UnauthenticatedError, UnavailableError

_TIMEOUT: Final = httpx2.Timeout(5.0, connect=3.0)
_METADATA_SECONDS: Final = 300.0
_LEEWAY_SECONDS: Final = 60
_ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
_LONGEST_ANSWER: Final = 1 << 20


class ProviderSettings(BaseModel):
    """How to reach the company's provider, and how to read what it says of people."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    name: str = Field(default="your company", description="What the sign-on page calls it.")
    issuer: str = Field(description="Its issuer URL, as it stands in its discovery document.")
    client_id: str = Field(description="What it calls this platform.")
    client_secret_file: Path = Field(description="File with the secret that it gave this platform.")
    authority_file: Path | None = Field(default=None, description="Certificate authority of its web server.")
    scopes: tuple[str, ...] = Field(
        default=("openid", "profile", "email", "groups", "offline_access"), description="What is asked for."
    )
    name_claim: str = Field(default="preferred_username", description="Claim that people's names are made from.")
    groups_claim: str = Field(default="groups", description="Claim with a list of groups.")
    allowed_domains: tuple[str, ...] = Field(
        default=(), description="Domains of e-mail addresses that are let in; all people of the provider where empty."
    )
    email_is_verified: bool = Field(
        default=False, description="Take addresses as proved without the claim email_verified."
    )
    outage_minutes: int = Field(
        default=15, ge=0, le=1440, description="How long people stay signed in while the provider does not answer."
    )

    @field_validator("issuer")
    @classmethod
    def _secure(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1"):
            raise ValueError("the issuer must be reached by https")
        return value.rstrip("/") if parts.path in ("", "/") else value


def read_provider(path: Path) -> ProviderSettings | None:
    """Return the settings in a YAML file, or None if there is no such file. Raises InvalidInputError."""
    if not path.exists():
        return None
    try:
        return ProviderSettings.model_validate(yaml.safe_load(path.read_text()))
    except (ValidationError, yaml.YAMLError) as error:
        raise InvalidInputError(
            f"{path} does not describe a sign-on provider: {error}", hint="docs/reference/sign-on.md lists its fields"
        ) from error


class RefusedError(Exception):
    """The provider said no to a refresh token: the person left, or their sign-on there ended."""


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


class RelyingParty:
    """This platform as a client of one provider."""

    def __init__(self, settings: ProviderSettings, callback: str, *, clock: Clock) -> None:
        self._settings = settings
        self._callback = callback
        self._clock = clock
        self._http: httpx2.AsyncClient | None = None
        self._metadata: tuple[float, dict[str, Any]] | None = None
        self._keys: KeySet | None = None

    async def ask(self) -> Asked:
        """Return where to send a browser to."""
        metadata = await self._discover()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._callback,
            "scope": " ".join(self._settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge_of(verifier),
            "code_challenge_method": "S256",
        }
        return Asked(with_parameters(metadata["authorization_endpoint"], query), state, nonce, verifier)

    async def redeem(self, answer: dict[str, str], *, nonce: str, verifier: str) -> Said:
        """Turn what the browser brought back into claims. Raises UnauthenticatedError."""
        metadata = await self._discover()
        if metadata.get("authorization_response_iss_parameter_supported") or "iss" in answer:
            self._demand(answer.get("iss") == self._settings.issuer, "the answer is of another provider")
        if "error" in answer:
            raise _refused(f"the provider said {answer['error'][:60]}")
        form = {"grant_type": "authorization_code", "code": answer.get("code", ""), "redirect_uri": self._callback}
        try:
            said = await self._token({**form, "code_verifier": verifier})
        except RefusedError as error:
            raise _refused("the provider did not know the code") from error
        self._demand(said.claims is not None and said.claims.get("nonce") == nonce, "the answer is for another request")
        return said

    async def refresh(self, token: str) -> Said:
        """Ask about a person again. Raises RefusedError, and UnavailableError where nothing was said."""
        said = await self._token({"grant_type": "refresh_token", "refresh_token": token})
        return Said(said.claims, said.refresh_token or token)

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()

    async def _token(self, form: dict[str, str]) -> Said:
        metadata = await self._discover()
        secret = self._settings.client_secret_file.read_text().strip()
        pair = (quote_plus(self._settings.client_id), quote_plus(secret))
        content = urlencode(form)
        response = await self._send(
            "POST",
            metadata["token_endpoint"],
            content=content,
            auth=httpx2.BasicAuth(*pair),
            headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
        )
        answer = _json(response)
        if response.status_code in (400, 401, 403) and answer.get("error") == "invalid_grant":
            raise RefusedError
        if response.status_code != 200:
            raise UnavailableError(
                f"the sign-on provider answered {response.status_code} {answer.get('error', '')}".rstrip(),
                hint="an administrator finds the cause in the provider's own log",
            )
        claims = await self._verified(str(answer["id_token"])) if "id_token" in answer else None
        return Said(claims, str(answer.get("refresh_token", "")))

    async def _verified(self, token: str) -> dict[str, Any]:
        """Return an ID token's claims (OpenID Connect Core, section 3.1.3.7)."""
        registry = JWTClaimsRegistry(
            now=int(self._clock.now().timestamp()),
            leeway=_LEEWAY_SECONDS,
            iss={"essential": True, "value": self._settings.issuer},
            aud={"essential": True, "value": self._settings.client_id},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
        )
        for fresh in (False, True):
            try:
                decoded = jwt.decode(token, await self._key_set(fresh=fresh), algorithms=_ALGORITHMS)
                registry.validate(decoded.claims)
            except (JoseError, ValueError) as error:
                # Once more with keys asked for anew: the provider may have rotated them.
                if fresh:
                    raise _refused("the provider's answer is not signed by it, or not for this platform") from error
                continue
            claims = dict(decoded.claims)
            self._demand(claims.get("azp", self._settings.client_id) == self._settings.client_id, "it is for others")
            return claims
        raise AssertionError("the second turn returns or raises")

    async def _key_set(self, *, fresh: bool) -> KeySet:
        if self._keys is None or fresh:
            answer = _json(await self._send("GET", (await self._discover())["jwks_uri"]))
            try:
                self._keys = KeySet.import_key_set(answer)  # type: ignore[arg-type]  # it is checked there
            except (JoseError, ValueError, KeyError, TypeError) as error:
                raise UnavailableError("the sign-on provider's keys are not readable") from error
        return self._keys

    async def _discover(self) -> dict[str, Any]:
        now = self._clock.monotonic()
        if self._metadata is None or now - self._metadata[0] > _METADATA_SECONDS:
            response = await self._send("GET", f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration")
            metadata = _json(response)
            needed = ("authorization_endpoint", "token_endpoint", "jwks_uri")
            whole = response.status_code == 200 and all(isinstance(metadata.get(name), str) for name in needed)
            if not whole or metadata.get("issuer") != self._settings.issuer:
                raise UnavailableError(
                    f"{self._settings.issuer} does not describe itself as an OpenID Connect provider",
                    hint="compare the issuer URL, to the letter, with the one in its discovery document",
                )
            self._metadata = (now, metadata)
        return self._metadata[1]

    async def _send(self, method: str, url: str, **arguments: Any) -> httpx2.Response:
        if self._http is None:
            authority = self._settings.authority_file
            verify = ssl.create_default_context(cafile=str(authority)) if authority else True
            self._http = httpx2.AsyncClient(timeout=_TIMEOUT, verify=verify, follow_redirects=False)
        try:
            return await self._http.request(method, url, **arguments)
        except httpx2.HTTPError as error:
            raise UnavailableError(
                f"the company's sign-on provider does not answer: {error}", hint="try again in a while"
            ) from error

    def _demand(self, condition: bool, why: str) -> None:
        if not condition:
            raise _refused(why)


def _json(response: httpx2.Response) -> dict[str, Any]:
    try:
        answer = response.json() if len(response.content) <= _LONGEST_ANSWER else {}
    except ValueError:
        answer = {}
    return answer if isinstance(answer, dict) else {}


def _refused(why: str) -> UnauthenticatedError:
    return UnauthenticatedError(f"signing on at your company did not succeed: {why}", hint="try again")
