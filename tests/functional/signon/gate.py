"""The gate in this process, with a clock that tests move, and browsers that come to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import yaml

from haneul.app.auth import opened
from haneul.kernel.clock import VirtualClock
from haneul.signon.exchange import Reply, Request
from haneul.signon.http import GateHttp
from haneul.signon.settings import read_settings
from tests.functional.signon.company import CLIENT, SECRET, Company

START = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
DOMAIN = "apps.test"
URL = f"https://auth.{DOMAIN}"
WIKI = f"https://wiki.{DOMAIN}/page?a=b"
PAGE = {"accept": "text/html,*/*;q=0.8"}


def header(reply: Reply, name: str) -> str:
    """Return a header that comes once, or nothing."""
    found = [value for key, value in reply.headers if key.lower() == name.lower()]
    assert len(found) < 2, found
    return found[0] if found else ""


def cookies(reply: Reply) -> dict[str, str]:
    """Return what an answer sets, by name, with its attributes."""
    return {value.partition("=")[0]: value for key, value in reply.headers if key == "Set-Cookie"}


class Gate:
    """A running gate, its provider and its clock."""

    def __init__(self, http: GateHttp, company: Company, clock: VirtualClock) -> None:
        self.http = http
        self.company = company
        self.clock = clock

    def browser(self) -> Browser:
        return Browser(self)

    async def ask(
        self, rule: str | list[str] = "anyone", url: str = WIKI, path: str = "/auth", **headers: Any
    ) -> Reply:
        """Ask as the web server does."""
        given = {"x-haneul-rule": rule, "x-original-url": url, "x-original-method": "GET", **headers}
        lists = {name.replace("_", "-"): [value] if isinstance(value, str) else value for name, value in given.items()}
        return await self.http.answer(Request("GET", path, headers=lists))

    async def with_token(self, token: str, rule: str = "anyone", **headers: Any) -> Reply:
        return await self.ask(rule, authorization=f"Bearer {token}", **headers)


class Browser:
    """A browser at the gate's host, which keeps cookies."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.cookies: dict[str, str] = {}

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    @property
    def session(self) -> str:
        return self.cookies.get("__Secure-haneul-session", "")

    async def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        where = urlsplit(path)
        given = {**PAGE, "cookie": self.cookie, **headers}
        lists = {name.replace("_", "-"): [value] for name, value in given.items() if value}
        return self._kept(await self.gate.http.answer(Request(method, where.path, where.query, lists, body)))

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.send("GET", path, b"", **headers)

    async def ask(self, rule: str = "anyone", **values: Any) -> Reply:
        return self._kept(await self.gate.ask(rule, **{**PAGE, "cookie": self.cookie, **values}))

    async def start(self, back: str = WIKI, **more: str) -> str:
        """Begin a sign-on; return the address of the provider's answer."""
        begun = await self.get(f"/start?{urlencode({'rd': back, **more})}")
        assert begun.status == 303, begun.body
        answer = await self.gate.company.visit(header(begun, "location"))
        assert answer.startswith(f"{URL}/callback?")
        return answer

    async def sign_on(self, back: str = WIKI) -> Reply:
        return await self.get(await self.start(back))

    async def sign_out(self, **changes: str) -> Reply:
        """Press the button of the page."""
        page = await self.get("/sign-out")
        form = page.body.partition('name="form" value="')[2].partition('"')[0]
        body = urlencode({"form": form, **changes}).encode()
        return await self.send("POST", "/sign-out", body, origin=URL)

    def _kept(self, reply: Reply) -> Reply:
        for name, text in cookies(reply).items():
            value, _, attributes = text.partition("=")[2].partition(";")
            if "Max-Age=0" in attributes:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return reply


def write_settings(folder: Path, issuer: str, **changes: Any) -> Path:
    """Write the gate's file; what a test changes of its one provider is in ``provider``."""
    provider: dict[str, Any] = {"name": "company", "title": "The Company", "issuer": issuer, "clientId": CLIENT}
    # How fast this machine is says nothing about the gate.
    provider |= {
        "clientSecretFile": "secret",
        "audiences": ["programs"],
        "patienceSeconds": 60,
        **changes.pop("provider", {}),
    }
    document = {"url": URL, "domain": DOMAIN, "providers": [provider], **changes}
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o600)
    (folder / "auth.yaml").write_text(yaml.safe_dump(document))
    return folder / "auth.yaml"


@contextlib.asynccontextmanager
async def running_gate(folder: Path, company: Company, clock: VirtualClock, **changes: Any) -> AsyncIterator[Gate]:
    async with opened(read_settings(write_settings(folder, company.issuer, **changes)), clock) as http:
        yield Gate(http, company, clock)
