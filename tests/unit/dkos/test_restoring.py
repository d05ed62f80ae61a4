"""A restore through the controller: prepared while all runs, then put in place; given up without harm; gone on with.

The jobs here are done by whoever the test says; what they do with files, the functional tests of backups show.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from haneul.dkos.backup.record import NAMESPACE, Standing, record_name, record_of
from haneul.dkos.control_plane import Images
from haneul.dkos.model import (
    BackupState,
    BackupStatus,
    Cluster,
    ClusterStatus,
    Hibernation,
    Phase,
    RestoreRequest,
    RestoreState,
)
from haneul.dkos.restore_jobs import RestoreSettings, restore_job
from haneul.kernel.clock import VirtualClock
from haneul.kernel.kube import DEPLOYMENTS, JOBS, NODES, PODS, SECRETS, STATEFUL_SETS
from tests.unit.dkos.test_controller import World

MADE = {"done": "prepare", "revision": 77, "keys": 12, "seconds": 1.5}


@dataclass
class Workshop(World):
    """The world, in which Jobs of restores are done when a second passes, and what ran at every move."""

    refuses: dict[str, str] = field(default_factory=dict)
    #: How often a step's job fails, as when a host dies or its disk is full.
    fails: dict[str, int] = field(default_factory=dict)
    seen: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    #: Nodes whose machines nobody reaches.
    dead: frozenset[str] = frozenset()
    #: Whether the API server never gets as far as to answer.
    silent: bool = False
    #: The steps of jobs in the order in which they were done, and the masters that ran then.
    done: list[tuple[str, frozenset[str]]] = field(default_factory=list)

    async def move(self, cluster: Cluster) -> None:
        await super().move(cluster)
        roles = await self.masters(cluster)
        self.wire.cut = self.silent or "kube-apiserver" not in roles
        for name in self.dead:
            lost = {"conditions": [{"type": "Ready", "status": "Unknown", "message": "it says nothing"}]}
            await self.tenant.patch(NODES, name, {"status": lost}, subresource="status")
        self.seen.append((cluster.status.phase, roles))
        for job in await self.management.list(JOBS, NAMESPACE):
            if not job.get("status", {}).get("conditions"):
                await self._do(job["metadata"]["name"], roles)

    async def _do(self, name: str, roles: frozenset[str]) -> None:
        step = name.rpartition("-")[2]
        self.done.append((step, roles))
        if self.fails.get(step):
            self.fails[step] -= 1
            failed = {"status": {"conditions": [{"type": "Failed", "status": "True"}]}}
            await self.management.patch(JOBS, name, failed, NAMESPACE, subresource="status")
            return
        said = (
            {"refused": self.refuses[step]} if step in self.refuses else MADE if step == "prepare" else {"done": step}
        )
        job = await self.management.get(JOBS, name, NAMESPACE)
        assert job is not None
        labels = {"batch.kubernetes.io/job-name": name, **job["metadata"]["labels"]}
        where = {"name": f"{name}-pod", "namespace": NAMESPACE}
        ended = {"containerStatuses": [{"state": {"terminated": {"message": json.dumps(said)}}}]}
        await self.management.apply(PODS, {"metadata": {**where, "labels": labels}})
        await self.management.patch(PODS, where["name"], {"status": ended}, NAMESPACE, subresource="status")
        status = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
        await self.management.patch(JOBS, name, status, NAMESPACE, subresource="status")

    async def masters(self, cluster: Cluster) -> frozenset[str]:
        pods = await self.management.list(PODS, cluster.masters_namespace)
        return frozenset(pod["metadata"]["labels"]["dkos.haneul.dev/role"] for pod in pods)

    async def wish(self, like: Cluster, **change: object) -> None:
        """Change the spec as the platform's API would."""
        cluster = await self.cluster(like)
        await self.ask(cluster.model_copy(update={"spec": cluster.spec.model_copy(update=change)}))


@pytest.fixture
def world(images: Images, native: Cluster) -> Workshop:
    return Workshop(images, VirtualClock(native.created))


async def ready(world: Workshop, like: Cluster) -> None:
    await world.ask(like)
    async with world.controller() as controller:
        assert (await world.settle(controller, like, 6)).phase is Phase.READY


ALL = {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}


