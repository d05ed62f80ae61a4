"""A company's OpenID Connect provider on a port of this machine, which signs whatever a test has it sign."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlencode

import httpx2
import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from haneul.kernel.clock import Clock
from haneul.kernel.openid import challenge_of

CLIENT = "apps"
SECRET = "of the gate alone"


class Company:
    """The provider. ``person`` is who sits at every browser that comes; ``away`` lets it answer nothing of use."""

    def __init__(self, issuer: str, clock: Clock) -> None:
        self.issuer = issuer
        self.clock = clock
        self.person: dict[str, Any] = {"sub": "1", "preferred_username": "alice", "groups": ["devs"]}
        self.gone: set[str] = set()
        self.away = False
        self.gives_refresh_tokens = True
        self.nonce = ""
        self.asked: list[str] = []
        self.revoked: list[str] = []
        self.keys: list[ECKey] = []
        # One for all, as making one takes long.
        self.browser = httpx2.AsyncClient(timeout=60)
        self.turn_keys()
        self._codes: dict[str, dict[str, str]] = {}
        self._refresh: dict[str, dict[str, Any]] = {}

    def turn_keys(self) -> None:
        """Sign with another key from now on; the one before is published no more."""
        self.keys = [ECKey.generate_key("P-256", {"kid": secrets.token_hex(4), "use": "sig", "alg": "ES256"})]

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(self.clock.now().timestamp())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, **self.person, **changes}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, *, key: ECKey | None = None, **changes: Any) -> str:
        key = key or self.keys[0]
        return jwt.encode({"alg": "ES256", "kid": key.kid}, self.claims(**changes), key)

    async def visit(self, address: str) -> str:
        """Open an address of the provider in a browser; return where it sends the browser."""
        answer = await self.browser.get(address)
        assert answer.status_code == 307, answer.text
        return str(answer.headers["location"])

    def app(self) -> Starlette:
        routes = [
            ("/.well-known/openid-configuration", self._discovery, "GET"),
            ("/keys", self._keys, "GET"),
            ("/authorize", self._authorize, "GET"),
            ("/token", self._token, "POST"),
            ("/revoke", self._revoke, "POST"),
        ]
        return Starlette(routes=[Route(path, self._here(route), methods=[method]) for path, route, method in routes])

    def _here(self, route: Any) -> Any:
        async def answer(request: Request) -> Response:
            self.asked.append(request.url.path)
            return Response(status_code=503) if self.away else await route(request)

        return answer

    async def _discovery(self, _: Request) -> Response:
        ends = {f"{name}_endpoint": f"{self.issuer}/{path}" for name, path in
                (("authorization", "authorize"), ("token", "token"), ("revocation", "revoke"))}  # fmt: skip
        return JSONResponse({"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys", **ends})

    async def _keys(self, _: Request) -> Response:
        return JSONResponse({"keys": [key.as_dict(private=False) for key in self.keys]})

    async def _authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_hex(8)
        self._codes[code] = asked
        back = urlencode({"code": code, "state": asked["state"], "iss": self.issuer})
        return RedirectResponse(f"{asked['redirect_uri']}?{back}")

    async def _token(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        if form["grant_type"] == "refresh_token":
            known = self._refresh.pop(form["refresh_token"], None)
            if known is None or known["sub"] in self.gone:
                return JSONResponse({"error": "invalid_grant"}, 400)
            return self._answer(known)
        asked = self._codes.pop(form["code"], None)
        if asked is None or challenge_of(form["code_verifier"]) != asked["code_challenge"]:
            return JSONResponse({"error": "invalid_grant"}, 400)
        return self._answer(self.person, nonce=self.nonce or asked["nonce"])

    async def _revoke(self, request: Request) -> Response:
        form = parse_qs((await request.body()).decode())
        self.revoked += form["token"]
        return Response()

    def _answer(self, person: dict[str, Any], **claims: Any) -> Response:
        # Of whoever was there before, what is said of them now.
        person = self.person if self.person["sub"] == person["sub"] else person
        answer = {"access_token": "x", "token_type": "Bearer", "id_token": self.token(**{**person, **claims})}
        if self.gives_refresh_tokens:
            answer["refresh_token"] = secrets.token_hex(16)
            self._refresh[answer["refresh_token"]] = person
        return JSONResponse(answer)


@contextlib.asynccontextmanager
async def running_company(clock: Clock) -> AsyncIterator[Company]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        company = Company(f"http://127.0.0.1:{listening.getsockname()[1]}", clock)
        configuration = uvicorn.Config(company.app(), lifespan="off", ws="none", log_level="error", access_log=False)
        server = uvicorn.Server(configuration)
        serving = asyncio.create_task(server.serve([listening]))
        try:
            yield company
        finally:
            await company.browser.aclose()
            server.should_exit = True
            await serving
