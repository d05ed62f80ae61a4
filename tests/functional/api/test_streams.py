"""Watching clusters: server-sent events from a real server on this machine, as clients get them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from haneul.app.server import DrainingServer
from haneul.kernel.clock import SystemClock
from haneul.kernel.waiting import wait_for
from tests.functional.api.application import Api, running_api

CLUSTERS = "/projects/shop/clusters"


class Served:
    """The application behind a server."""

    def __init__(self, api: Api, server: DrainingServer, address: str) -> None:
        self.api = api
        self.server = server
        self.address = address

    @asynccontextmanager
    async def watch(self, person: str, **query: str) -> AsyncIterator[Stream]:
        headers = {"Authorization": f"Bearer {self.api.tokens[person]}"}
        params = {"watch": "true", **query}
        async with (
            httpx2.AsyncClient(base_url=f"{self.address}/api/v1", headers=headers, timeout=60) as client,
            client.stream("GET", CLUSTERS, params=params) as response,
        ):
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            yield Stream(response)

    async def stop(self) -> None:
        self.server.should_exit = True


class Stream:
    """What comes, event by event."""

    def __init__(self, response: httpx2.Response) -> None:
        self._lines = response.aiter_lines()
        self.comments = 0

    async def next(self) -> tuple[str, Any]:
        """Return the next event's type and data. Raises StopAsyncIteration at the end."""
        kind = ""
        while True:
            line = await anext(self._lines)
            if line.startswith(":"):
                self.comments += 1
            elif line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                return kind, json.loads(line.removeprefix("data: "))

    async def comment(self) -> None:
        """Return when a comment came."""
        while not (await anext(self._lines)).startswith(":"):
            pass

    async def end(self) -> None:
        """Return when the stream ended."""
        async for _ in self._lines:
            pass


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running_api(tmp_path) as api:
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            api.app, lifespan="off", ws="none", log_level="error", access_log=False, timeout_graceful_shutdown=100
        )
        server = DrainingServer(config, drain=api.app.state.drain)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield Served(api, server, f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            server.should_exit = True
            await task


async def create(api: Api, name: str) -> None:
    await api.call("alice", "POST", CLUSTERS, {"name": name}, status=201)


async def test_what_is_there_comes_first_and_then_every_change(served: Served) -> None:
    api = served.api
    await create(api, "web")
    async with served.watch("alice") as stream:
        kind, cluster = await stream.next()
        assert (kind, cluster) == ("added", await api.call("alice", "GET", f"{CLUSTERS}/web"))
        await create(api, "shop")
        await api.call("alice", "PATCH", f"{CLUSTERS}/web", {"settings": {"maxPodsPerNode": 50}})
        await api.call("alice", "DELETE", f"{CLUSTERS}/shop", status=202)
        seen = [await stream.next() for _ in range(3)]
        assert [(kind, cluster["name"]) for kind, cluster in seen] == [
            ("added", "shop"),
            ("modified", "web"),
            ("deleted", "shop"),
        ]
        assert seen[1][1]["spec"]["settings"]["maxPodsPerNode"] == 50


async def test_one_cluster_can_be_watched_alone_and_silence_is_filled(served: Served) -> None:
    await create(served.api, "web")
    async with served.watch("alice", name="web") as stream:
        await stream.next()
        await create(served.api, "other")
        await stream.comment()
        await served.api.call("alice", "DELETE", f"{CLUSTERS}/web", status=202)
        assert (await stream.next())[0] == "deleted"


async def test_other_projects_are_not_seen(served: Served) -> None:
    await served.api.call("bob", "POST", "/projects", {"name": "yard"}, status=201)
    async with served.watch("alice") as stream:
        await served.api.call("bob", "POST", "/projects/yard/clusters", {"name": "secret"}, status=201)
        await create(served.api, "web")
        assert (await stream.next())[1]["name"] == "web"


async def test_who_may_no_longer_look_sees_the_stream_end(served: Served) -> None:
    await served.api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "viewer"})
    async with served.watch("bob") as stream:
        await stream.comment()
        await served.api.call("admin", "PATCH", "/people/bob", {"disabled": True})
        await stream.end()


async def test_many_listeners_share_one_watch_that_ends_with_the_last(served: Served) -> None:
    store = served.api.store
    async with served.watch("alice") as first, served.watch("admin") as second:
        await create(served.api, "web")
        assert (await first.next())[0] == (await second.next())[0] == "added"
        assert store.watchers == 1

    async def nobody() -> bool:
        return store.watchers == 0

    await wait_for(nobody, what="the end of the watch", timeout=30, interval=0.01, clock=SystemClock())


async def test_a_stopping_server_ends_streams_and_does_not_wait_for_them(served: Served) -> None:
    async with served.watch("alice") as stream:
        await stream.comment()
        await served.stop()
        # Far less than what the server would wait for requests that do not end.
        async with asyncio.timeout(50):
            await stream.end()
    problem = await served.api.call("alice", "GET", f"{CLUSTERS}?watch=true", status=503)
    assert problem["hint"]


async def test_nobody_watches_what_is_not_theirs(api: Api) -> None:
    await api.call("bob", "GET", f"{CLUSTERS}?watch=true", status=404)