async def test_data_is_made_while_all_runs_and_put_in_place_when_nothing_does(world: Workshop, native: Cluster) -> None:
    await ready(world, native)
    await world.wish(native, restore=RestoreRequest(number=1, revision=77, least=77))
    world.told.clear()
    async with world.controller() as controller:
        status = await world.settle(controller, native, 14)
    assert [step for step, _ in world.done] == ["prepare", "place", "clear"]
    at = dict(world.done)
    assert at["prepare"] >= ALL
    assert not at["place"] & {"etcd", "kube-apiserver"}
    assert at["clear"] >= ALL
    # The API server ends first: what it still writes goes into etcd, and from there into the backup.
    assert any("etcd" in roles and "kube-apiserver" not in roles for _, roles in world.seen)
    assert status.phase is Phase.READY
    assert (status.restore.state, status.restore.number) == (RestoreState.DONE, 1)
    assert (status.restore.revision, status.restore.keys, status.restore.prepare_seconds) == (77, 12, 1.5)
    assert await world.management.list(JOBS, NAMESPACE) == []
    reasons = [event.reason.value for event in world.told]
    assert [reason for reason in reasons if reason.startswith("Restor")] == ["Restoring", "Restored"]
    # Nodes went on all the time.
    assert [node.name for node in await world.nodes.observe(await world.cluster(native))] == [
        "big-0",
        "default-0",
        "default-1",
    ]
    done = len(world.done)
    async with world.controller() as controller:
        await world.settle(controller, native, 3)
    assert len(world.done) == done


async def test_what_the_backup_cannot_give_changes_nothing(world: Workshop, native: Cluster) -> None:
    await ready(world, native)
    world.refuses["prepare"] = "changes after revision 20 are missing"
    world.seen.clear()
    await world.wish(native, restore=RestoreRequest(number=1, revision=77))
    async with world.controller() as controller:
        status = await world.settle(controller, native, 8)
    assert status.phase is Phase.READY
    assert (status.restore.state, status.restore.message) == (RestoreState.FAILED, world.refuses["prepare"])
    assert all(roles >= ALL for _, roles in world.seen)
    assert "RestoreFailed" in [event.reason.value for event in world.told]
    # A pod that stays would keep it from falling asleep.
    assert await world.management.list(JOBS, NAMESPACE) == await world.management.list(PODS, NAMESPACE) == []
    # The next one is another request.
    world.refuses.clear()
    await world.wish(native, restore=RestoreRequest(number=2, revision=20))
    async with world.controller() as controller:
        status = await world.settle(controller, native, 14)
    assert (status.restore.number, status.restore.state) == (2, RestoreState.DONE)


async def test_new_cluster_runs_nothing_before_it_has_its_data(
    world: Workshop, native: Cluster, cilium: Cluster
) -> None:
    await ready(world, native)
    source = (await world.cluster(native)).uid
    spec = cilium.spec.model_copy(update={"restore": RestoreRequest(number=1, source=source, revision=77)})
    new = cilium.model_copy(update={"spec": spec})
    await world.ask(new)
    world.done.clear()
    async with world.controller() as controller:
        status = await world.settle(controller, new, 16)
    assert [step for step, _ in world.done] == ["prepare", "place", "clear"]
    assert dict(world.done)["prepare"] == dict(world.done)["place"] == frozenset()
    assert (status.phase, status.restore.state) == (Phase.READY, RestoreState.DONE)
    records = [record_of(secret) for secret in await world.management.list(SECRETS, NAMESPACE)]
    own = {record.uid: record for record in records if record is not None}
    assert len(own) == 2
    # It has keys of its own, so who has one backup's cannot read the other's.
    assert len({record.key for record in own.values()}) == 2
    assert len({json.dumps(dict(record.sealing_keys)) for record in own.values()}) == 2


@pytest.mark.parametrize("whose", ["nobody", "another project"])
async def test_nobody_gets_what_is_not_their_projects(
    world: Workshop, native: Cluster, cilium: Cluster, whose: str
) -> None:
    await ready(world, native)
    source = (await world.cluster(native)).uid if whose == "another project" else "uid-of-nobody"
    spec = cilium.spec.model_copy(update={"restore": RestoreRequest(number=1, source=source, revision=77)})
    thief = cilium.model_copy(update={"spec": spec, "project": "other"})
    await world.ask(thief)
    async with world.controller() as controller:
        status = await world.settle(controller, thief, 6)
    assert (status.phase, status.restore.message) == (Phase.RESTORING, "that backup is not there")
    assert world.done == []
    assert await world.masters(thief) == frozenset()


async def test_failed_new_cluster_stays_without_masters(world: Workshop, native: Cluster, cilium: Cluster) -> None:
    await ready(world, native)
    world.refuses["prepare"] = "the backup is damaged"
    source = (await world.cluster(native)).uid
    spec = cilium.spec.model_copy(update={"restore": RestoreRequest(number=1, source=source, revision=77)})
    new = cilium.model_copy(update={"spec": spec})
    await world.ask(new)
    async with world.controller() as controller:
        status = await world.settle(controller, new, 8)
    assert (status.restore.state, status.conditions[-1].message) == (RestoreState.FAILED, "the backup is damaged")
    assert await world.masters(new) == frozenset()


