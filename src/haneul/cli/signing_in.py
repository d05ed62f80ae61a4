"""Signing in by browser (RFC 8252: a code comes back to this machine) and by device code (RFC 8628)."""

from __future__ import annotations

import base64
import hashlib
import html
import secrets
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from haneul.cli.output import say
from haneul.cli.sessions import CLIENT, SCOPE, IssuerClient, PendingError, SessionTokens
from haneul.kernel.errors import DeadlineExceededError, UnauthenticatedError

_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_WAIT_SECONDS: Final = 300.0


def by_browser(issuer: IssuerClient, open_page: Callable[[str], bool]) -> SessionTokens:
    """Return the tokens that a person gives in a browser on this machine."""
    metadata = issuer.discover()
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    with _Loopback() as loopback:
        query = {
            "response_type": "code",
            "client_id": CLIENT,
            "redirect_uri": loopback.address,
            "scope": SCOPE,
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        page = f"{metadata['authorization_endpoint']}?{urlencode(query)}"
        say(f"Sign on in your browser. If none opened, go to:\n\n  {page}\n\nWithout a browser: haneul login --device")
        open_page(page)
        answer = loopback.wait(state, metadata["issuer"])
        if "code" not in answer:
            raise UnauthenticatedError(
                answer.get("error_description", answer.get("error", "the browser brought no code")),
                hint="run 'haneul login' again",
            )
        form = {"grant_type": "authorization_code", "code": answer["code"], "redirect_uri": loopback.address}
    return issuer.tokens(metadata["token_endpoint"], {**form, "code_verifier": verifier})


def by_device(issuer: IssuerClient, sleep: Callable[[float], None] = time.sleep) -> SessionTokens:
    """Return the tokens that a person gives on another device."""
    metadata = issuer.discover()
    started = issuer.post(metadata["device_authorization_endpoint"], {"scope": SCOPE})
    say(f"On any device go to\n\n  {started['verification_uri']}\n\nand type the code  {started['user_code']}")
    interval, deadline = float(started.get("interval", 5)), time.monotonic() + float(started["expires_in"])
    while time.monotonic() < deadline:
        sleep(interval)
        try:
            form = {"grant_type": _GRANT, "device_code": started["device_code"]}
            return issuer.tokens(metadata["token_endpoint"], form)
        except PendingError as error:
            # RFC 8628, section 3.5.
            interval += 5.0 if error.word == "slow_down" else 0.0
    raise DeadlineExceededError("nobody let this device in in time", hint="run 'haneul login --device' again")


class _Loopback:
    """A web server for one answer, on a port of the loopback interface that the system chooses."""

    def __init__(self) -> None:
        loopback = self
        self._answer: dict[str, str] = {}

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                answer = {name: values[0] for name, values in parse_qs(parts.query).items()}
                good = parts.path == "/callback" and loopback.accepts(answer)
                title = "You can close this page." if good else "This is not the page that was waited for."
                body = f"<!doctype html><meta charset=utf-8><title>Haneul</title><p>{html.escape(title)}".encode()
                self.send_response(200 if good else 400)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Security-Policy", "default-src 'none'")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """A code is nothing for a log."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._server.timeout = 1.0
        self._state, self._issuer = "", ""

    def __enter__(self) -> _Loopback:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    @property
    def address(self) -> str:
        """Return where the answer is waited for."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/callback"

    def accepts(self, answer: dict[str, str]) -> bool:
        """Keep the answer to this request, from this issuer (RFC 9207); of all others nothing."""
        same = secrets.compare_digest(answer.get("state", "").encode(), self._state.encode())
        if not self._state or not same or answer.get("iss") != self._issuer:
            return False
        self._answer = answer
        return True

    def wait(self, state: str, issuer: str) -> dict[str, str]:
        """Return the answer that the browser brings."""
        self._state, self._issuer = state, issuer
        deadline = time.monotonic() + _WAIT_SECONDS
        while not self._answer:
            if time.monotonic() > deadline:
                raise DeadlineExceededError("nobody signed on in time", hint="run 'haneul login' again")
            self._server.handle_request()
        return self._answer
