"""What the image hub is told of all clusters: each by itself, and of a deleted one that it runs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from haneul.app.hub_reporter import HubSite, HubWork
from haneul.cli.hub import HubClient, HubContext
from haneul.dkos.cluster_record import ClusterRecord, Standing
from haneul.dkos.credentials import public_token_keys
from haneul.dkos.keyring import Keyring, new_authorities
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import NAMESPACES, PODS, KubeAccess, KubeClient
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.kernel.waiting import wait_for

DIGEST = f"sha256:{'a' * 64}"
KEYS = public_token_keys(Keyring(new_authorities("shop/web", datetime(2026, 11, 1, tzinfo=UTC))))
ACCESS = KubeAccess("https://web", b"ca", b"crt", b"key")
RECORD = ClusterRecord("uid", "shop", "web", "", Standing.FOLLOWED, ACCESS, token_keys=KEYS)


class Ground:
    """A cluster, a hub that keeps what it is told, and a clock whose time is over at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = MemoryKubeClient()
        self.told: list[tuple[str, Any]] = []
        self.away = False
        site = HubSite(folder, "https://hub.test", "hub.k8s.example", folder / "ca.crt", folder / "token")
        self.work = HubWork(site, self.connect, Hurried(), client=self.client)

    @contextlib.asynccontextmanager
    async def connect(self, _: KubeAccess, project: str) -> AsyncIterator[KubeClient]:
        yield self.cluster

    def client(self) -> HubClient:
        return HubClient(HubContext("https://hub.test"), "", transport=httpx2.MockTransport(self.answer))

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        if self.away:
            raise httpx2.ConnectError("away")
        if request.url.path == "/token":
            assert request.url.params["scope"] == "repository:shop:push"
            return httpx2.Response(200, json={"token": "of the hub"})
        self.told.append((request.url.path, json.loads(request.content)))
        return httpx2.Response(200, json={})

    def trusted(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


class Hurried(SystemClock):
    async def sleep(self, seconds: float) -> None:
        await super().sleep(min(seconds, 0.001))


@pytest.fixture
async def ground(tmp_path: Path) -> Ground:
    ground = Ground(tmp_path)
    await ground.cluster.apply(NAMESPACES, {"metadata": {"name": "default"}})
    spec = {"containers": [{"name": "web", "image": f"hub.k8s.example/shop/web@{DIGEST}"}]}
    pod = {"metadata": {"name": "web", "namespace": "default"}, "spec": spec}
    await ground.cluster.create(PODS, pod)
    return ground


@contextlib.asynccontextmanager
async def followed(ground: Ground, record: ClusterRecord = RECORD) -> AsyncIterator[None]:
    task = asyncio.create_task(ground.work.follow(record))
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(ground: Ground, count: int) -> None:
    async def told() -> bool:
        return len(ground.told) >= count

    await wait_for(told, what="reports", timeout=30, clock=SystemClock(), interval=0.005)


async def test_a_cluster_s_pods_are_let_in_and_what_they_run_is_told_again_and_again(ground: Ground) -> None:
    async with followed(ground):
        await until(ground, 2)
    assert ground.told[0] == ground.told[1]
    where, what = ground.told[0]
    assert where == "/api/v1/inventory/shop/web"
    assert what == {"images": [{"namespace": "default", "workload": "Pod/web", "digest": DIGEST}]}
    said = json.loads((ground.folder / "uid.json").read_text())
    assert {name: said[name] for name in ("project", "cluster", "issuer", "audience")} == {
        "project": "shop",
        "cluster": "web",
        "issuer": "https://kubernetes.default.svc",
        "audience": "hub.k8s.example",
    }
    assert [found["kty"] for found in said["keys"]] == ["EC"]
    assert (ground.folder / "uid.json").stat().st_mode & 0o777 == 0o600


async def test_a_hub_that_is_away_is_told_when_it_is_back(ground: Ground) -> None:
    ground.away = True
    async with followed(ground):

        async def trusted() -> bool:
            return ground.trusted() == ["uid.json"]

        await wait_for(trusted, what="the cluster's file", timeout=30, clock=SystemClock(), interval=0.005)
        ground.away = False
        await until(ground, 1)


async def test_a_sleeping_cluster_is_not_asked_and_its_pods_are_let_in(ground: Ground) -> None:
    await ground.work.rest(replace(RECORD, standing=Standing.ASLEEP))
    assert (ground.told, ground.trusted()) == ([], ["uid.json"])


async def test_a_deleted_cluster_runs_nothing_and_nobody_of_it_is_let_in(ground: Ground) -> None:
    gone = replace(RECORD, standing=Standing.DELETED, access=None)
    await ground.work.rest(RECORD)
    ground.away = True
    with pytest.raises(UnavailableError):
        await ground.work.withdraw(gone)
    # As long as the hub was not told, it is to be told again.
    assert ground.trusted() == ["uid.json"]
    ground.away = False
    for _ in range(2):
        await ground.work.withdraw(gone)
    assert ground.told == [("/api/v1/inventory/shop/web", {"images": []})]
    assert ground.trusted() == []


async def test_a_record_without_keys_lets_nobody_in(ground: Ground) -> None:
    await ground.work.rest(replace(RECORD, token_keys=b""))
    assert ground.trusted() == []