async def test_nodes_that_the_restored_state_does_not_know_are_made_anew(world: Workshop, native: Cluster) -> None:
    await ready(world, native)
    before = {node.name: node.instance for node in await world.nodes.observe(await world.cluster(native))}
    await world.wish(native, restore=RestoreRequest(number=1, revision=77))
    async with world.controller() as controller:
        while (await world.cluster(native)).status.restore.state is not RestoreState.PLACED:
            await controller.reconcile(await world.cluster(native))
            await world.move(await world.cluster(native))
        # The state is of before this node was there, and its kubelet never registers again by itself.
        await world.tenant.delete(NODES, "default-1")
        world.wire.cut = False
        await controller.reconcile(await world.cluster(native))
        status = await world.settle(controller, native, 8)
    after = {node.name: node.instance for node in await world.nodes.observe(await world.cluster(native))}
    assert {name for name in before if before[name] != after[name]} == {"default-1"}
    assert status.phase is Phase.READY


async def test_what_fails_while_data_is_put_in_place_is_tried_again_ever_more_slowly(
    world: Workshop, native: Cluster
) -> None:
    await ready(world, native)
    # Nobody knows how far it came: what was there may be aside already.
    world.fails["place"] = 3
    world.told.clear()
    await world.wish(native, restore=RestoreRequest(number=1, revision=77))
    async with world.controller() as controller:
        began = world.clock.now()
        while world.fails["place"]:
            assert (await controller.reconcile(await world.cluster(native))).phase is Phase.RESTORING
            await world.move(await world.cluster(native))
            assert not {"etcd", "kube-apiserver"} & await world.masters(native) or len(world.done) < 2
        assert timedelta(seconds=30) < world.clock.now() - began < timedelta(seconds=60)
        status = await controller.reconcile(await world.cluster(native))
        assert "tried again" in status.conditions[-1].message
        world.clock.advance(40)
        status = await world.settle(controller, native, 10)
    assert [step for step, _ in world.done] == ["prepare", *4 * ["place"], "clear"]
    assert (status.phase, status.restore.state) == (Phase.READY, RestoreState.DONE)
    assert "RestoreFailed" not in [event.reason.value for event in world.told]


async def test_what_cannot_be_put_in_place_is_given_up_and_said(world: Workshop, native: Cluster) -> None:
    await ready(world, native)
    world.refuses["place"] = "what was prepared is gone"
    await world.wish(native, restore=RestoreRequest(number=1, revision=77))
    async with world.controller() as controller:
        status = await world.settle(controller, native, 14)
    assert (status.restore.state, status.restore.message) == (RestoreState.FAILED, world.refuses["place"])
    assert status.phase is Phase.READY
    assert await world.management.list(JOBS, NAMESPACE) == await world.management.list(PODS, NAMESPACE) == []


async def test_a_node_that_never_comes_holds_no_restore_up(world: Workshop, native: Cluster) -> None:
    await ready(world, native)
    world.dead = frozenset({"default-1"})
    await world.wish(native, restore=RestoreRequest(number=1, revision=77))
    async with world.controller() as controller:
        status = await world.settle(controller, native, 14)
    assert [step for step, _ in world.done] == ["prepare", "place", "clear"]
    assert (status.phase, status.restore.state) == (Phase.DEGRADED, RestoreState.DONE)
    assert not (await world.cluster(native)).is_restoring


async def test_what_never_answers_is_restored_to_another_moment(world: Workshop, native: Cluster) -> None:
    await ready(world, native)
    world.silent = True
    await world.wish(native, restore=RestoreRequest(number=1, revision=77))
    async with world.controller() as controller:
        status = await world.settle(controller, native, 14)
    # What was there before stays until what was restored answers.
    assert (status.restore.state, [step for step, _ in world.done]) == (RestoreState.PLACED, ["prepare", "place"])
    assert not (await world.cluster(native)).restore_is_due
    world.silent = False
    await world.wish(native, restore=RestoreRequest(number=2, revision=50))
    async with world.controller() as controller:
        status = await world.settle(controller, native, 16)
    assert [step for step, _ in world.done] == ["prepare", "place", "prepare", "place", "clear"]
    assert (status.phase, status.restore.state, status.restore.number) == (Phase.READY, RestoreState.DONE, 2)
    assert await world.management.list(JOBS, NAMESPACE) == await world.management.list(PODS, NAMESPACE) == []


async def test_a_restore_comes_before_sleep(world: Workshop, native: Cluster) -> None:
    await ready(world, native)
    word = Hibernation(asleep=True, asked=world.clock.now() + timedelta(seconds=1))
    await world.wish(native, restore=RestoreRequest(number=1, revision=77), hibernation=word)
    async with world.controller() as controller:
        while (await world.cluster(native)).status.restore.state is not RestoreState.PLACED:
            assert (await controller.reconcile(await world.cluster(native))).phase is Phase.RESTORING
            await world.move(await world.cluster(native))
    assert [step for step, _ in world.done] == ["prepare", "place"]


