"""The REST API in process: the real application, a real database in a file, clusters in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI

from haneul.app.api import create_api
from haneul.dkos.cluster_store import MemoryClusters
from haneul.dkos.event_log import MemoryEvents
from haneul.dkos.model import Cluster
from haneul.dkos.service import ClientAuthority
from haneul.firewall.adapters.memory import MemoryApprovals
from haneul.identity.secrets import SecretHasher
from haneul.identity.service import Identity
from haneul.kernel.clock import VirtualClock
from haneul.kernel.database import open_database
from haneul.kernel.pki import issue_authority

START = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
#: Seconds of silence after which streams show that they live; short, so that tests need not wait.
HEARTBEAT = 0.05


class Authorities:
    """Gives every cluster but ``young`` an authority."""

    def __init__(self) -> None:
        self.pair = issue_authority("test", now=START)

    async def of(self, cluster: Cluster) -> ClientAuthority | None:
        return None if cluster.name == "young" else ClientAuthority(self.pair, "https://192.0.2.9:30000")


class Api:
    """The application, its clock and store, and clients of several people."""

    def __init__(
        self,
        app: FastAPI,
        store: MemoryClusters,
        events: MemoryEvents,
        clock: VirtualClock,
        admin: str,
        database: str,
        board: MemoryApprovals,
    ) -> None:
        self.app = app
        self.database = database
        self.store = store
        self.events = events
        self.clock = clock
        self.board = board
        self._transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        self.tokens = {"admin": admin}

    def client(self, token: str = "") -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx2.AsyncClient(transport=self._transport, base_url="http://api/api/v1", headers=headers)

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


@asynccontextmanager
async def running_api(folder: Path) -> AsyncIterator[Api]:
    """Run the application with the people admin, alice and bob, and alice's project ``shop``."""
    clock = VirtualClock(START)
    store, events, board = MemoryClusters(clock), MemoryEvents(), MemoryApprovals()
    database = f"sqlite+aiosqlite:///{folder}/haneul.db"
    engine = open_database(database)
    app = create_api(
        engine=engine,
        store=store,
        quotas=store,
        authorities=Authorities(),
        events=events,
        board=board,
        reserved=[],
        clock=clock,
        version="test",
        heartbeat_seconds=HEARTBEAT,
    )
    async with app.router.lifespan_context(app):
        admin = await Identity(engine, hasher=SecretHasher(clock), clock=clock).bootstrap_admin(now=clock.now())
        api = Api(app, store, events, clock, admin.secret, database, board)
        await api.add("alice")
        await api.add("bob")
        await api.call("alice", "POST", "/projects", {"name": "shop"}, status=201)
        yield api
