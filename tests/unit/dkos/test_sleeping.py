"""A cluster that falls asleep and wakes, through its controller: in order, gone on with after any end, and cheap.

The tenant's API here answers only while the pod of its API server is there.
"""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from haneul.dkos.control_plane import Images
from haneul.dkos.door import WAKER_NAMESPACE, record_name, request_patch, sleeper_of
from haneul.dkos.hibernation import PODS_LIFE
from haneul.dkos.model import Cluster, ClusterStatus, Hibernation, NodePool, Phase, SleepRule
from haneul.dkos.states import waits_on
from haneul.kernel.clock import VirtualClock
from haneul.kernel.kube import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    NAMESPACES,
    PODS,
    SECRETS,
    STATEFUL_SETS,
    Manifest,
)
from tests.unit.dkos.test_controller import Calls, World, _tear, job_controller

OWNER = [{"kind": "ReplicaSet", "name": "web", "controller": True}]


@dataclass
class Bedroom(World):
    """The world, and what was there at every move while the cluster fell asleep."""

    seen: list[tuple[Phase, frozenset[str]]] = field(default_factory=list)
    stubborn: bool = False

    async def move(self, cluster: Cluster) -> None:
        await super().move(cluster)
        roles = await self.roles(cluster)
        self.wire.cut = "kube-apiserver" not in roles
        self.seen.append((cluster.status.phase, roles))
        if self.stubborn:
            await self.workload("default-0")

    async def roles(self, cluster: Cluster) -> frozenset[str]:
        pods = await self.management.list(PODS, cluster.masters_namespace)
        machines = {"node"} if await self.nodes.observe(cluster) else set()
        workload = {"workload"} if await self.tenant.get(PODS, "web-0", "default") else set()
        return frozenset({pod["metadata"]["labels"]["dkos.haneul.dev/role"] for pod in pods} | machines | workload)

    async def workload(self, node: str) -> None:
        pod: Manifest = {"spec": {"nodeName": node}}
        owned = {"metadata": {"name": "web-0", "namespace": "default", "ownerReferences": OWNER}, **pod}
        await self.tenant.apply(PODS, owned)
        await self.tenant.apply(PODS, {"metadata": {"name": "bare", "namespace": "default"}, **pod})

    async def say(self, like: Cluster, **hibernation: Any) -> Cluster:
        """Ask for sleep or waking, as the platform's API does."""
        kept = (await self.cluster(like)).spec
        word = kept.hibernation.model_copy(update={"asked": self.clock.now(), **hibernation})
        changed = kept.model_copy(update={"hibernation": word})
        await self.ask(like.model_copy(update={"spec": changed}))
        return await self.cluster(like)

    async def slice(self, like: Cluster) -> Manifest | None:
        return await self.management.get(ENDPOINT_SLICES, "kube-apiserver-waker", like.masters_namespace)

    async def record(self, like: Cluster) -> Manifest | None:
        uid = (await self.cluster(like)).uid
        return await self.management.get(CONFIG_MAPS, record_name(uid), WAKER_NAMESPACE)

    async def request(self, like: Cluster) -> None:
        """Note that the cluster is asked for, as the waker does."""
        name = record_name((await self.cluster(like)).uid)
        patch = request_patch(self.clock.now().isoformat())
        await self.management.patch(CONFIG_MAPS, name, patch, WAKER_NAMESPACE)

    async def looks(self, like: Cluster, until: Phase, most: int = 30) -> ClusterStatus:
        """Let one controller look until the cluster is in a phase."""
        status = ClusterStatus()
        async with self.controller() as controller:
            for _ in range(most):
                status = await controller.reconcile(await self.cluster(like))
                if status.phase is until:
                    break
                await self.move(await self.cluster(like))
        assert status.phase is until, waits_on(status)
        return status