async def test_controller_that_ends_at_any_call_is_continued(images: Images, native: Cluster) -> None:
    begin = Workshop(images, VirtualClock(native.created))
    await ready(begin, native)
    await begin.wish(native, restore=RestoreRequest(number=1, revision=77))

    async def life(world: Workshop, looks: int) -> ClusterStatus:
        async with world.controller() as controller:
            return await world.settle(controller, native, looks)

    async def then(world: Workshop, number: int) -> None:
        status = await life(world, 16)
        assert (status.phase, status.restore.state) == (Phase.READY, RestoreState.DONE), f"ended at call {number}"
        at = dict(world.done)
        assert not at["place"] & {"etcd", "kube-apiserver"}
        assert await world.management.list(JOBS, NAMESPACE) == []

    assert await begin.ended(life(begin, 14), then, every=3) > 60


async def test_records_follow_a_cluster_through_its_life(world: Workshop, native: Cluster) -> None:
    await ready(world, native)
    uid = (await world.cluster(native)).uid

    async def record() -> tuple[Standing, bytes, bool]:
        secret = await world.management.get(SECRETS, record_name(uid), NAMESPACE)
        assert secret is not None
        found = record_of(secret)
        assert found is not None
        return found.standing, found.key, found.access is not None

    standing, key, _ = await record()
    assert standing is Standing.FOLLOWED
    await world.wish(native, hibernation=Hibernation(asleep=True, asked=world.clock.now()))
    async with world.controller() as controller:
        for _ in range(40):
            status = await controller.reconcile(await world.cluster(native))
            await world.move(await world.cluster(native))
            for name in ("big-0", "default-0", "default-1"):
                await world.tenant.delete(NODES, name)
            if status.phase is Phase.ASLEEP:
                break
    assert await record() == (Standing.ASLEEP, key, True)
    await world.wish(native, hibernation=Hibernation(asleep=False, asked=world.clock.now()))
    async with world.controller() as controller:
        await world.settle(controller, native, 10)
    assert await record() == (Standing.FOLLOWED, key, True)


async def test_backup_is_shown_in_the_status_and_written_once_a_minute_at_most(
    world: Workshop, native: Cluster
) -> None:
    await ready(world, native)
    uid = (await world.cluster(native)).uid
    now = world.clock.now()
    first = BackupStatus(state=BackupState.CURRENT, as_of=now, complete_until=now, revision=5)
    world.backups[uid] = first
    async with world.controller() as controller:
        assert (await controller.reconcile(await world.cluster(native))).backup == first
        moved = first.model_copy(update={"as_of": now + timedelta(seconds=30), "revision": 9})
        world.backups[uid] = moved
        assert (await controller.reconcile(await world.cluster(native))).backup == first
        behind = moved.model_copy(update={"state": BackupState.BEHIND})
        world.backups[uid] = behind
        assert (await controller.reconcile(await world.cluster(native))).backup == behind
        later = behind.model_copy(update={"as_of": now + timedelta(seconds=91), "revision": 30})
        world.backups[uid] = later
        assert (await controller.reconcile(await world.cluster(native))).backup == later


def test_a_job_sees_one_member_and_no_certificate(native: Cluster) -> None:
    request = RestoreRequest(number=3, source="uid-of-old", revision=9, least=9)
    cluster = native.model_copy(update={"spec": native.spec.model_copy(update={"restore": request})})
    settings = RestoreSettings("haneul.local/platform:v1", "/data/clusters", "/data/backups")
    pod = restore_job(cluster, "prepare", "host-a", "https://192.0.2.7:2380", settings)["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] != "scratch"}
    assert mounts["clusters"]["subPath"] == f"{cluster.uid}/etcd-0"
    assert all(mounts[name]["readOnly"] for name in ("backups", "source", "own"))
    secrets = {volume["name"]: volume["secret"] for volume in pod["volumes"] if "secret" in volume}
    assert secrets["source"]["secretName"] == record_name("uid-of-old")
    assert secrets["own"]["secretName"] == record_name(cluster.uid)
    assert not any(item["key"].startswith("client") for secret in secrets.values() for item in secret["items"])
    assert pod["automountServiceAccountToken"] is False
    assert "key" not in " ".join(pod["containers"][0]["args"])


async def test_masters_come_back_whole(world: Workshop, native: Cluster) -> None:
    await ready(world, native)
    await world.wish(native, restore=RestoreRequest(number=1, revision=77))
    async with world.controller() as controller:
        await world.settle(controller, native, 14)
    programs = [
        program
        for kind in (DEPLOYMENTS, STATEFUL_SETS)
        for program in await world.management.list(kind, native.masters_namespace)
    ]
    assert {program["spec"]["replicas"] for program in programs} == {1}
