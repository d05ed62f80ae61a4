"""A cluster's masters become three and one again, through its controller; whoever ends in between is gone on for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from haneul.dkos import isolation
from haneul.dkos.admission import admit_masters
from haneul.dkos.backup.record import NAMESPACE as BACKUP_NAMESPACE
from haneul.dkos.backup.record import WORKER_NAME, record_of
from haneul.dkos.control_plane import Images
from haneul.dkos.credentials import Endpoints
from haneul.dkos.etcd_changing import PATIENCE, servers_are_current, why_lost
from haneul.dkos.etcd_members import TEMPLATE_ANNOTATION, member
from haneul.dkos.etcd_rolling import next_changes
from haneul.dkos.etcd_slots import MEMBER_ANNOTATION, Slot, SlotState, component_name, volume_name
from haneul.dkos.hibernation import Level
from haneul.dkos.masters import Masters
from haneul.dkos.model import CLUSTERS, Cluster, ClusterStatus, MasterStatus, Phase, project_namespace
from haneul.dkos.quota import MASTERS_MEMORY_MIB, MASTERS_MILLICORES, needs
from haneul.dkos.states import MasterState, Observation, status_of
from haneul.dkos.upgrade import Stage
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import ConflictError
from haneul.kernel.kube import (
    DEPLOYMENTS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    Manifest,
)
from tests.unit.dkos.test_controller import STARTED, World, job_controller

VOTING = [Slot(index, "host", SlotState.VOTING, "founder" if not index else f"a{index}") for index in range(3)]
PLACES = ("10.193.0.20", "10.193.0.22", "10.193.0.23")
DIGESTS = {component_name(index): f"digest-{index}" for index in range(3)}


@dataclass
class Highlands(World):
    """The world with an etcd whose members work as their pods do."""

    #: Places whose member does not work, since when.
    broken: dict[int, datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.etcd._works = self._works
        self.up: set[str] = set()

    def _works(self, address: str) -> bool:
        return address in self.up

    async def move(self, cluster: Cluster) -> None:
        sets = {one["metadata"]["name"] for one in await self.management.list(STATEFUL_SETS, cluster.masters_namespace)}
        for index in range(3):
            if component_name(index) not in sets:
                await self.management.delete(PODS, f"{component_name(index)}-0", cluster.masters_namespace)
        await super().move(cluster)
        self.up = set()
        for index in range(3):
            service = await self.management.get(SERVICES, f"etcd-{index}", cluster.masters_namespace)
            pod = await self.management.get(PODS, f"{component_name(index)}-0", cluster.masters_namespace)
            if service and pod and index not in self.broken:
                self.up.add(service["spec"]["clusterIP"])

    def pod_status(self, program: Manifest) -> Manifest:
        for index, since in self.broken.items():
            if program["metadata"]["name"] == component_name(index):
                condition = {"type": "Ready", "status": "False", "lastTransitionTime": since.isoformat()}
                return {"conditions": [condition], "containerStatuses": [{"started": False, "state": {"waiting": {}}}]}
        return STARTED

    async def masters(self, cluster: Cluster, wanted: int) -> None:
        await self.management.patch(
            CLUSTERS, cluster.name, {"spec": {"masters": wanted}}, project_namespace(cluster.project)
        )

    async def volumes(self, cluster: Cluster) -> dict[int, Manifest]:
        found = await self.management.list(PERSISTENT_VOLUMES)
        ours = {manifest["metadata"]["name"]: manifest for manifest in found}
        names = {index: volume_name(cluster.uid, index) for index in range(3)}
        return {index: ours[name] for index, name in names.items() if name in ours}


@pytest.fixture
def world(images: Images, native: Cluster) -> Highlands:
    return Highlands(images, VirtualClock(native.created))


async def settle(world: Highlands, like: Cluster, *, looks: int = 80) -> ClusterStatus:
    """Look with one controller until all is as wanted."""
    async with job_controller(world.management), world.controller() as controller:
        for _ in range(looks):
            status = await controller.reconcile(await world.cluster(like))
            await world.move(await world.cluster(like))
            await asyncio.sleep(0)
            if status.phase is Phase.READY:
                return status
    raise AssertionError(status.conditions)


async def three(world: Highlands, like: Cluster) -> Cluster:
    await world.ask(like)
    await settle(world, like)
    cluster = await world.cluster(like)
    await world.masters(like, 3)
    await settle(world, cluster)
    return await world.cluster(like)


async def test_masters_become_three_and_one_again(world: Highlands, native: Cluster) -> None:
    await world.ask(native)
    await settle(world, native)
    namespace = native.masters_namespace
    before = await world.objects(versions=True)
    await world.masters(native, 3)
    status = await settle(world, native)
    cluster = await world.cluster(native)
    assert [one.learner for one in world.etcd.members] == [False] * 3
    servers = await world.management.get(DEPLOYMENTS, "kube-apiserver", namespace)
    controllers = await world.management.get(DEPLOYMENTS, "kube-controller-manager", namespace)
    assert servers is not None and servers["spec"]["replicas"] == 3
    assert controllers is not None and controllers["spec"]["replicas"] == 2
    roles = [master.role for master in status.masters]
    assert {role: roles.count(role) for role in set(roles)} == {
        "etcd": 3,
        "kube-apiserver": 3,
        "kube-controller-manager": 2,
        "kube-scheduler": 2,
    }
    assert len(await world.management.list(POD_DISRUPTION_BUDGETS, namespace)) == 2
    told = [event.message for event in world.told if event.reason.value == "MemberJoined"]
    assert told == ["the second etcd member joined; 2 vote now", "the third etcd member joined; 3 vote now"]
    kept = (await world.volumes(cluster))[0]
    await world.masters(native, 1)
    status = await settle(world, native)
    assert [one.address for one in world.etcd.members] == [(await service(world, native, 0))["spec"]["clusterIP"]]
    assert await world.volumes(cluster) == {0: kept}
    after = await world.objects(versions=True)
    # What several masters had beside is gone; an API server that is alone takes over what says where it is.
    assert after.keys() == before.keys() | {"tenant endpointslices default/kubernetes"}
    assert await world.management.list(POD_DISRUPTION_BUDGETS, namespace) == []
    assert [event.reason.value for event in world.told].count("MemberLeft") == 2


async def test_the_backup_follows_wherever_a_member_answers_in_json(world: Highlands, native: Cluster) -> None:
    async def followed() -> list[str]:
        uid = (await world.cluster(native)).uid
        found = await world.management.get(SECRETS, f"backup-{uid}", BACKUP_NAMESPACE)
        record = record_of(found) if found else None
        assert record is not None and record.access is not None
        return [url.rpartition(":")[2] for url in record.access.urls]

    await world.ask(native)
    await settle(world, native)
    assert await followed() == ["2379"]
    await world.masters(native, 3)
    await settle(world, native)
    assert await followed() == ["2382"] * 3
    # One that was alone, and then was not, keeps the arguments of a member.
    await world.masters(native, 1)
    await settle(world, native)
    assert await followed() == ["2382"]


def test_the_backup_worker_is_let_through_to_both_ports_of_etcd(native: Cluster) -> None:
    policies = isolation.network_policies(native, several=False)
    etcd = next(one["spec"] for one in policies if one["metadata"]["name"] == "etcd")
    let_in = [entry["ports"][0]["port"] for entry in etcd["ingress"] if WORKER_NAME in str(entry["from"])]
    worker = next(one for one in isolation.backup_policies({}) if one["metadata"]["name"] == "worker")
    let_out = [entry["ports"][0]["port"] for entry in worker["spec"]["egress"]]
    assert let_in == let_out == [2379, 2382]


async def service(world: Highlands, cluster: Cluster, index: int) -> Manifest:
    found = await world.management.get(SERVICES, f"etcd-{index}", cluster.masters_namespace)
    assert found is not None
    return found


async def test_a_cluster_that_begins_with_three_answers_before_the_others_join(
    world: Highlands, native: Cluster
) -> None:
    wanted = native.model_copy(update={"spec": native.spec.model_copy(update={"masters": 3})})
    await world.ask(wanted)
    status = await settle(world, wanted)
    assert status.milestones["api"] < status.milestones["ready"]
    assert len(world.etcd.members) == 3


async def test_a_controller_that_ends_after_any_look_is_gone_on_for(world: Highlands, native: Cluster) -> None:
    await world.ask(native)
    await settle(world, native)
    for wanted in (3, 1):
        await world.masters(native, wanted)
        async with job_controller(world.management):
            for _ in range(120):
                async with world.controller() as controller:
                    status = await controller.reconcile(await world.cluster(native))
                await world.move(await world.cluster(native))
                await asyncio.sleep(0)
                if status.phase is Phase.READY:
                    break
        assert status.phase is Phase.READY, status.conditions
        assert len(world.etcd.members) == wanted


async def test_a_controller_that_ends_at_any_call_is_gone_on_for(images: Images, native: Cluster) -> None:
    """Each process gets a little further than the one before, and ends in the middle of a look."""
    world = Highlands(images, VirtualClock(native.created))
    await world.ask(native)
    await settle(world, native)
    for wanted in (3, 1):
        await world.masters(native, wanted)
        for life in range(3, 60):
            world.calls.count, world.calls.hold_at, world.calls.held = 0, life, asyncio.Event()
            async with job_controller(world.management), world.controller() as controller:
                await world.calls.end(controller.reconcile(await world.cluster(native)))
            world.calls.hold_at = 0
            await world.move(await world.cluster(native))
        await settle(world, native)
        assert len(world.etcd.members) == wanted


async def test_a_member_that_does_not_work_for_minutes_is_replaced(world: Highlands, native: Cluster) -> None:
    cluster = await three(world, native)
    old = (await world.volumes(cluster))[1]["metadata"]["annotations"][MEMBER_ANNOTATION]
    now = world.clock.now()
    await world.management.patch(NODES, "host-a", {"status": STARTED}, subresource="status")
    world.broken[1] = now
    await world.move(cluster)
    async with job_controller(world.management), world.controller() as controller:
        for _ in range(5):
            status = await controller.reconcile(await world.cluster(native))
            await world.move(cluster)
        assert old in {one.id for one in world.etcd.members}, "it gets its time"
        assert status.phase is Phase.DEGRADED
        world.clock.advance(PATIENCE.total_seconds() + 1)
        for _ in range(10):
            await controller.reconcile(await world.cluster(native))
            await world.move(cluster)
            if old not in {one.id for one in world.etcd.members}:
                del world.broken[1]
                break
    await settle(world, native)
    assert len(world.etcd.members) == 3 and old not in {one.id for one in world.etcd.members}
    assert any(event.reason.value == "MemberLost" for event in world.told)


async def test_members_stand_on_different_hosts_as_far_as_there_are_any(world: Highlands, native: Cluster) -> None:
    for name in ("host-b", "host-c"):
        await world.management.apply(NODES, {"metadata": {"name": name}})
        await world.management.patch(NODES, name, {"status": {"capacity": {"cpu": "1"}}}, subresource="status")
    cluster = await three(world, native)
    hosts = [
        volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]["values"][0]
        for volume in (await world.volumes(cluster)).values()
    ]
    assert sorted(hosts) == ["host-a", "host-b", "host-c"]


async def test_one_member_that_votes_is_changed_at_a_time(world: Highlands, native: Cluster) -> None:
    cluster = await three(world, native)
    namespace = cluster.masters_namespace

    async def digests() -> dict[str, str]:
        sets = await world.management.list(STATEFUL_SETS, namespace)
        return {one["metadata"]["name"]: one["metadata"]["annotations"][TEMPLATE_ANNOTATION] for one in sets}

    world.clock.advance(timedelta(days=61).total_seconds())
    changed = []
    async with world.controller() as controller:
        for _ in range(20):
            before = await digests()
            await controller.reconcile(await world.cluster(native))
            after = await digests()
            if difference := [name for name in after if after[name] != before[name]]:
                changed.append(difference)
            await world.move(cluster)
    assert sorted(changed) == [["etcd"], ["etcd-1"], ["etcd-2"]]


async def test_masters_fall_asleep_and_wake_with_all_their_members(world: Highlands, native: Cluster) -> None:
    cluster = await three(world, native)
    masters = Masters(world.management, images=world.images, outside_address="192.0.2.10", data="/d", clock=world.clock)

    async def replicas() -> dict[str, int]:
        sets = await world.management.list(STATEFUL_SETS, cluster.masters_namespace)
        return {one["metadata"]["name"]: one["spec"]["replicas"] for one in sets}

    await masters.ensure(cluster, Level.NOTHING)
    assert await replicas() == {"etcd": 0, "etcd-1": 0, "etcd-2": 0}
    await masters.ensure(cluster)
    assert await replicas() == {"etcd": 1, "etcd-1": 1, "etcd-2": 1}


async def test_all_api_servers_are_of_the_new_version_before_a_controller_is(world: Highlands, native: Cluster) -> None:
    old, new = native.spec.model_copy(update={"version": "1.36.5"}), "1.37.2"
    cluster = await three(world, native.model_copy(update={"spec": old}))
    namespace, wanted = cluster.masters_namespace, cluster.spec.model_copy(update={"version": new})
    newer = cluster.model_copy(update={"spec": wanted})
    masters = Masters(world.management, images=world.images, outside_address="192.0.2.10", data="/d", clock=world.clock)
    before = await world.management.list(STATEFUL_SETS, namespace)

    async def made_from() -> list[str]:
        found = {one["metadata"]["name"]: one for one in await world.management.list(DEPLOYMENTS, namespace)}
        names = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
        images = [found[name]["spec"]["template"]["spec"]["containers"][0]["image"] for name in names]
        return [image.rpartition(":v")[2] for image in images]

    made = await masters.ensure(newer)
    assert await made_from() == [new, old.version, old.version]
    servers = await world.management.get(DEPLOYMENTS, "kube-apiserver", namespace)
    assert servers is not None and servers["spec"]["replicas"] == 3
    assert servers["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    seen = {"observedGeneration": servers["metadata"]["generation"], "replicas": 3, "readyReplicas": 3}
    # Two are new and one is to come; then all are new, and an old one still ends.
    for update in ({"replicas": 4, "updatedReplicas": 2}, {"updatedReplicas": 3, "terminatingReplicas": 1}):
        status = {"status": seen | update}
        await world.management.patch(DEPLOYMENTS, "kube-apiserver", status, namespace, subresource="status")
        made = await masters.ensure(newer)
        assert (await made_from(), made.upgrade.stage) == ([new, old.version, old.version], Stage.API)
    ended = {"status": {"terminatingReplicas": 0}}
    await world.management.patch(DEPLOYMENTS, "kube-apiserver", ended, namespace, subresource="status")
    made = await masters.ensure(newer)
    assert (await made_from(), made.nodes_version) == ([new, new, new], old.version)
    await world.move(cluster)
    made = await masters.ensure(newer)
    assert (made.upgrade.stage, made.nodes_version, made.rolling) == (Stage.DONE, new, False)
    after = await world.management.list(STATEFUL_SETS, namespace)
    assert [one["spec"] for one in after] == [one["spec"] for one in before], "etcd is not part of it"


async def test_nothing_of_several_members_is_left_when_a_claim_or_secret_is_lost(
    world: Highlands, native: Cluster
) -> None:
    cluster = await three(world, native)
    namespace = cluster.masters_namespace
    before = await world.objects()
    await world.management.delete(PERSISTENT_VOLUME_CLAIMS, "data-etcd-1", namespace)
    await world.management.delete(STATEFUL_SETS, "etcd-2", namespace)
    await settle(world, native)
    assert await world.objects() == before
    assert await world.management.get(SECRETS, "etcd-2", namespace) is not None


@pytest.mark.parametrize("state", [SlotState.FOUNDER, SlotState.LEARNING, SlotState.VOTING])
def test_member_is_rendered_as_the_golden_file_says(
    state: SlotState, native: Cluster, images: Images, golden: Callable[[str, object], None]
) -> None:
    endpoints = Endpoints(PLACES[:1], "10.193.0.21", "10.128.16.1", "192.0.2.10", 31234, PLACES)
    index = 0 if state is SlotState.FOUNDER else 1
    slot = Slot(index, "host", state, "founder" if not index else "a1")
    golden(f"etcd-member.{state}.yaml", member(native, slot, endpoints, images, DIGESTS, others=(0,)))


def test_only_a_member_that_joins_may_begin_with_an_empty_folder(native: Cluster, images: Images) -> None:
    endpoints = Endpoints(PLACES, "10.193.0.21", "10.128.16.1", "192.0.2.10", 31234, PLACES)
    for index, slot in enumerate(VOTING):
        made = member(native, slot, endpoints, images, DIGESTS, others=(0, 1, 2))
        arguments = made["spec"]["template"]["spec"]["containers"][0]["args"]
        # It finds nobody to join but itself.
        assert f"--initial-cluster=etcd-{index}=https://{PLACES[index]}:2380" in arguments
        assert "--initial-cluster-state=existing" in arguments


def manifest(index: int, template: str, *, ready: int = 1, replicas: int = 1, generation: int = 1) -> Manifest:
    return {
        "metadata": {
            "name": component_name(index),
            "generation": 1,
            "annotations": {TEMPLATE_ANNOTATION: template},
        },
        "spec": {"replicas": replicas},
        "status": {
            "observedGeneration": generation,
            "replicas": replicas,
            "updatedReplicas": replicas,
            "readyReplicas": ready,
        },
    }


@pytest.mark.parametrize(
    ("wanted", "live", "applied", "left"),
    [
        # Nothing to do; something missing; all asleep; all to sleep.
        ("aaa", {0: "a1", 1: "a1", 2: "a1"}, [0, 1, 2], False),
        ("aaa", {0: "a1", 1: "a1"}, [0, 1, 2], True),
        # One after the other, and none while another one does not work or is not known to.
        ("bbb", {0: "a1", 1: "a1", 2: "a1"}, [0], True),
        ("bbb", {0: "b1", 1: "a1", 2: "a1"}, [0, 1], True),
        ("bbb", {0: "b0", 1: "a1", 2: "a1"}, [0], True),
        ("bbb", {0: "a1", 1: "a0", 2: "a1"}, [1], True),
        ("bbb", {0: "a0", 1: "a0", 2: "a1"}, [], True),
        ("bbb", {0: "b1", 1: "b1", 2: "b1"}, [0, 1, 2], False),
    ],
)
def test_who_may_be_changed_now(wanted: str, live: dict[int, str], applied: list[int], left: bool) -> None:
    sets = {index: manifest(index, template[0], ready=int(template[1])) for index, template in live.items()}
    rendered = {index: manifest(index, template) for index, template in enumerate(wanted)}
    now, more = next_changes(rendered, sets, dict(enumerate(VOTING)))
    assert sorted(one["metadata"]["name"] for one in now) == [component_name(index) for index in applied]
    assert more == left


def test_sleep_and_learners_wait_for_nobody() -> None:
    slots = {0: VOTING[0], 1: VOTING[1], 2: replace(VOTING[2], state=SlotState.LEARNING)}
    broken = {index: manifest(index, "a", ready=0) for index in range(3)}
    now, _ = next_changes({index: manifest(index, "b") for index in range(3)}, broken, slots)
    assert [one["metadata"]["name"] for one in now] == ["etcd-2"]
    now, _ = next_changes({index: manifest(index, "b", replicas=0) for index in range(3)}, broken, slots)
    assert len(now) == 3


def pod(**status: Any) -> Manifest:
    return {"metadata": {"name": "etcd-1-0"}, "status": status}


def test_data_is_given_up_only_for_a_reason(now: datetime) -> None:
    slot, host = VOTING[1], {"host": now - 2 * PATIENCE}
    late = (now - PATIENCE - timedelta(seconds=1)).isoformat()
    silent = pod(conditions=[{"type": "Ready", "status": "False", "lastTransitionTime": late}])
    assert why_lost(None, silent, {}, now) == ""
    assert "is gone" in why_lost(slot, None, {"other": now}, now)
    assert why_lost(slot, None, host, now) == ""
    assert why_lost(slot, pod(**STARTED), host, now) == ""
    assert why_lost(slot, silent, host, now) != ""
    # It may only be that the host is down, that the pod is young, that it ends, or that it learns.
    assert why_lost(slot, silent, {"host": None}, now) == ""
    # The host came back a moment ago, and what runs on it is still to start.
    assert why_lost(slot, silent, {"host": now}, now) == ""
    young = pod(conditions=[{"type": "Ready", "status": "False", "lastTransitionTime": now.isoformat()}])
    assert why_lost(slot, young, host, now) == ""
    ending = {**silent, "metadata": {**silent["metadata"], "deletionTimestamp": "now"}}
    assert why_lost(slot, ending, host, now) == ""
    learner = replace(slot, state=SlotState.LEARNING)
    assert why_lost(learner, silent, host, now) != ""
    silent["status"]["containerStatuses"] = [{"started": True}]
    assert why_lost(learner, silent, host, now) == ""


def test_api_servers_are_current_when_none_is_left_of_before() -> None:
    def deployment(**status: int) -> Manifest:
        container = {"args": ["--etcd-servers=https://a:2379"]}
        return {
            "metadata": {"generation": 2},
            "spec": {"replicas": 1, "template": {"spec": {"containers": [container]}}},
            "status": {"observedGeneration": 2, "updatedReplicas": 1, "readyReplicas": 1, **status},
        }

    one = [pod()]
    assert servers_are_current(deployment(), one, ("a",))
    assert not servers_are_current(None, one, ("a",))
    assert not servers_are_current(deployment(), one, ("a", "b"))
    assert not servers_are_current(deployment(), [*one, pod()], ("a",))
    assert not servers_are_current(deployment(updatedReplicas=0), one, ("a",))
    assert not servers_are_current(deployment(observedGeneration=1), one, ("a",))
    assert not servers_are_current(deployment(readyReplicas=0), one, ("a",))


def test_masters_count_each_for_the_quota(native: Cluster) -> None:
    one, several = needs(native.spec), needs(native.spec.model_copy(update={"masters": 3}))
    assert several.millicores - one.millicores == 2 * MASTERS_MILLICORES
    assert several.memory_mib - one.memory_mib == 2 * MASTERS_MEMORY_MIB


def test_fewer_masters_are_refused_without_a_majority(native: Cluster, now: datetime) -> None:
    spec = native.spec.model_copy(update={"masters": 3})
    cluster = native.model_copy(update={"spec": spec, "status": ClusterStatus(milestones={"ready": 1.0})})

    def seen(working: int, change: str = "") -> Cluster:
        pods = tuple(MasterStatus(name=f"etcd-{n}", role="etcd", ready=n < working) for n in range(3))
        masters = (MasterState("etcd", ready=working == 3, pods=pods, working=working),)
        status = status_of(cluster, Observation(masters=masters, masters_change=change), now)
        return cluster.model_copy(update={"status": status})

    admit_masters(seen(3), native.spec)
    admit_masters(seen(2), native.spec)
    admit_masters(seen(1, "etcd-1 joins"), native.spec)
    admit_masters(seen(1), spec)
    with pytest.raises(ConflictError, match="1 of 3 work"):
        admit_masters(seen(1), native.spec)
    with pytest.raises(ConflictError, match="no majority"):
        admit_masters(seen(1, "waiting for a majority of the etcd members to answer"), native.spec)


def test_the_operator_reaches_etcd_only_where_members_may_change(native: Cluster) -> None:
    def callers(*, several: bool) -> set[tuple[str, int]]:
        policies = isolation.network_policies(native, several=several)
        spec = next(one["spec"] for one in policies if one["metadata"]["name"] == "etcd")
        return {
            (next(iter(peer["podSelector"]["matchLabels"].values())), entry["ports"][0]["port"])
            for entry in spec["ingress"]
            for peer in entry["from"]
        }

    assert callers(several=True) - callers(several=False) == {("haneul-operator", 2379), ("haneul-operator", 2382)}