async def bedroom(images: Images, like: Cluster) -> Bedroom:
    world = Bedroom(images, VirtualClock(like.created))
    world.wakers.addresses = ("10.9.0.7",)
    await world.ask(like)
    await world.looks(like, Phase.READY)
    await world.workload("default-0")
    world.clock.advance(60)
    world.seen.clear()
    world.told.clear()
    return world


@pytest.fixture
async def world(images: Images, native: Cluster) -> Bedroom:
    return await bedroom(images, native)


async def test_falls_asleep_from_the_outside_in_and_keeps_what_it_has(world: Bedroom, native: Cluster) -> None:
    kept = {name for name in await world.objects() if "secrets cluster" in name or "persistentvolume" in name}
    await world.say(native, asleep=True)
    status = await world.looks(native, Phase.ASLEEP)
    assert not await world.roles(native) - {"workload"}
    orders = [roles for _, roles in world.seen]
    assert [len(roles) for roles in orders] == sorted((len(roles) for roles in orders), reverse=True)
    assert all("kube-apiserver" in roles for roles in orders if "node" in roles or "workload" in roles)
    assert all("etcd" in roles for roles in orders if "kube-apiserver" in roles)
    # What nobody would make anew stays an object, for the kubelet to start again.
    assert [pod["metadata"]["name"] for pod in await world.tenant.list(PODS)] == ["bare"]
    assert kept <= set(await world.objects())
    for resource in (DEPLOYMENTS, STATEFUL_SETS):
        assert {p["spec"]["replicas"] for p in await world.management.list(resource, native.masters_namespace)} == {0}
    assert [(c.type.value, c.status, c.reason) for c in status.conditions] == [
        ("Accepted", "True", "SpecAccepted"),
        ("Hibernated", "True", "Asleep"),
    ]
    assert [event.reason.value for event in world.told] == ["SpecChanged", "Hibernating", "Asleep"]


async def test_waker_stands_before_a_sleeping_api_only(world: Bedroom, native: Cluster) -> None:
    assert (await world.slice(native), await world.record(native)) == (None, None)
    await world.say(native, asleep=True)
    await world.looks(native, Phase.ASLEEP)
    found, record = await world.slice(native), await world.record(native)
    assert found is not None and record is not None
    sleeper = sleeper_of(record)
    assert sleeper is not None
    assert (sleeper.project, sleeper.target, sleeper.requested) == ("shop", "", False)
    assert found["ports"] == [{"name": "https", "port": sleeper.port, "protocol": "TCP"}]
    assert found["endpoints"] == [{"addresses": ["10.9.0.7"], "conditions": {"ready": True}}]
    await world.say(native, asleep=False)
    async with world.controller() as controller:
        waking = await controller.reconcile(await world.cluster(native))
        assert (waking.phase, await world.slice(native)) == (Phase.WAKING, found)
        await world.move(await world.cluster(native))
        await controller.reconcile(await world.cluster(native))
        assert await world.slice(native) is None
        passed_on = sleeper_of(await world.record(native) or {})
        assert passed_on is not None and passed_on.target.endswith(":6443")
    await world.looks(native, Phase.READY)
    assert (await world.slice(native), await world.record(native)) == (None, None)


async def test_wakes_with_all_that_was_asked_for_meanwhile(world: Bedroom, native: Cluster) -> None:
    await world.say(native, asleep=True)
    await world.looks(native, Phase.ASLEEP)
    pools = (NodePool(name="default", count=1),)
    spec = (await world.cluster(native)).spec.model_copy(update={"node_pools": pools})
    await world.ask(native.model_copy(update={"spec": spec}))
    asleep = await world.looks(native, Phase.ASLEEP)
    assert asleep.observed_generation == (await world.cluster(native)).generation
    world.told.clear()
    await world.say(native, asleep=False)
    status = await world.looks(native, Phase.READY)
    assert [node.name for node in status.nodes] == ["default-0"]
    assert [machine.name for machine in await world.nodes.observe(await world.cluster(native))] == ["default-0"]
    reasons = [event.reason.value for event in world.told]
    assert reasons[:2] == ["SpecChanged", "Waking"]
    assert reasons[-1] == "ClusterReady"
    assert "NodeReplaced" not in reasons


