"""A cluster that falls asleep and wakes, through its controller: in order, gone on with after any end, and cheap.

The tenant's API here answers only while the pod of its API server is there.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from haneul.dkos.adapters.kube_clusters import KubeClusters
from haneul.dkos.control_plane import Images
from haneul.dkos.credentials import decode
from haneul.dkos.door import WAKER_NAMESPACE, record_name, request_patch, sleeper_of
from haneul.dkos.hibernation import PODS_LIFE
from haneul.dkos.keyring import keyring_from
from haneul.dkos.model import Cluster, ClusterSpec, ClusterStatus, Hibernation, NodePool, Phase, SleepRule
from haneul.dkos.quota import QuotaLimits
from haneul.dkos.rotation import Step
from haneul.dkos.states import waits_on
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import UnavailableError
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
from tests.unit.dkos.test_controller import World, _tear, job_controller

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


async def test_schedule_waits_for_what_the_cluster_is_in_the_middle_of(images: Images, native: Cluster) -> None:
    rule = SleepRule(sleep="30 12 * * *", wake="0 7 * * *")
    spec = native.spec.model_copy(update={"hibernation": Hibernation(schedule=(rule,))})
    like = native.model_copy(update={"spec": spec})
    world = Bedroom(images, VirtualClock(like.created))
    await world.ask(like)
    async with world.controller() as controller:
        await controller.reconcile(await world.cluster(like))
        # It is half past twelve, and the cluster is only half made.
        world.clock.advance(timedelta(minutes=31).total_seconds())
        for _ in range(2):
            status = await controller.reconcile(await world.cluster(like))
            assert status.phase is Phase.CREATING
    waits = [event.message for event in world.told if event.reason.value == "SleepWaits"]
    assert waits == ["by its schedule the cluster would sleep, which waits for this: it is being made"]
    assert not (await world.cluster(like)).spec.hibernation.asleep
    await world.looks(like, Phase.ASLEEP)
    word = (await world.cluster(like)).spec.hibernation
    assert (word.asleep, word.asked) == (True, like.created.replace(hour=12, minute=30))


async def full(world: Bedroom, like: Cluster) -> KubeClusters:
    """Give what a sleeping cluster had to another; return the store, which can make room again."""
    store = KubeClusters(world.management, clock=world.clock)
    await store.set_quota(like.project, QuotaLimits(clusters=9, nodes=like.spec.node_count))
    spec = ClusterSpec(node_pools=(NodePool(),))
    await store.create(like.project, "other", lambda _: spec)
    return store


async def test_request_wakes_nobody_beyond_the_quota(world: Bedroom, native: Cluster) -> None:
    await world.say(native, asleep=True)
    await world.looks(native, Phase.ASLEEP)
    store = await full(world, native)
    world.told.clear()
    async with world.controller() as controller:
        for room in (False, True):
            if room:
                await store.delete(native.project, "other")
            await world.request(native)
            controller.request()
            status = await controller.reconcile(await world.cluster(native))
            assert status.phase is Phase.ASLEEP
            assert (await world.cluster(native)).spec.hibernation.asleep is not room
            record = sleeper_of(await world.record(native) or {})
            # A request that was refused is over: it wakes nobody an hour later.
            assert record is not None
            assert record.requested is room
    assert [event.reason.value for event in world.told] == ["WakeRefused", "WakeRequested"]
    assert "nodes: 1 used of 3, 3 more asked for" in world.told[0].message


async def test_schedule_wakes_as_soon_as_the_quota_has_room(world: Bedroom, native: Cluster) -> None:
    rule = SleepRule(sleep="0 20 * * *", wake="0 7 * * *")
    await world.say(native, schedule=(rule,))
    world.clock.advance(timedelta(hours=8).total_seconds())
    await world.looks(native, Phase.ASLEEP)
    store = await full(world, native)
    world.told.clear()
    world.clock.advance(timedelta(hours=11).total_seconds())
    async with world.controller() as controller:
        for _ in range(3):
            status = await controller.reconcile(await world.cluster(native))
            world.clock.advance(61)
        assert status.phase is Phase.ASLEEP
        assert "though its schedule would have it awake" in status.conditions[1].message
        assert [event.reason.value for event in world.told] == ["WakeRefused"]
        calls = world.calls.count
        await store.delete(native.project, "other")
        await controller.reconcile(await world.cluster(native))
        assert world.calls.count > calls
    assert not (await world.cluster(native)).spec.hibernation.asleep
    await world.looks(native, Phase.READY)
    reasons = [event.reason.value for event in world.told]
    assert reasons[:4] == ["WakeRefused", "ScheduleDue", "SpecChanged", "Waking"]


async def test_waking_cluster_does_not_queue_behind_new_ones(world: Bedroom, native: Cluster) -> None:
    await world.say(native, asleep=True)
    await world.looks(native, Phase.ASLEEP)
    new = [native.model_copy(update={"name": name, "uid": ""}) for name in ("second", "third")]
    async with contextlib.AsyncExitStack() as stack:
        controllers = [await stack.enter_async_context(world.controller()) for _ in new]
        for like, controller in zip(new, controllers, strict=True):
            await world.ask(like)
            await controller.reconcile(await world.cluster(like))
        # One core: the second has the only turn, the third waits; who sleeps has none and asks for none.
        assert "its turn: another cluster" in waits_on((await world.cluster(new[1])).status)
        await world.looks(native, Phase.ASLEEP)
        await world.say(native, asleep=False)
        waking = await world.looks(native, Phase.WAKING)
        assert "turn" not in waits_on(waking)
        await world.looks(native, Phase.READY)


async def test_nothing_but_the_api_server_is_started_before_that_answers(world: Bedroom, native: Cluster) -> None:
    async def wanted() -> set[str]:
        programs = await world.management.list(DEPLOYMENTS, native.masters_namespace)
        return {program["metadata"]["name"] for program in programs if program["spec"]["replicas"]}

    await world.say(native, asleep=True)
    await world.looks(native, Phase.ASLEEP)
    await world.say(native, asleep=False)
    async with world.controller() as controller:
        calls = world.wire.asked
        await controller.reconcile(await world.cluster(native))
        # As long as the waker stands there it would hold the operator, too.
        assert world.wire.asked == calls
        assert await wanted() == {"kube-apiserver"}
        assert await world.nodes.observe(await world.cluster(native)) == []
        await world.move(await world.cluster(native))
        for _ in range(2):
            await controller.reconcile(await world.cluster(native))
        assert await wanted() == {"kube-apiserver", "kube-controller-manager", "kube-scheduler"}
        assert len(await world.nodes.observe(await world.cluster(native))) == 3


async def test_authorities_that_fell_due_in_sleep_are_replaced_once_the_api_answers(
    world: Bedroom, native: Cluster
) -> None:
    async def step() -> Step:
        kept = await world.management.get(SECRETS, "authorities", native.masters_namespace)
        return keyring_from(decode(kept or {})).record.step

    await world.say(native, asleep=True)
    await world.looks(native, Phase.ASLEEP)
    world.clock.advance(timedelta(days=9 * 365 + 30).total_seconds())
    await world.looks(native, Phase.ASLEEP)
    await world.say(native, asleep=False)
    async with world.controller() as controller:
        await controller.reconcile(await world.cluster(native))
        assert await step() is Step.STEADY
        await world.move(await world.cluster(native))
        await controller.reconcile(await world.cluster(native))
        assert await step() is Step.SPREAD
        status = await world.settle(controller, native, looks=40)
    assert (status.phase, await step()) == (Phase.READY, Step.ISSUE)


async def test_asleep_is_what_somebody_sees_who_asked_for_a_look(world: Bedroom, native: Cluster) -> None:
    await world.say(native, asleep=True)
    await world.looks(native, Phase.ASLEEP)
    store = KubeClusters(world.management, clock=world.clock)
    async with world.controller() as controller:
        for _ in range(2):
            await controller.reconcile(await world.cluster(native))
        asked = await store.request_look(native.project, native.name, "now")
        status = await controller.reconcile(asked)
    assert (status.phase, status.look_answered) == (Phase.ASLEEP, "now")


async def test_cluster_without_nodes_sleeps_and_wakes(images: Images, native: Cluster) -> None:
    like = native.model_copy(update={"spec": native.spec.model_copy(update={"node_pools": ()})})
    world = Bedroom(images, VirtualClock(like.created))
    await world.ask(like)
    await world.looks(like, Phase.READY)
    await world.say(like, asleep=True)
    await world.looks(like, Phase.ASLEEP)
    assert await world.roles(like) == frozenset()
    await world.say(like, asleep=False)
    await world.looks(like, Phase.READY)
    assert "kube-scheduler" in await world.roles(like)


async def test_look_that_failed_is_made_again(world: Bedroom, native: Cluster) -> None:
    await world.say(native, asleep=True)
    await world.looks(native, Phase.ASLEEP)
    async with world.controller() as controller:
        for _ in range(2):
            await controller.reconcile(await world.cluster(native))
        calls = world.calls.count
        await controller.reconcile(await world.cluster(native))
        assert world.calls.count == calls
        controller.wake()
        world.management_wire.cut = True
        with pytest.raises(UnavailableError):
            await controller.reconcile(await world.cluster(native))
        world.management_wire.cut = False
        await controller.reconcile(await world.cluster(native))
        assert world.calls.count > calls


async def test_sleeping_cluster_is_deleted_whole(world: Bedroom, native: Cluster) -> None:
    await world.say(native, asleep=True)
    await world.looks(native, Phase.ASLEEP)
    cluster = await world.cluster(native)
    async with job_controller(world.management):
        await _tear(world.management, cluster, world.clock)
    assert await world.record(native) is None
    assert await world.management.get(NAMESPACES, cluster.masters_namespace) is None


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
    whole = begin.copied()
    await whole.looks(like, goal)
    expected = await whole.objects()

    async def then(world: Bedroom, number: int) -> None:
        kept = await world.management.get(SECRETS, "authorities", like.masters_namespace)
        await world.looks(like, goal)
        assert await world.objects() == expected, f"ended at call {number}"
        assert kept == await world.management.get(SECRETS, "authorities", like.masters_namespace)

    assert await begin.ended(begin.looks(like, goal), then) > 20


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
