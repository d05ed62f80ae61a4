"""Which platform the command line talks to, as whom, and in which project.

``~/.config/haneul/config.yaml`` (or ``$HANEUL_CONFIG``) names servers; tokens lie beside it, each in a file that only
its owner reads.
"""

from __future__ import annotations

import contextlib
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from haneul.cli.client import ApiClient
from haneul.cli.sessions import IssuerClient, SessionFile, SessionTokens
from haneul.kernel.errors import HaneulError, InvalidInputError, UnauthenticatedError
from haneul.kernel.files import write_atomically


@dataclass(frozen=True)
class Context:
    """A platform that somebody has signed in to."""

    server: str
    authority: Path | None
    token_file: Path
    project: str = ""
    #: Whether the token file is a session's, which is renewed, rather than a token's own.
    session: bool = False


class Contexts:
    """The configuration file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def default(cls) -> Contexts:
        """Return the caller's own configuration."""
        named = os.environ.get("HANEUL_CONFIG")
        return cls(Path(named) if named else Path.home() / ".config" / "haneul" / "config.yaml")

    @property
    def folder(self) -> Path:
        """Return the folder of the configuration and of what is kept beside it."""
        return self._path.parent

    def current(self) -> Context:
        """Return the current context. Raises UnauthenticatedError if there is none."""
        if not self._path.exists():
            raise UnauthenticatedError(
                "you are not signed in to any platform", hint="run 'haneul login --server URL --ca FILE'"
            )
        entry: dict[str, Any] = yaml.safe_load(self._path.read_text())
        authority = Path(entry["authority"]) if entry.get("authority") else None
        return Context(
            entry["server"], authority, Path(entry["tokenFile"]), entry.get("project", ""), entry.get("session", False)
        )

    def sign_in(self, server: str, authority: bytes | None, token: str | SessionTokens) -> None:
        """Make ``server`` the current platform, with a token or a session."""
        folder = self._path.parent
        folder.mkdir(parents=True, exist_ok=True)
        session = isinstance(token, SessionTokens)
        token_file, authority_file = folder / ("session.json" if session else "token"), folder / "ca.crt"
        if isinstance(token, SessionTokens):
            SessionFile(token_file).write(token)
        else:
            write_atomically(token_file, token.strip() + "\n", mode=0o600)
        if authority is not None:
            write_atomically(authority_file, authority)
        self.write(Context(server, authority_file if authority is not None else None, token_file, session=session))

    def write(self, context: Context) -> None:
        """Write the current context."""
        entry = {
            "server": context.server,
            "authority": str(context.authority) if context.authority else None,
            "tokenFile": str(context.token_file),
            "project": context.project,
            "session": context.session,
        }
        write_atomically(self._path, str(yaml.safe_dump(entry, sort_keys=False)), mode=0o600)

    def sign_out(self) -> None:
        """End the session, if there is one, and forget the platform and the token."""
        if self._path.exists():
            context = self.current()
            token_file = context.token_file
            if context.session:
                _revoke(context)
            if token_file.parent == self._path.parent:
                token_file.unlink(missing_ok=True)
            self._path.unlink()

    def client(self) -> ApiClient:
        """Return a client of the current platform."""
        context = self.current()
        if not context.token_file.exists():
            raise UnauthenticatedError("your token is gone", hint="run 'haneul login' again")
        if context.session:
            kept = SessionFile(context.token_file)
            token = functools.partial(kept.access_token, context.server, context.authority)
            return ApiClient(context.server, authority=context.authority, token=token)
        return ApiClient(context.server, authority=context.authority, token=context.token_file.read_text().strip())

    def project(self, named: str | None) -> str:
        """Return the named project, or the context's."""
        project = named or (self.current().project if self._path.exists() else "")
        if not project:
            raise InvalidInputError(
                "no project is named", hint="add '--project NAME', or set one with 'haneul project use NAME'"
            )
        return project


def _revoke(context: Context) -> None:
    """Tell the platform that a session is over (RFC 7009); if it cannot be told, the session ends by itself."""
    with contextlib.suppress(HaneulError):
        tokens = SessionFile(context.token_file).read()
        issuer = IssuerClient(context.server, authority=context.authority)
        try:
            issuer.post(f"{issuer.issuer}/revoke", {"token": tokens.refresh_token})
        finally:
            issuer.close()