async def test_request_wakes_a_sleeping_cluster_unless_it_is_told_not_to(world: Bedroom, native: Cluster) -> None:
    await world.say(native, asleep=True)
    async with world.controller() as controller:
        while (await controller.reconcile(await world.cluster(native))).phase is not Phase.ASLEEP:
            # Who asks while it falls asleep is not meant: what came from the cluster itself is ending.
            controller.request()
            await world.move(await world.cluster(native))
        before = await world.cluster(native)
        assert (await controller.reconcile(before)).phase is Phase.ASLEEP
        await world.request(native)
        controller.request()
        await controller.reconcile(before)
        after = await world.cluster(native)
        assert (after.spec.hibernation.asleep, after.spec.hibernation.asked) == (False, world.clock.now())
        # The watch may still show what was before.
        assert (await controller.reconcile(before)).phase is Phase.ASLEEP
        assert (await controller.reconcile(after)).phase is Phase.WAKING
    await world.looks(native, Phase.READY)
    await world.say(native, asleep=True, wake_on_request=False)
    await world.looks(native, Phase.ASLEEP)
    assert (await world.slice(native), await world.record(native)) == (None, None)
    async with world.controller() as controller:
        controller.request()
        await controller.reconcile(await world.cluster(native))
    assert (await world.cluster(native)).spec.hibernation.asleep


async def test_hibernating_at_once_after_a_request_is_not_undone_by_it(world: Bedroom, native: Cluster) -> None:
    await world.say(native, asleep=True)
    await world.looks(native, Phase.ASLEEP)
    await world.request(native)
    async with world.controller() as controller:
        controller.request()
        await controller.reconcile(await world.cluster(native))
        assert (await controller.reconcile(await world.cluster(native))).phase is Phase.WAKING
        await world.say(native, asleep=True)
        for _ in range(6):
            controller.request()
            await controller.reconcile(await world.cluster(native))
            await world.move(await world.cluster(native))
    assert (await world.cluster(native)).status.phase is Phase.ASLEEP
    assert (await world.cluster(native)).spec.hibernation.asleep


async def test_pods_that_do_not_end_are_waited_for_no_longer_than_the_bound(world: Bedroom, native: Cluster) -> None:
    world.stubborn = True
    await world.say(native, asleep=True)
    began = world.clock.now()
    status = await world.looks(native, Phase.ASLEEP, most=200)
    assert status.phase is Phase.ASLEEP
    assert PODS_LIFE <= world.clock.now() - began <= PODS_LIFE + timedelta(seconds=10)


async def test_silent_api_does_not_keep_a_cluster_awake(world: Bedroom, native: Cluster) -> None:
    await world.say(native, asleep=True)
    async with world.controller() as controller:
        for _ in range(60):
            world.wire.cut = True
            if (await controller.reconcile(await world.cluster(native))).phase is Phase.ASLEEP:
                return
            await world.move(await world.cluster(native))
    pytest.fail("still awake")


async def test_sleeping_cluster_costs_no_call(world: Bedroom, native: Cluster) -> None:
    await world.say(native, asleep=True)
    await world.looks(native, Phase.ASLEEP)
    async with world.controller() as controller:
        await controller.reconcile(await world.cluster(native))
        before, calls = await world.objects(versions=True), world.calls.count
        for _ in range(10):
            world.clock.advance(15)
            await controller.reconcile(await world.cluster(native))
        assert world.calls.count == calls
        # Once in a while, and when something is heard of, all is looked at; still nothing is written.
        world.clock.advance(600)
        await controller.reconcile(await world.cluster(native))
        assert world.calls.count > calls
        assert {k: v for k, v in (await world.objects(versions=True)).items() if before.get(k) != v} == {}
        world.wakers.addresses = ("10.9.0.8",)
        await controller.reconcile(await world.cluster(native))
    found = await world.slice(native)
    assert found is not None and found["endpoints"][0]["addresses"] == ["10.9.0.8"]


