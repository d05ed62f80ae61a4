"""What a look costs: calls to APIs, and how soon the next look comes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from haneul.dkos.control_plane import Images
from haneul.dkos.model import Cluster, ClusterStatus, Condition, ConditionType, Phase
from haneul.dkos.node_plan import what_matters
from haneul.dkos.pace import CREATION_SECONDS, IDLE, LAST, QUICK, Pace
from haneul.kernel.clock import VirtualClock
from haneul.kernel.kube import NODES, Manifest
from tests.unit.dkos.test_controller import World

LOOKS = 20
#: The masters' pods; whether the cluster's API answers; its nodes.
CALLS_OF_A_LOOK = 3
#: Two services, the authorities, the components' secrets, the tokens.
CALLS_OF_A_CHECK = 5


@pytest.fixture
def world(images: Images, native: Cluster) -> World:
    return World(images, VirtualClock(native.created))


async def test_looks_at_a_ready_cluster_read_only_what_can_have_changed(world: World, native: Cluster) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        await world.settle(controller, native)
        world.clock.advance(IDLE)
        await controller.reconcile(await world.cluster(native))
        world.calls.count = 0
        for _ in range(LOOKS):
            await controller.reconcile(await world.cluster(native))
        assert world.calls.count == CALLS_OF_A_LOOK * LOOKS
        world.calls.count = 0
        world.clock.advance(IDLE)
        await controller.reconcile(await world.cluster(native))
        assert world.calls.count == CALLS_OF_A_LOOK + CALLS_OF_A_CHECK


async def test_looks_while_masters_start_read_their_pods_and_nothing_else(world: World, native: Cluster) -> None:
    await world.ask(native)
    world.wire.cut = True
    async with world.controller() as controller:
        await controller.reconcile(await world.cluster(native))
        world.calls.count = 0
        for _ in range(LOOKS):
            world.clock.advance(QUICK)
            await controller.reconcile(await world.cluster(native))
        assert world.calls.count == LOOKS


async def test_change_of_the_spec_is_acted_on_at_the_next_look(world: World, native: Cluster) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        await world.settle(controller, native)
        settings = native.spec.settings.model_copy(update={"max_requests_in_flight": 123})
        await world.ask(native.model_copy(update={"spec": native.spec.model_copy(update={"settings": settings})}))
        before = await world.objects(versions=True)
        await controller.reconcile(await world.cluster(native))
        after = await world.objects(versions=True)
    changed = [name for name in after if before.get(name) != after[name]]
    assert f"management deployments {native.masters_namespace}/kube-apiserver" in changed


async def test_settled_controller_sleeps_through_kubelets_reports_and_wakes_for_changes(
    world: World, native: Cluster
) -> None:
    await world.ask(native)
    async with world.controller() as controller:
        status = await world.settle(controller, native)
        report = {"status": {"images": ["something that changes all the time"]}}
        trouble = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
        # What happened before it settled wakes it once more.
        for _ in range(3):
            await asyncio.sleep(0)
        controller.wake()
        await controller.pause(status)
        pause = asyncio.create_task(controller.pause(status))
        await world.tenant.patch(NODES, "big-0", report, subresource="status")
        for _ in range(10):
            await asyncio.sleep(0)
        assert not pause.done()
        await world.tenant.patch(NODES, "big-0", trouble, subresource="status")
        async with asyncio.timeout(60):
            await pause


def status(phase: Phase, *, true: bool = False, kind: ConditionType = ConditionType.NODES_READY) -> ClusterStatus:
    since = datetime(2026, 11, 1, tzinfo=UTC)
    condition = Condition(type=kind, status=str(true), reason="x", last_transition_time=since)
    return ClusterStatus(phase=phase, conditions=(condition,))


def test_creation_is_looked_at_quickly_until_it_comes_no_further() -> None:
    pace = Pace()
    creating = status(Phase.CREATING)
    assert {pace.after(creating, now) for now in (0.0, 30.0, CREATION_SECONDS - 1)} == {QUICK}
    waits = [pace.after(creating, CREATION_SECONDS + number) for number in range(30)]
    assert waits == sorted(waits) and waits[-1] == LAST


def test_looks_get_rarer_while_nothing_changes_and_quick_again_after_a_change() -> None:
    pace = Pace()
    degraded = status(Phase.DEGRADED)
    waits = [pace.after(degraded, 1.0) for _ in range(30)]
    assert waits[0] == QUICK and waits == sorted(waits) and waits[-1] == LAST
    assert pace.after(status(Phase.UPDATING), 2.0) == QUICK
    assert sum(waits[:8]) > 8


@pytest.mark.parametrize(
    "seen",
    [status(Phase.READY, true=True), status(Phase.CREATING, kind=ConditionType.ACCEPTED)],
    ids=["ready", "refused"],
)
def test_where_only_a_person_can_go_on_looks_are_rare_at_once(seen: ClusterStatus) -> None:
    assert Pace().after(seen, 0.0) == IDLE


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        ({"metadata": {"name": "a-0", "resourceVersion": "7"}}, False),
        ({"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "later"}]}}, False),
        ({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}, True),
        ({"spec": {"unschedulable": True}}, True),
        ({"metadata": {"name": "a-0", "annotations": {"by": "somebody"}}}, True),
    ],
)
def test_what_matters_of_a_node_is_what_decisions_rest_on(change: Manifest, matters: bool) -> None:
    node: Manifest = {"metadata": {"name": "a-0"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert (what_matters({**node, **change}) != what_matters(node)) is matters
