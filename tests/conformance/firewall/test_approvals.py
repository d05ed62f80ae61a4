"""Where approvals are published and read: what every board does, and that forged objects approve nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from haneul.firewall.adapters.kube_approvals import APPROVALS, KubeApprovals, approval_manifest
from haneul.firewall.adapters.memory import MemoryApprovals
from haneul.firewall.model import Approval, Resource, Way
from haneul.kernel.kube import NAMESPACES
from haneul.kernel.kube_memory import MemoryKubeClient

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
DB = Resource(name="db-prod", addresses=("10.1.2.3/32",), ports=("5432/tcp",), reason="orders")


def approval(project: str = "shop", uid: str = "uid-1", address: str = "192.0.2.7") -> Approval:
    way = Way(project=project, cluster="web", uid=uid, pool="gated", node="gated-0", address=address, resource=DB)
    return Approval(way=way, approver="carol", decision=7, moment=NOW)


@pytest.fixture
async def client() -> MemoryKubeClient:
    client = MemoryKubeClient()
    for project in ("shop", "lab"):
        await client.apply(NAMESPACES, {"metadata": {"name": f"project-{project}"}})
    return client


@pytest.fixture(params=["memory", "kube"])
def board(request: pytest.FixtureRequest, client: MemoryKubeClient) -> MemoryApprovals | KubeApprovals:
    return MemoryApprovals() if request.param == "memory" else KubeApprovals(client)


async def test_what_is_published_is_read_word_for_word_and_withdrawn(board: MemoryApprovals | KubeApprovals) -> None:
    one = approval()
    for _ in range(2):
        await board.publish(one)
    assert list(await board.of("shop", "uid-1")) == [one]
    for _ in range(2):
        await board.withdraw(one)
    assert list(await board.of("shop", "uid-1")) == []


async def test_each_cluster_has_its_own(board: MemoryApprovals | KubeApprovals) -> None:
    all_of_them = [approval(), approval(uid="uid-2"), approval(project="lab", uid="uid-3")]
    for one in all_of_them:
        await board.publish(one)
    assert list(await board.of("shop", "uid-1")) == [all_of_them[0]]
    assert list(await board.of("lab", "uid-1")) == []
    assert {one.way.id for one in await board.published()} == {one.way.id for one in all_of_them}


async def test_a_later_decision_on_the_same_way_replaces_the_earlier(board: MemoryApprovals | KubeApprovals) -> None:
    later = approval().model_copy(update={"decision": 9, "approver": "dave"})
    await board.publish(approval())
    await board.publish(later)
    assert list(await board.of("shop", "uid-1")) == [later]


def _forged(**changes: Any) -> dict[str, Any]:
    manifest = approval_manifest(approval())
    way = manifest["spec"]["way"]
    return {**manifest, "spec": {**manifest["spec"], "way": {**way, **changes}}}


@pytest.mark.parametrize(
    "manifest",
    [
        _forged(address="192.0.2.8"),
        _forged(uid="uid-2"),
        _forged(project="lab"),
        _forged(resource={**DB.model_dump(mode="json"), "ports": ["1-65535/tcp"]}),
        {**approval_manifest(approval()), "spec": {"approved": True}},
        {**approval_manifest(approval()), "spec": {}},
    ],
)
async def test_an_object_that_does_not_fit_its_name_approves_nothing(
    client: MemoryKubeClient, manifest: dict[str, Any]
) -> None:
    await client.create(APPROVALS, manifest)
    board = KubeApprovals(client)
    assert list(await board.of("shop", "uid-1")) == []
    assert list(await board.published()) == []
    assert await client.list(APPROVALS) == [], "only the platform's API writes here, so it cleans up"