async def test_schedule_puts_to_sleep_and_wakes(world: Bedroom, native: Cluster) -> None:
    rule = SleepRule(sleep="0 20 * * *", wake="0 7 * * *", zone="Europe/Berlin")
    await world.say(native, schedule=(rule,))
    assert (await world.looks(native, Phase.READY)).phase is Phase.READY
    world.clock.advance(timedelta(hours=8).total_seconds())
    status = await world.looks(native, Phase.ASLEEP)
    assert "2026-11-02 06:00 UTC" in status.conditions[1].message
    world.clock.advance(timedelta(hours=11).total_seconds())
    await world.looks(native, Phase.READY)


async def test_sleeping_cluster_is_deleted_whole(world: Bedroom, native: Cluster) -> None:
    await world.say(native, asleep=True)
    await world.looks(native, Phase.ASLEEP)
    cluster = await world.cluster(native)
    async with job_controller(world.management):
        await _tear(world.management, cluster, world.clock)
    assert await world.record(native) is None
    assert await world.management.get(NAMESPACES, cluster.masters_namespace) is None


async def _die_at(world: Bedroom, like: Cluster, until: Phase, call: int) -> bool:
    """End a controller at its n-th call; return whether it came so far."""
    world.calls = world.wire._calls = Calls()
    world.calls.hold_at = call
    work = asyncio.create_task(world.looks(like, until))
    held = asyncio.create_task(world.calls.held.wait())
    await asyncio.wait((work, held), return_when=asyncio.FIRST_COMPLETED)
    died = not work.done()
    for task in (work, held):
        task.cancel()
    await asyncio.gather(work, held, return_exceptions=True)
    world.calls = world.wire._calls = Calls()
    return died


@pytest.mark.parametrize(("asleep", "goal"), [(True, Phase.ASLEEP), (False, Phase.READY)])
async def test_controller_that_ends_at_any_call_is_continued(
    images: Images, native: Cluster, asleep: bool, goal: Phase
) -> None:
    like = native.model_copy(update={"spec": native.spec.model_copy(update={"node_pools": (NodePool(),)})})

    begin = await bedroom(images, like)
    if not asleep:
        await begin.say(like, asleep=True)
        await begin.looks(like, Phase.ASLEEP)
    await begin.say(like, asleep=asleep)
    whole = copy.deepcopy(begin)
    await whole.looks(like, goal)
    expected = await whole.objects()
    number = 0
    while True:
        number += 1
        world = copy.deepcopy(begin)
        kept = await world.management.get(SECRETS, "authorities", like.masters_namespace)
        died = await _die_at(world, like, goal, number)
        await world.looks(like, goal)
        assert await world.objects() == expected, f"ended at call {number}"
        assert kept == await world.management.get(SECRETS, "authorities", like.masters_namespace)
        if not died:
            break
    assert number > 20


async def test_waking_is_asked_for_once_however_the_operator_ends(world: Bedroom, native: Cluster) -> None:
    """A request is a mark on the record, so one that nobody acted on is still there for the next operator."""
    await world.say(native, asleep=True)
    await world.looks(native, Phase.ASLEEP)
    await world.request(native)
    await world.looks(native, Phase.ASLEEP)
    record = sleeper_of(await world.record(native) or {})
    assert record is not None and record.requested
    await world.say(native, asleep=False)
    await world.looks(native, Phase.READY)
    await world.say(native, asleep=True)
    await world.looks(native, Phase.ASLEEP)
    again = sleeper_of(await world.record(native) or {})
    assert again is not None and not again.requested


def test_hibernation_of_a_new_spec_is_none() -> None:
    assert Hibernation() == Hibernation(asleep=False, schedule=(), wake_on_request=True)
