"""What every store of looks does: the behaviour suite of the port LookStore."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from haneul.compliance.adapters.kube_looks import KubeLooks
from haneul.compliance.adapters.memory_looks import MemoryLooks
from haneul.compliance.model import Look, Outcome, Result
from haneul.compliance.ports import LookStore
from haneul.kernel.kube import CONFIG_MAPS, NAMESPACES, KubeApiError, Manifest, Resource
from haneul.kernel.kube_memory import MemoryKubeClient

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
LABELS = {"app.kubernetes.io/managed-by": "haneul"}


def a_look(asked: str) -> Look:
    outcomes = (Outcome(id="1.2.1", result=Result.WARN, seen="look at “this”"),)
    return Look(asked=asked, examined=NOW, outcomes=outcomes)


async def kubernetes() -> MemoryKubeClient:
    client = MemoryKubeClient()
    for name in ("cluster-shop-web", "cluster-shop-lab"):
        await client.create(NAMESPACES, {"metadata": {"name": name}})
    return client


@pytest.fixture(params=["memory", "kubernetes"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[LookStore]:
    yield MemoryLooks() if request.param == "memory" else KubeLooks(await kubernetes(), "examination")


async def test_the_last_look_is_kept_and_each_cluster_has_its_own(store: LookStore) -> None:
    assert await store.read("cluster-shop-web") is None
    await store.write("cluster-shop-web", LABELS, a_look("first"))
    await store.write("cluster-shop-web", LABELS, a_look("second"))
    assert await store.read("cluster-shop-web") == a_look("second")
    assert await store.read("cluster-shop-lab") is None


async def test_a_look_carries_the_marks_of_its_cluster() -> None:
    client = await kubernetes()
    await KubeLooks(client, "examination").write("cluster-shop-web", LABELS, a_look("first"))
    kept = await client.get(CONFIG_MAPS, "examination", "cluster-shop-web")
    assert kept is not None
    assert kept["metadata"]["labels"] == LABELS


async def test_a_look_of_another_release_is_none() -> None:
    client = await kubernetes()
    metadata = {"name": "examination", "namespace": "cluster-shop-web"}
    await client.create(CONFIG_MAPS, {"metadata": metadata, "data": {"look.json": '{"of": "another kind"}'}})
    assert await KubeLooks(client, "examination").read("cluster-shop-web") is None


@pytest.mark.parametrize("status", [403, 500])
async def test_only_who_has_no_right_yet_is_told_that_there_is_none(status: int) -> None:
    class Refusing(MemoryKubeClient):
        async def get(self, resource: Resource, name: str, namespace: str = "") -> Manifest | None:
            raise KubeApiError("no", status=status, reason="Forbidden")

    looks = KubeLooks(Refusing(), "examination")
    if status == 403:
        assert await looks.read("cluster-shop-web") is None
    else:
        with pytest.raises(KubeApiError):
            await looks.read("cluster-shop-web")
