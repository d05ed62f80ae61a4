"""The REST API in process: the real application, a real database in a file, clusters in memory."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI

from haneul.app.api import create_api
from haneul.compliance.adapters.memory_looks import MemoryLooks
from haneul.dkos.adapters.backup_board import MemoryCatalogues
from haneul.dkos.adapters.kube_address_use import KubeAddressUse
from haneul.dkos.admission import TakenRange
from haneul.dkos.cluster_store import MemoryClusters
from haneul.dkos.event_log import MemoryEvents
from haneul.dkos.machine_store import MemoryMachines
from haneul.dkos.model import Cluster
from haneul.dkos.readers import BALANCER
from haneul.dkos.service import ClientAuthority
from haneul.firewall.adapters.memory import MemoryApprovals
from haneul.identity.audit import AuditLog
from haneul.identity.issuer.assembly import IssuerSettings
from haneul.identity.secrets import SecretHasher, Work
from haneul.identity.service import Identity
from haneul.kernel.clock import VirtualClock
from haneul.kernel.database import open_database
from haneul.kernel.kube import NAMESPACES
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.kernel.pki import issue_authority

#: An address in the management cluster, and one of its host.
INSIDE, HOST = "10.192.3.4", "198.51.100.9"
RESERVED = [
    TakenRange(IPv4Network("10.192.0.0/16"), "the management cluster's pods", inside=True),
    TakenRange(IPv4Network("198.51.100.0/24"), "a network of the host"),
]
START = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
#: Where browsers reach the application.
ORIGIN = "https://cloud.test:7443"
#: Seconds of silence after which streams show that they live; short, so that tests need not wait.
HEARTBEAT = 0.05
#: What a hash costs here, where no secret is one.
LIGHT = Work(passes=1, memory_kib=8)


class Authorities:
    """Gives every cluster but ``young`` an authority."""

    def __init__(self) -> None:
        self.pair = issue_authority("test", now=START)

    async def of(self, cluster: Cluster) -> ClientAuthority | None:
        return (
            None
            if cluster.name == "young"
            else ClientAuthority(self.pair, "https://192.0.2.9:30000", self.pair.certificate)
        )


class Api:
    """The application, its clock and store, and clients of several people."""

    def __init__(
        self,
        app: FastAPI,
        store: MemoryClusters,
        machines: MemoryMachines,
        events: MemoryEvents,
        clock: VirtualClock,
        tokens: dict[str, str],
        database: str,
        board: MemoryApprovals,
        looks: MemoryLooks,
        backups: MemoryCatalogues,
        addresses: KubeAddressUse,
    ) -> None:
        self.app = app
        self.database = database
        self.store = store
        self.machines = machines
        self.events = events
        self.clock = clock
        self.board = board
        self.looks = looks
        self.backups = backups
        self.addresses = addresses
        self._transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        self.tokens = tokens

    def client(self, token: str = "") -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx2.AsyncClient(transport=self._transport, base_url="http://api/api/v1", headers=headers)

    def browser(self) -> httpx2.AsyncClient:
        """Return a browser without cookies; it follows no redirects."""
        return httpx2.AsyncClient(transport=self._transport, base_url=ORIGIN)

    async def send(self, person: str, method: str, path: str, **arguments: Any) -> httpx2.Response:
        async with self.client(self.tokens.get(person, "")) as client:
            return await client.request(method, path, **arguments)

    async def call(self, person: str, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        response = await self.send(person, method, path, json=body)
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    async def add(self, person: str) -> None:
        await self.call("admin", "POST", "/people", {"name": person}, status=201)
        made = await self.call("admin", "POST", f"/people/{person}/tokens", {"description": "test"}, status=201)
        self.tokens[person] = made["secret"]


@dataclass(frozen=True)
class Beginning:
    """What every application here begins with, which is made once: a database, people's tokens, and the time then."""

    database: bytes
    tokens: dict[str, str]
    seconds: float


_beginnings: list[Beginning] = []


async def _begin(api: Api, file: Path, identity: Identity) -> None:
    """Make the people admin, alice and bob, and alice's project ``shop``."""
    api.tokens["admin"] = (await identity.bootstrap_admin(now=api.clock.now())).secret
    await api.add("alice")
    await api.add("bob")
    await api.call("alice", "POST", "/projects", {"name": "shop"}, status=201)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        _beginnings.append(Beginning(connection.serialize(), dict(api.tokens), api.clock.monotonic()))


@asynccontextmanager
async def running_api(folder: Path, *, clusters_trust_issuer: bool = False) -> AsyncIterator[Api]:
    """Run the application with the people admin, alice and bob, and alice's project ``shop``."""
    clock, file, begun = VirtualClock(START), folder / "haneul.db", _beginnings[:1]
    for beginning in begun:
        file.write_bytes(beginning.database)
        clock.advance(beginning.seconds)
    tokens = {name: token for beginning in begun for name, token in beginning.tokens.items()}
    store, machines, events = MemoryClusters(clock), MemoryMachines(), MemoryEvents()
    board, looks, backups = MemoryApprovals(), MemoryLooks(), MemoryCatalogues()
    kube = MemoryKubeClient(clock=clock)
    await kube.apply(NAMESPACES, {"metadata": {"name": BALANCER.name}})
    addresses = KubeAddressUse(kube)
    database = f"sqlite+aiosqlite:///{file}"
    hasher = SecretHasher(clock, LIGHT)
    engine = open_database(database)
    app = create_api(
        engine=engine,
        store=store,
        quotas=store,
        addresses=addresses,
        machines=machines,
        keys=machines,
        authorities=Authorities(),
        events=events,
        looks=looks,
        reserved=RESERVED,
        board=board,
        backups=backups,
        clock=clock,
        version="test",
        heartbeat_seconds=HEARTBEAT,
        sign_on=IssuerSettings(origin=ORIGIN, key_file=folder / "issuer.key"),
        clusters_trust_issuer=clusters_trust_issuer,
        hasher=hasher,
    )
    async with app.router.lifespan_context(app):
        api = Api(app, store, machines, events, clock, tokens, database, board, looks, backups, addresses)
        if not begun:
            identity = Identity(engine, audit=AuditLog(engine, clock=clock), hasher=hasher, clock=clock)
            await _begin(api, file, identity)
        yield api


@asynccontextmanager
async def served(api: Api) -> AsyncIterator[str]:
    """Serve the running application at a port of this machine; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # The application runs already; serving it does not start it again.
        configuration = uvicorn.Config(api.app, lifespan="off", ws="none", log_level="error", access_log=False)
        server = uvicorn.Server(configuration)
        serving = asyncio.create_task(server.serve([listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
