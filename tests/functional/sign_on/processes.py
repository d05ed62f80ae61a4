"""Platforms in processes of their own, and people at browsers that reach them over the network."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from tests.functional.sign_on.browser import OWN_SECRET, hidden
from tests.processes import end_all

PROJECT = Path(__file__).parents[3]
DEADLINE = 180.0


class Platform:
    """A running platform."""

    def __init__(self, folder: Path, origin: str) -> None:
        self.folder = folder
        self.origin = origin
        self.authority = folder / "ca.crt"

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        token = (self.folder / "token").read_text()
        with self.browser() as http:
            answer = http.request(
                method, f"{self.origin}/api/v1{path}", json=body, headers={"Authorization": f"Bearer {token}"}
            )
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def browser(self) -> httpx2.Client:
        context = ssl.create_default_context(cafile=str(self.authority))
        return httpx2.Client(verify=context, timeout=30, follow_redirects=False)

    def add(self, name: str) -> None:
        """Add a person who has chosen a secret."""
        self.admin("POST", "/people", {"name": name, "email": f"{name}@example.com"})
        self.new_secret(name)

    def new_secret(self, name: str) -> None:
        secret = self.admin("POST", f"/people/{name}/sign-on-secret")["secret"]
        with self.browser() as http:
            page = self.submit(http, http.get(f"{self.origin}/oidc/device"), "sign-on", person=name, secret=secret)
            page = self.submit(http, page, "secret", secret=secret, new=OWN_SECRET, again=OWN_SECRET)
            assert page.status_code == 303, page.text

    def submit(self, http: httpx2.Client, page: httpx2.Response, form: str, /, **fields: str) -> httpx2.Response:
        data = {**hidden(page.text), **fields}
        return http.post(f"{self.origin}/oidc/{form}", data=data, headers={"Origin": self.origin})

    def visit(self, http: httpx2.Client, address: str, name: str) -> httpx2.Response:
        """Go to an address of this platform, signing on if asked to; return what comes then."""
        page = http.get(address)
        if "<h1>Sign on" in page.text:
            page = self.submit(http, page, "sign-on", person=name, secret=OWN_SECRET)
            page = http.get(self.origin + page.headers["location"])
        return page


@contextlib.contextmanager
def running_platform(folder: Path, provider: Path | None = None) -> Iterator[Platform]:
    """Start a platform's API and stop it in the end."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.functional.sign_on.platform_process", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *([str(provider)] if provider else [])], cwd=PROJECT, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + DEADLINE
        while not (folder / "address").exists():
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        platform = Platform(folder, (folder / "address").read_text())
        with platform.browser() as http:
            while True:
                try:
                    http.get(f"{platform.origin}/healthz")
                    break
                except httpx2.TransportError:
                    assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                    time.sleep(0.05)
        yield platform
    finally:
        end_all(process)


class CommandLine:
    """The command line of somebody, with a configuration of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "HANEUL_CONFIG": str(home / "config.yaml"), "BROWSER": "true"}
        self.environment["XDG_RUNTIME_DIR"] = str(home)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "haneul.app.main", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0) -> str:
        """Return what a command says, data and talk."""
        with self.start(*arguments) as process:
            out, talk = process.communicate(timeout=DEADLINE)
        assert process.returncode == code, (arguments, out, talk)
        return out + talk
