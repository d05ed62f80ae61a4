"""Emptying a node: who may not leave keeps the others there, if it is waited for without end."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from haneul.dkos.draining import Drainer
from haneul.kernel.clock import VirtualClock
from haneul.kernel.kube import NAMESPACES, POD_DISRUPTION_BUDGETS, PODS, Manifest
from haneul.kernel.kube_memory import MemoryKubeClient


def pod(name: str, node: str = "a-0") -> Manifest:
    metadata = {"name": name, "namespace": "shop", "labels": {"app": name}}
    return {"metadata": metadata, "spec": {"nodeName": node}}


@pytest.fixture
async def tenant() -> MemoryKubeClient:
    """Two pods on a node, of which one is held by its budget, and one on another."""
    made = MemoryKubeClient()
    await made.apply(NAMESPACES, {"metadata": {"name": "shop"}})
    for manifest in (pod("free"), pod("held"), pod("elsewhere", "a-1")):
        await made.create(PODS, manifest)
    budget = {"metadata": {"name": "held", "namespace": "shop"}, "spec": {"selector": {"matchLabels": {"app": "held"}}}}
    await made.create(POD_DISRUPTION_BUDGETS, budget)
    return made


async def left(tenant: MemoryKubeClient) -> set[str]:
    return {found["metadata"]["name"] for found in await tenant.list(PODS, "shop")}


async def test_pods_leave_one_by_one_where_a_deadline_ends_the_wait(tenant: MemoryKubeClient) -> None:
    drainer = Drainer(VirtualClock(datetime(2026, 1, 1, tzinfo=UTC)))
    assert [found["metadata"]["name"] for found in await drainer.drain(tenant, "a-0")] == ["held"]
    assert await left(tenant) == {"held", "elsewhere"}
    assert "shop/held" in drainer.held("a-0")


async def test_together_none_leaves_before_all_may(tenant: MemoryKubeClient) -> None:
    clock = VirtualClock(datetime(2026, 1, 1, tzinfo=UTC))
    drainer = Drainer(clock)
    assert len(await drainer.drain(tenant, "a-0", together=True)) == 2
    assert await left(tenant) == {"free", "held", "elsewhere"}
    assert "shop/held" in drainer.held("a-0") and "shop/free" not in drainer.held("a-0")
    allowed = {"status": {"disruptionsAllowed": 1}}
    await tenant.patch(POD_DISRUPTION_BUDGETS, "held", allowed, "shop", subresource="status")
    clock.advance(60)
    assert await drainer.drain(tenant, "a-0", together=True) == []
    assert await left(tenant) == {"elsewhere"}
    assert drainer.held("a-0") == ""
