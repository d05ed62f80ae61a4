"""Requests to the issuer, parsed and judged purely: parameters, redirect addresses, PKCE, scopes."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from haneul.identity.issuer.model import SCOPES, Client, OAuthError
from haneul.kernel.errors import InvalidInputError
from haneul.kernel.openid import challenge_of

_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})
_LONGEST: Final = 2000


@dataclass(frozen=True)
class AuthorizationRequest:
    """A request for a code whose client and redirect address are good; nothing else of it is known to be."""

    client: Client
    redirect_uri: str
    parameters: Mapping[str, str]

    @property
    def state(self) -> str:
        """Return what the client gets back as it gave it."""
        return self.parameters.get("state", "")

    @property
    def nonce(self) -> str:
        """Return what goes into the ID token."""
        return self.parameters.get("nonce", "")

    @property
    def scope(self) -> str:
        """Return the scopes that there are of those asked for."""
        return known_scope(self.parameters.get("scope", ""))

    @property
    def prompts(self) -> list[str]:
        """Return how the person shall be asked."""
        return self.parameters.get("prompt", "").split()

    @property
    def oldest(self) -> int | None:
        """Return how many seconds ago the person may have signed on at most."""
        text = self.parameters.get("max_age", "")
        return int(text) if text.isdecimal() and len(text) < 10 else None


def parameters(text: str) -> dict[str, str]:
    """Return form parameters. Raises OAuthError for one that comes twice (RFC 6749, section 3.1)."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=50, errors="strict")
    except ValueError as error:
        raise OAuthError("invalid_request", "the parameters are not readable") from error
    found = dict(pairs)
    if len(found) != len(pairs):
        raise OAuthError("invalid_request", "a parameter comes more than once")
    # Empty ones are as if left out.
    return {name: value for name, value in found.items() if value}


def known_scope(scope: str) -> str:
    """Return the scopes that there are of those asked for, in their order here."""
    asked = scope.split()
    return " ".join(name for name in SCOPES if name in asked)


def redirect_allowed(client: Client, uri: str) -> bool:
    """Say whether a code may be sent to ``uri``: a registered address to the letter, or the CLI's own machine.

    On the loopback interface any port is good (RFC 8252, section 7.3).
    """
    if not client.public:
        return uri in client.redirect_uris
    try:
        parts = urlsplit(uri)
        return (
            parts.scheme == "http"
            and parts.hostname in _LOOPBACK
            and parts.port is not None
            and parts.path == "/callback"
            and uri == f"http://{parts.netloc}/callback"
            and parts.username is None
        )
    except ValueError:
        return False


def check(request: AuthorizationRequest) -> None:
    """Raise OAuthError for what the client asks for wrongly; it is told at its redirect address."""
    asked = request.parameters
    if asked.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "only response_type=code is supported")
    if asked.get("response_mode", "query") != "query":
        raise OAuthError("invalid_request", "only response_mode=query is supported")
    if "request" in asked or "request_uri" in asked:
        raise OAuthError("request_not_supported", "request objects are not supported")
    if "openid" not in request.scope.split():
        raise OAuthError("invalid_scope", "the scope must have openid in it")
    if asked.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(asked.get("code_challenge", "")):
        raise OAuthError("invalid_request", "a code challenge with the method S256 is needed (RFC 7636)")
    if len(request.nonce) > 200 or len(request.state) > _LONGEST:
        raise OAuthError("invalid_request", "state or nonce is too long")


def verifies(verifier: str, challenge: str) -> bool:
    """Say whether a code verifier is the one of a challenge (RFC 7636, section 4.6)."""
    return bool(_VERIFIER.fullmatch(verifier)) and hmac.compare_digest(challenge_of(verifier), challenge)


def parse_redirect_uri(uri: str) -> str:
    """Return an address that a client may register: https, or http on the client's own machine; nothing moves in it."""
    parts = urlsplit(uri)
    secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in {*_LOOPBACK, "localhost"})
    whole = uri.isascii() and uri.isprintable() and " " not in uri and len(uri) <= _LONGEST
    if not secure or not parts.hostname or parts.fragment or "#" in uri or parts.username or "*" in uri or not whole:
        raise InvalidInputError(
            f"{uri!r} is no address to send codes to", hint="register a whole https address without '#' and '*'"
        )
    return uri
