"""A person at a browser, and programs that want to act for them."""

from __future__ import annotations

import re
import secrets
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2

from haneul.kernel.openid import challenge_of
from tests.functional.api.application import ORIGIN, Api

LOOPBACK = "http://127.0.0.1:45123/callback"
OWN_SECRET = "several words of my own"
ALL_SCOPES = "openid profile email groups offline_access"


def hidden(page: str) -> dict[str, str]:
    """Return a form's hidden fields."""
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page)
    return {name: value.replace("&amp;", "&") for name, value in found}


def query_of(location: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


class Person:
    """Somebody with a browser."""

    def __init__(self, api: Api, name: str) -> None:
        self.api = api
        self.name = name
        self.browser = api.browser()

    async def choose_secret(self) -> None:
        """Sign on with a secret from the administrator, and choose one."""
        made = await self.api.call("admin", "POST", f"/people/{self.name}/sign-on-secret", status=201)
        page = await self.browser.get("/oidc/device")
        page = await self.submit(page, "/oidc/sign-on", person=self.name, secret=made["secret"])
        assert "Choose your secret" in page.text
        page = await self.submit(page, "/oidc/secret", secret=made["secret"], new=OWN_SECRET, again=OWN_SECRET)
        assert page.status_code == 303, page.text

    async def submit(self, page: httpx2.Response, path: str, /, **fields: str) -> httpx2.Response:
        """Send a page's form as a browser does."""
        assert path in page.text
        data = {**hidden(page.text), **fields}
        return await self.browser.post(path, data=data, headers={"Origin": ORIGIN})

    async def sign_on(self, page: httpx2.Response, secret: str = OWN_SECRET) -> httpx2.Response:
        """Fill the sign-on page in; return what follows."""
        answer = await self.submit(page, "/oidc/sign-on", person=self.name, secret=secret)
        return await self.browser.get(answer.headers["location"]) if answer.status_code == 303 else answer


class Program:
    """A client: the command line, or a registered one with a secret."""

    def __init__(self, api: Api, client: str = "haneul-cli", secret: str = "", redirect: str = LOOPBACK) -> None:
        self.api = api
        self.http = api.browser()
        self.client = client
        self.secret = secret
        self.redirect = redirect
        self.verifier = secrets.token_urlsafe(48)

    def request(self, **changes: str) -> str:
        """Return the address to which a browser is sent."""
        asked = {
            "response_type": "code",
            "client_id": self.client,
            "redirect_uri": self.redirect,
            "scope": ALL_SCOPES,
            "state": "s-1",
            "nonce": "n-1",
            "code_challenge": challenge_of(self.verifier),
            "code_challenge_method": "S256",
        }
        asked |= changes
        return "/oidc/authorize?" + urlencode({name: value for name, value in asked.items() if value})

    async def token(self, status: int = 200, **form: str) -> Any:
        body = {"client_id": self.client, **form}
        if self.secret:
            body["client_secret"] = self.secret
        answer = await self.http.post("/oidc/token", data=body)
        assert answer.status_code == status, answer.text
        assert answer.headers["cache-control"] == "no-store"
        return answer.json()

    async def redeem(self, code: str, status: int = 200, **changes: str) -> Any:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self.redirect}
        return await self.token(status, **{**form, "code_verifier": self.verifier, **changes})

    async def refresh(self, token: str, status: int = 200) -> Any:
        return await self.token(status, grant_type="refresh_token", refresh_token=token)


async def let_in(person: Person, program: Program, **changes: str) -> Any:
    """Return the tokens of a program that a person let in, who may have to sign on first."""
    page = await person.browser.get(program.request(**changes))
    if "<h1>Sign on" in page.text:
        page = await person.sign_on(page)
    if page.status_code == 200:
        page = await person.submit(page, "/oidc/confirm", decision="allow")
    assert page.status_code == 303, page.text
    answer = query_of(page.headers["location"])
    assert (answer["state"], answer["iss"]) == ("s-1", f"{ORIGIN}/oidc")
    return await program.redeem(answer["code"])


def bearer(tokens: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}
