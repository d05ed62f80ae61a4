"""The command line's own session: kept in a file of its owner's, renewed under a lock.

Refresh tokens are good once, so of several commands at a time one renews and the others take what it got.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx2

from haneul.cli.locked import locked
from haneul.kernel.errors import HaneulError, UnauthenticatedError, UnavailableError
from haneul.kernel.files import write_atomically

CLIENT: Final = "haneul-cli"
SCOPE: Final = "openid profile groups offline_access"
_SPARE: Final = timedelta(seconds=30)
_TIMEOUT: Final = httpx2.Timeout(20.0, connect=5.0)
_LOCK_SECONDS: Final = 60.0


@dataclass(frozen=True)
class SessionTokens:
    """What the issuer gave."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires: str


class PendingError(HaneulError):
    """The issuer has not let a device in yet; ``word`` says whether to slow down."""

    code = "sign-on-pending"
    title = "Nobody let this device in yet"
    http_status = 400
    exit_code = 3

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class IssuerClient:
    """The issuer as the command line sees it. ``transport`` replaces the network in tests."""

    def __init__(self, server: str, *, authority: Path | None, transport: httpx2.BaseTransport | None = None) -> None:
        verify = ssl.create_default_context(cafile=str(authority)) if authority else True
        self.issuer = f"{server}/oidc"
        self._http = httpx2.Client(
            verify=verify, timeout=_TIMEOUT, transport=transport, headers={"User-Agent": "haneul-cli"}
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def discover(self) -> dict[str, Any]:
        """Return the discovery document. Raises UnavailableError where the platform signs nobody on in browsers."""
        response = self._send("GET", f"{self.issuer}/.well-known/openid-configuration")
        if response.status_code != 200:
            raise UnavailableError(
                "this platform signs nobody on in browsers",
                hint="sign in with a token: 'haneul login --token-file FILE'",
            )
        metadata: dict[str, Any] = response.json()
        if metadata.get("issuer") != self.issuer:
            raise UnavailableError(
                f"the platform calls itself {metadata.get('issuer', '').removesuffix('/oidc')}",
                hint="name it so: 'haneul login --server URL'",
            )
        return metadata

    def post(self, endpoint: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Return what an endpoint answers. Raises UnauthenticatedError, and PendingError for devices."""
        response = self._send("POST", endpoint, data={"client_id": CLIENT, **form})
        try:
            answer: dict[str, Any] = response.json() if response.content else {}
        except ValueError:
            answer = {}
        if response.status_code == 200:
            return answer
        if answer.get("error") in ("authorization_pending", "slow_down"):
            raise PendingError(answer["error"])
        if response.status_code >= 500:
            raise UnavailableError(
                str(answer.get("detail") or f"the platform answered {response.status_code}"), hint="try again"
            )
        raise UnauthenticatedError(
            str(
                answer.get("error_description")
                or answer.get("detail")
                or f"the platform answered {response.status_code}"
            ),
            hint=str(answer.get("hint") or "run 'haneul login' again"),
        )

    def tokens(self, endpoint: str, form: Mapping[str, str]) -> SessionTokens:
        """Return the tokens that the token endpoint gives."""
        asked = datetime.now(UTC)
        answer = self.post(endpoint, form)
        expires = asked + timedelta(seconds=int(answer["expires_in"]))
        return SessionTokens(answer["access_token"], answer["refresh_token"], expires.isoformat())

    def _send(self, method: str, url: str, **arguments: Any) -> httpx2.Response:
        try:
            return self._http.request(method, url, **arguments)
        except httpx2.TransportError as error:
            raise UnavailableError(
                f"the platform at {self.issuer.removesuffix('/oidc')} does not answer: {error}",
                hint="is it up? 'haneul status' on its host tells",
            ) from error


class SessionFile:
    """The file with a session's tokens."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, tokens: SessionTokens) -> None:
        """Keep tokens, for their owner's eyes."""
        write_atomically(self._path, json.dumps(asdict(tokens)), mode=0o600)

    def read(self) -> SessionTokens:
        """Return the kept tokens. Raises UnauthenticatedError if there are none."""
        try:
            return SessionTokens(**json.loads(self._path.read_text()))
        except (FileNotFoundError, ValueError, TypeError) as error:
            raise UnauthenticatedError("your session is gone", hint="run 'haneul login' again") from error

    def remove(self) -> None:
        """Forget the session."""
        self._path.unlink(missing_ok=True)

    def access_token(self, server: str, authority: Path | None) -> str:
        """Return an access token that lives for a while, renewed if need be."""
        tokens = self.read()
        if not _lives(tokens):
            with locked(self._path, seconds=_LOCK_SECONDS):
                # Another command may have renewed it meanwhile.
                tokens = self.read()
                if not _lives(tokens):
                    tokens = self._renewed(server, authority, tokens)
        return tokens.access_token

    def _renewed(self, server: str, authority: Path | None, tokens: SessionTokens) -> SessionTokens:
        issuer = IssuerClient(server, authority=authority)
        try:
            form = {"grant_type": "refresh_token", "refresh_token": tokens.refresh_token}
            fresh = issuer.tokens(f"{issuer.issuer}/token", form)
        finally:
            issuer.close()
        self.write(fresh)
        return fresh


def _lives(tokens: SessionTokens) -> bool:
    return datetime.fromisoformat(tokens.expires) - datetime.now(UTC) > _SPARE
