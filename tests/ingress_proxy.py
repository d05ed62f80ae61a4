"""Real nginx for tests, applications behind it, and clients before it; all on the loopback interface.

Each nginx has an address of its own in 127.0.0.0/8, so that ports are not what tests meet at; where one is taken all
the same, another is tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from haneul.ingress.adapters.nginx.processes import NginxProcesses
from haneul.ingress.adapters.nginx.proxy import LUA_FOLDER, NginxProxy
from haneul.ingress.asking import Gate
from haneul.ingress.model import Certificate, Routes
from haneul.ingress.observed import Observed
from haneul.ingress.options import Options
from haneul.ingress.ports import Configuration
from haneul.ingress.rendering import Site, render_configuration
from haneul.ingress.routes import compile_routes
from haneul.ingress.table import Table, table_of
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import Manifest, resource_of
from haneul.kernel.processes import find, send, title
from haneul.kernel.waiting import wait_for
from tests.unit.ingress.objects import certificate, ingress_class, service, slice_of

LOOPBACK = "127.0.0.1"
PATIENCE = 120.0
USER = "www-data" if os.geteuid() == 0 else ""


def free_address() -> tuple[str, int]:
    """Return an address of this machine that nobody else is likely to have, and a port; the next one goes with it."""
    address = ".".join(("127", *(str(random.randint(1, 254)) for _ in range(3))))  # noqa: S311
    return address, random.randrange(10000, 30000, 2)  # noqa: S311


def program() -> str:
    found = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if not found or not Path("/usr/lib/nginx/modules/ngx_http_lua_module.so").exists():
        pytest.skip("nginx with its Lua module is not here: 'make system-packages'")
    return found


@dataclass
class Application:
    """An application that says what it saw; its name is in each answer."""

    name: str
    port: int = 0
    seen: list[dict[str, Any]] = field(default_factory=list)
    #: What it answers instead of 200 with what it saw.
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Lets answers at ``/slow`` end, and those at ``/never`` begin.
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        said = {"app": self.name, "path": request.path_qs, "method": request.method, "headers": headers}
        self.seen.append(said)
        if request.path == "/never":
            await self.released.wait()
        if request.path == "/slow":
            answer = web.StreamResponse()
            await answer.prepare(request)
            await answer.write(b"begun ")
            await self.released.wait()
            with contextlib.suppress(ConnectionError):
                await answer.write(b"ended")
            return answer
        if headers.get("upgrade") == "websocket":
            return await self._talk(request)
        body = await request.read()
        return web.json_response({**said, "bytes": len(body)}, status=self.status, headers=self.headers)

    async def _talk(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"{self.name} heard {message.data}")
        return socket

    @contextlib.asynccontextmanager
    async def running(
        self, address: str = LOOPBACK, tls: ssl.SSLContext | None = None, port: int = 0
    ) -> AsyncIterator[Application]:
        application = web.Application(client_max_size=1 << 26)
        application.router.add_route("*", "/{rest:.*}", self._answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, address, port, ssl_context=tls)
            await site.start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            self.released.set()
            await runner.cleanup()


@dataclass
class Answer:
    """What a client got."""

    status: int
    headers: dict[str, str]
    text: str
    cookies: dict[str, str] = field(default_factory=dict)
    #: Every ``Set-Cookie`` as it was written.
    set_cookies: list[str] = field(default_factory=list)

    @property
    def said(self) -> Any:
        """Return what an application says that it saw."""
        return json.loads(self.text)


class Ground:
    """One nginx in a folder of its own, and a cluster's objects that it serves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.observed = Observed()
        self.see(ingress_class())
        self.processes = NginxProcesses(folder, program=program(), user=USER, clock=SystemClock(), patience=PATIENCE)
        self.proxy = NginxProxy(folder, self.processes)
        self.options = Options()
        pair = certificate("default.invalid")
        self.site = self._placed(Certificate(pair.certificate, pair.key))
        self.routes = Routes()

    def _placed(self, own: Certificate) -> Site:
        self.address, self.http = free_address()
        self.https = self.http + 1
        return Site(
            (f"{self.address}:{self.http}",),
            (f"{self.address}:{self.https}",),
            self.https,
            own,
            folder=str(self.folder),
            lua=str(LUA_FOLDER),
            user=USER,
            workers=2,
            drain=30,
        )

    def behind_gate(self, gate: Gate) -> None:
        self.site, self.options = replace(self.site, gate=gate), replace(self.options, gate=True)

    def see(self, *manifests: Manifest) -> None:
        for manifest in manifests:
            self.observed.see(resource_of(manifest), manifest)

    def point(self, name: str, *applications: Application, address: str = LOOPBACK) -> None:
        """Let a Service have these applications for its pods; each has a port of its own, and so a slice."""
        self.see(service(name))
        for number in range(4):
            piece = slice_of(name, name=f"{name}-{number}")
            if number < len(applications):
                ready = [{"addresses": [address], "conditions": {"ready": True}}]
                piece = slice_of(name, *ready, name=f"{name}-{number}", port=applications[number].port)
            self.see(piece)

    def made(self) -> tuple[Configuration, Table]:
        self.routes = compile_routes(self.observed, self.options, datetime.now(UTC))
        return render_configuration(self.routes, self.site), table_of(self.routes, self.observed.peers)

    async def route(self) -> None:
        """Serve what is seen; where nginx cannot have its address at first, at another."""
        for _ in range(5):
            try:
                await self.proxy.route(*self.made())
            except UnavailableError:
                if await self.processes.master() or "Address already in use" not in self.log():
                    raise
                before = self.site
                self.site = replace(self._placed(before.certificate), gate=before.gate, drain=before.drain)
            else:
                return
        raise AssertionError(self.log())

    async def repoint(self) -> None:
        """Let requests go to the endpoints that are seen, nothing else."""
        await self.proxy.point(self.made()[1])

    def log(self) -> str:
        file = self.folder / "error.log"
        return file.read_text()[-3000:] if file.exists() else ""

    @contextlib.asynccontextmanager
    async def session(self, **more: Any) -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.TCPConnector(**more)
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield session

    def url(self, path: str = "/") -> str:
        return f"http://{self.address}:{self.http}{path}"

    async def ask(
        self, path: str = "/", *, host: str = "www.example.com", method: str = "GET", client: str = "", **more: Any
    ) -> Answer:
        """Ask nginx by a new connection, perhaps from another address of this machine."""
        headers = {"Host": host, **more.pop("headers", {})}
        local = {"local_addr": (client, 0)} if client else {}
        async with (
            self.session(force_close=True, **local) as session,
            session.request(
                method, self.url(path), headers=headers, allow_redirects=False, timeout=None, **more
            ) as answer,
        ):
            cookies = {name: morsel.value for name, morsel in answer.cookies.items()}
            written = answer.headers.getall("Set-Cookie", [])
            found = {k.lower(): v for k, v in answer.headers.items()}
            return Answer(answer.status, found, await answer.text(), cookies, written)

    async def curl(self, *arguments: str, host: str, path: str = "/", port: int = 0) -> str:
        """Ask by HTTPS with curl, which knows HTTP/2; return what it prints."""
        place = port or self.https
        command = ["curl", "-sS", "--max-time", "60", "--connect-to", f"{host}:{place}:{self.address}:{place}"]
        command += [*arguments, f"https://{host}:{place}{path}"]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
        return output.decode()


@contextlib.asynccontextmanager
async def ground() -> AsyncIterator[Ground]:
    """Yield a folder that workers may enter, with an nginx that ends with the block."""
    folder = Path(tempfile.mkdtemp(prefix="haneul-ingress-"))
    folder.chmod(0o755)
    made = Ground(folder)
    try:
        yield made
    finally:
        await ended(made)
        shutil.rmtree(folder)


async def ended(made: Ground) -> None:
    """End nginx with all workers, also those that still have connections."""
    master = await made.processes.master()
    if master is None:
        return
    # It has just said its number itself, but may be one of a dead master's workers.
    process = find(master)
    if process is None or "nginx" not in title(master):
        return
    send([process], signal.SIGTERM)

    async def gone() -> bool:
        return not process.alive

    await wait_for(gone, what="nginx to end", timeout=PATIENCE, clock=SystemClock(), interval=0.02)


async def until(probe: Callable[[], Awaitable[bool]], what: str) -> None:
    await wait_for(probe, what=what, timeout=PATIENCE, clock=SystemClock(), interval=0.02)
