"""A cluster comes to another version through its controller: in order, one by one, stopped, and gone on with.

The masters' programs and the machines' kubelets here say which version they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from haneul.dkos.adapters.memory_nodes import MemoryNodes
from haneul.dkos.control_plane import Images
from haneul.dkos.model import Cluster, ClusterStatus, ConditionType, Phase
from haneul.dkos.node_changes import DRAIN_LIFE
from haneul.dkos.pace import IDLE
from haneul.dkos.ports import NodeAnnouncement
from haneul.dkos.states import MASTERS_LIFE
from haneul.kernel.clock import VirtualClock
from haneul.kernel.kube import DEPLOYMENTS, NODES, Manifest
from tests.unit.dkos.test_rolling import REPLICAS, Tenancy

OLD, NEW = "1.36.5", "1.37.2"
API, MANAGER, SCHEDULER = "kube-apiserver", "kube-controller-manager", "kube-scheduler"


class VersionedNodes(MemoryNodes):
    """Machines that know which version each of them was made from."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.versions: dict[str, str] = {}

    async def ensure(self, cluster: Cluster, node: NodeAnnouncement) -> None:
        await super().ensure(cluster, node)
        for machine in await self.observe(cluster):
            if machine.name == node.name:
                self.versions.setdefault(machine.instance, node.version)


@dataclass
class Upgraded(Tenancy):
    """The world with versions in it, and what was seen of them at every move."""

    #: Programs whose pods of a new template do not become ready.
    failing: set[str] = field(default_factory=set)
    generations: dict[str, int] = field(default_factory=dict)
    history: list[tuple[str, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.versioned = VersionedNodes(self.clock)
        self.nodes = self.versioned

    async def _start(self, program: Manifest) -> None:
        name, generation = program["metadata"]["name"], program["metadata"]["generation"]
        if name in self.failing and self.generations.get(name, generation) != generation:
            return
        self.generations[name] = generation
        await super()._start(program)

    async def _live(self, name: str, *, works: bool) -> None:
        await super()._live(name, works=works)
        version = self.versioned.versions[self.machines[name]]
        said = {"status": {"nodeInfo": {"kubeletVersion": f"v{version}"}}}
        await self.tenant.patch(NODES, name, said, subresource="status")

    async def move(self, cluster: Cluster) -> None:
        self.masters_run = False
        await super().move(cluster)
        seen = (*(await self.masters(cluster)), *(await self.kubelets()))
        if not self.history or self.history[-1] != seen:
            self.history.append(seen)

    async def masters(self, cluster: Cluster) -> list[str]:
        """Return what API server, controller manager and scheduler were made from last."""
        found = []
        for name in (API, MANAGER, SCHEDULER):
            if made := await self.management.get(DEPLOYMENTS, name, cluster.masters_namespace):
                found.append(made["spec"]["template"]["spec"]["containers"][0]["image"].rpartition(":v")[2])
        return found

    async def kubelets(self) -> list[str]:
        nodes = sorted(await self.tenant.list(NODES), key=lambda node: str(node["metadata"]["name"]))
        return [node["status"]["nodeInfo"]["kubeletVersion"].removeprefix("v") for node in nodes]

    async def want(self, like: Cluster, version: str, nodes: str = "") -> None:
        await self.ask(of_version(like, version, nodes))

    def reasons(self) -> list[str]:
        return [event.reason.value for event in self.told]


def of_version(like: Cluster, version: str, nodes: str = "") -> Cluster:
    spec = like.spec.model_copy(update={"version": version, "node_version": nodes})
    return like.model_copy(update={"spec": spec})


def condition(status: ClusterStatus) -> tuple[str, str]:
    found = next(entry for entry in status.conditions if entry.type is ConditionType.VERSION_CURRENT)
    return found.reason, found.message


@pytest.fixture
async def world(images: Images, native: Cluster) -> Upgraded:
    world = Upgraded(images, VirtualClock(native.created))
    await world.ready(of_version(native, OLD))
    await world.looks(native, 3)
    world.told.clear()
    world.history.clear()
    return world


async def test_masters_come_first_then_nodes_one_by_one_and_the_workload_answers(
    world: Upgraded, native: Cluster
) -> None:
    await world.want(native, NEW)
    status = await world.looks(native, 90)
    assert (status.phase, status.version) == (Phase.READY, NEW)
    assert {node.version for node in status.nodes} == {NEW}
    o, n = OLD, NEW
    assert world.history == [
        (n, o, o, o, o, o),
        (n, n, n, o, o, o),
        (n, n, n, n, o, o),
        (n, n, n, n, n, o),
        (n, n, n, n, n, n),
    ]
    assert (world.most_closed, world.most_away, world.fewest) == (1, 1, 2)
    assert await world.marks() == {}
    told = [reason for reason in world.reasons() if "pgrade" in reason]
    assert told == ["UpgradeBegun", "MastersUpgraded", *["NodeUpgraded"] * 3, "Upgraded"]


async def test_status_names_the_masters_version_once_all_of_them_run_it(world: Upgraded, native: Cluster) -> None:
    world.failing = {MANAGER}
    await world.want(native, NEW)
    status = await world.looks(native, 5)
    assert (status.version, status.phase) == (OLD, Phase.UPDATING)
    assert condition(status)[0] == "UpgradingMasters"
    world.failing.clear()
    status = await world.looks(native, 4)
    assert (status.version, condition(status)[0]) == (NEW, "UpgradingNodes")


@pytest.mark.parametrize("failing", [API, SCHEDULER])
async def test_masters_that_do_not_come_up_stop_the_upgrade_and_it_goes_on_once_they_do(
    world: Upgraded, native: Cluster, failing: str
) -> None:
    before = await world.instances(native)
    world.failing = {failing}
    await world.want(native, NEW)
    status = await world.looks(native, int(MASTERS_LIFE.total_seconds()) + 20)
    reason, message = condition(status)
    assert reason == "UpgradeStopped" and NEW in message and message.endswith("; waiting for its pods")
    assert world.reasons().count("UpgradeStopped") == 1
    assert await world.instances(native) == before and set(await world.kubelets()) == {OLD}
    assert (await world.masters(await world.cluster(native)))[1] == (OLD if failing == API else NEW)
    world.failing.clear()
    assert (await world.looks(native, 90)).phase is Phase.READY
    assert set(await world.kubelets()) == {NEW}


async def test_pods_that_may_not_move_stop_the_upgrade_for_as_long_as_they_may_not(
    world: Upgraded, native: Cluster
) -> None:
    before = await world.instances(native)
    world.least = REPLICAS
    await world.move(await world.cluster(native))
    await world.want(native, NEW)
    status = await world.looks(native, 2 * int(DRAIN_LIFE.total_seconds()))
    reason, message = condition(status)
    assert reason == "UpgradeStopped"
    assert "node big-0 cannot be emptied: pod default/web-" in message and "disruption budget" in message
    assert await world.instances(native) == before, "nobody's pods are ended by force"
    assert world.reasons().count("UpgradeStopped") == 1
    assert world.fewest == REPLICAS and set(await world.marks()) == {"big-0"}
    world.least = REPLICAS - 1
    assert (await world.looks(native, 90)).phase is Phase.READY
    assert set(await world.kubelets()) == {NEW} and await world.marks() == {}


async def test_a_node_that_does_not_come_back_stops_the_upgrade_and_may_go_back(
    world: Upgraded, native: Cluster
) -> None:
    before = await world.instances(native)
    world.bad_pods = native.spec.settings.max_pods_per_node
    await world.want(native, NEW)
    status = await world.looks(native, int(DRAIN_LIFE.total_seconds()) + 60)
    reason, message = condition(status)
    assert reason == "UpgradeStopped" and "does not become ready: no network" in message
    after = await world.instances(native)
    (broken,) = (name for name in after if after[name] != before[name])
    assert set(await world.marks()) == {broken}
    # Masters do not go back, nodes do: to what still runs everywhere else.
    world.bad_pods = 99
    await world.want(native, NEW, OLD)
    assert (await world.looks(native, 90)).phase is Phase.READY
    assert set(await world.kubelets()) == {OLD}
    assert await world.masters(await world.cluster(native)) == [NEW] * 3
    after = await world.instances(native)
    assert [name for name in after if after[name] != before[name]] == [broken]
    await world.want(native, NEW)
    assert (await world.looks(native, 120)).phase is Phase.READY
    assert set(await world.kubelets()) == {NEW}


async def test_what_was_written_past_the_api_and_cannot_be_changes_nothing(world: Upgraded, native: Cluster) -> None:
    await world.want(native, NEW)
    await world.looks(native, 90)
    before = (await world.masters(await world.cluster(native)), await world.instances(native))
    world.told.clear()
    await world.want(native, OLD)
    status = await world.looks(native, 10)
    assert condition(status)[0] == "UpgradeRefused" and "cannot go back" in condition(status)[1]
    assert (await world.masters(await world.cluster(native)), await world.instances(native)) == before
    assert (status.version, world.reasons().count("UpgradeRefused")) == (NEW, 1)
    await world.want(native, NEW)
    assert (await world.looks(native, 10)).phase is Phase.READY


async def test_new_nodes_come_with_the_version_that_nodes_have_now(world: Upgraded, native: Cluster) -> None:
    world.failing = {API}
    pools = tuple(pool.model_copy(update={"count": pool.count + 1}) for pool in native.spec.node_pools)
    larger = native.model_copy(update={"spec": native.spec.model_copy(update={"node_pools": pools})})
    await world.want(larger, NEW)
    await world.looks(native, 10)
    assert await world.kubelets() == [OLD] * 5


async def test_cluster_of_a_version_that_is_not_built_any_more_stays_as_it_is(images: Images, native: Cluster) -> None:
    world = Upgraded(images, VirtualClock(native.created))
    await world.ready(of_version(native, "1.36.1"))
    before = await world.instances(native)
    status = await world.looks(native, 20)
    assert (status.phase, status.version) == (Phase.READY, "1.36.1")
    assert await world.instances(native) == before
    assert await world.masters(await world.cluster(native)) == ["1.36.1"] * 3
    await world.want(native, NEW)
    assert (await world.looks(native, 90)).version == NEW


async def test_operator_that_ends_at_any_call_of_an_upgrade_is_continued(images: Images, native: Cluster) -> None:
    pools = tuple(pool for pool in native.spec.node_pools if pool.name == "default")
    two = native.model_copy(update={"spec": native.spec.model_copy(update={"node_pools": pools})})
    begin = Upgraded(images, VirtualClock(two.created))
    await begin.ready(of_version(two, OLD))
    begin.history.clear()
    before = await begin.instances(two)
    await begin.want(two, NEW)

    async def then(world: Upgraded, number: int) -> None:
        status = await world.looks(two, 60)
        after = await world.instances(two)
        assert (status.phase, status.version) == (Phase.READY, NEW), f"ended at call {number}"
        assert not set(after.values()) & set(before.values()), f"ended at call {number}"
        assert (world.most_closed, world.most_away, world.fewest) == (1, 1, 2), f"ended at call {number}"
        assert await world.marks() == {}
        for api, manager, scheduler, *kubelets in world.history:
            for other in (manager, scheduler, *kubelets):
                assert other <= api, f"ended at call {number}"

    # Every call would take long; a prime step meets each kind of call, as they come in turns.
    assert await begin.ended(begin.looks(two, 60), then, every=7) > 60


async def test_a_settled_cluster_is_not_asked_for_its_versions_again(world: Upgraded, native: Cluster) -> None:
    async with world.controller() as controller:
        await world.settle(controller, native)
        world.clock.advance(IDLE)
        await controller.reconcile(await world.cluster(native))
        world.calls.count = 0
        await controller.reconcile(await world.cluster(native))
        assert world.calls.count == 3
