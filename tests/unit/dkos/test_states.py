"""What observations amount to: conditions in their order, the phase, milestones, and what a cluster waits on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.dkos.hibernation import Level
from haneul.dkos.hibernation import Step as SleepStep
from haneul.dkos.model import Cluster, ClusterSpec, ClusterStatus, ConditionType, NodePool, NodeStatus, Phase
from haneul.dkos.node_plan import node_statuses, plan_nodes
from haneul.dkos.pace import is_settled
from haneul.dkos.ports import ProvidedNode
from haneul.dkos.rotation import Step, Verdict
from haneul.dkos.states import (
    MASTERS_LIFE,
    OLD_TRUSTED,
    MasterState,
    Observation,
    has_answered,
    sleeping_status,
    status_of,
    waits_on,
)
from haneul.dkos.upgrade import Stage
from haneul.dkos.upgrade import Verdict as UpgradeVerdict
from haneul.kernel.kube import Manifest

#: The conditions of a cluster that neither sleeps nor was ever restored, and has no more than is followed.
_OTHERS = {ConditionType.HIBERNATED, ConditionType.RESTORED, ConditionType.FOLLOWED}
AWAKE = [kind for kind in ConditionType if kind not in _OTHERS]
START = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
ROLES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
READY_NODE = NodeStatus(name="default-0", pool="default", address="192.0.2.1", ready=True)
ALL_WELL = Observation(
    masters=tuple(MasterState(role, ready=True) for role in ROLES),
    api_answers=True,
    nodes=(READY_NODE,),
    wanted_nodes=1,
    endpoint="https://192.0.2.10:31234",
)
NOTHING = Observation(wanted_nodes=1)


def cluster(status: ClusterStatus | None = None, *, generation: int = 1, deleting: bool = False) -> Cluster:
    return Cluster(
        project="shop",
        name="one",
        uid="u",
        generation=generation,
        created=START,
        deleting=deleting,
        spec=ClusterSpec(),
        status=status or ClusterStatus(),
    )


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def replace_version(version: str) -> NodeStatus:
    return READY_NODE.model_copy(update={"version": version})


def truths(status: ClusterStatus) -> list[str]:
    return [condition.type.value for condition in status.conditions if condition.status == "True"]


def test_conditions_come_in_the_order_in_which_they_come_true() -> None:
    status = status_of(cluster(), NOTHING, START)
    assert [condition.type for condition in status.conditions] == AWAKE


def test_a_cluster_that_is_followed_no_longer_is_told_and_ready_all_the_same() -> None:
    status = status_of(cluster(), replace(ALL_WELL, trouble="haneul-dns follows it no longer"), START)
    told = status.conditions[-1]
    assert (told.type, told.status, told.reason) == (ConditionType.FOLLOWED, "False", "OverBudget")
    assert told.message == "haneul-dns follows it no longer"
    assert (status.phase, waits_on(status), is_settled(status)) == (Phase.READY, "", True)
    again = status_of(cluster(status), ALL_WELL, after(60))
    assert [condition.type for condition in again.conditions] == AWAKE


@pytest.mark.parametrize(
    ("seen", "true", "waits"),
    [
        (Observation(problem="two pools have one name"), [], "two pools have one name"),
        (NOTHING, ["Accepted"], "waiting for the masters to be made"),
        (
            Observation(
                masters=(
                    MasterState("etcd", ready=True),
                    MasterState("kube-apiserver", ready=False, message="starting"),
                ),
                wanted_nodes=1,
            ),
            ["Accepted"],
            "waiting for kube-apiserver (starting)",
        ),
        (
            Observation(masters=ALL_WELL.masters, api_message="(refused)", wanted_nodes=1),
            ["Accepted", "ControlPlaneReady"],
            "waiting for the API server to answer (refused)",
        ),
        (
            Observation(masters=ALL_WELL.masters, api_answers=True, wanted_nodes=1),
            ["Accepted", "ControlPlaneReady", "ApiAnswers"],
            "waiting for the network of the first node",
        ),
        (
            Observation(masters=ALL_WELL.masters, api_answers=True, nodes=(READY_NODE,), wanted_nodes=2),
            ["Accepted", "ControlPlaneReady", "ApiAnswers", "NetworkReady"],
            "1 of 2 nodes ready; waiting for the others to be made",
        ),
        (
            Observation(
                masters=ALL_WELL.masters,
                api_answers=True,
                nodes=(READY_NODE, NodeStatus(name="default-1", pool="default", message="joining")),
                wanted_nodes=2,
            ),
            ["Accepted", "ControlPlaneReady", "ApiAnswers", "NetworkReady"],
            "1 of 2 nodes ready; waiting for default-1 (joining)",
        ),
        (ALL_WELL, [kind.value for kind in AWAKE], ""),
        (
            Observation(masters=ALL_WELL.masters, api_answers=True, wanted_nodes=0),
            [kind.value for kind in AWAKE],
            "",
        ),
    ],
)
def test_first_condition_that_is_not_true_says_what_is_waited_on(
    seen: Observation, true: list[str], waits: str
) -> None:
    status = status_of(cluster(), seen, START)
    # Of new authorities and versions nobody speaks before there is a reason to.
    assert set(truths(status)) == {*true, "AuthoritiesCurrent", "VersionCurrent"} or seen.problem
    assert waits_on(status) == waits


def test_cluster_that_nobody_looked_at_waits_on_the_operator() -> None:
    assert "operator" in waits_on(ClusterStatus())


def test_unchanged_conditions_keep_their_transition_times() -> None:
    first = status_of(cluster(), NOTHING, START)
    second = status_of(cluster(first), ALL_WELL, after(5))
    third = status_of(cluster(second), ALL_WELL, after(9))
    times = {condition.type: condition.last_transition_time for condition in third.conditions}
    assert times.pop(ConditionType.ACCEPTED) == START
    assert times.pop(ConditionType.AUTHORITIES_CURRENT) == START
    assert times.pop(ConditionType.VERSION_CURRENT) == START
    assert set(times.values()) == {after(5)}


def test_a_repeated_look_at_the_same_changes_nothing() -> None:
    first = status_of(cluster(), ALL_WELL, after(5))
    assert status_of(cluster(first), ALL_WELL, after(90)) == first


def test_phases_of_a_life() -> None:
    fresh = status_of(cluster(), NOTHING, START)
    assert fresh.phase is Phase.CREATING
    ready = status_of(cluster(fresh), ALL_WELL, after(20))
    assert ready.phase is Phase.READY
    broken = status_of(cluster(ready), Observation(masters=ALL_WELL.masters, wanted_nodes=1), after(40))
    assert broken.phase is Phase.DEGRADED
    healed = status_of(cluster(broken), ALL_WELL, after(60))
    assert healed.phase is Phase.READY
    asked_more = Observation(masters=ALL_WELL.masters, api_answers=True, nodes=(READY_NODE,), wanted_nodes=2)
    changing = status_of(cluster(healed, generation=2), asked_more, after(80))
    assert changing.phase is Phase.UPDATING
    still = status_of(cluster(changing, generation=2), asked_more, after(81))
    assert still.phase is Phase.UPDATING
    assert status_of(cluster(still, generation=2), ALL_WELL, after(90)).phase is Phase.READY
    assert status_of(cluster(healed, deleting=True), ALL_WELL, after(99)).phase is Phase.DELETING


def test_cluster_that_was_ready_at_once_is_degraded_not_creating() -> None:
    ready = status_of(cluster(), ALL_WELL, START)
    assert ready.milestones["ready"] == 0
    assert status_of(cluster(ready), NOTHING, after(5)).phase is Phase.DEGRADED


def test_milestones_are_reached_once() -> None:
    api = status_of(cluster(), Observation(masters=ALL_WELL.masters, api_answers=True, wanted_nodes=1), after(8.5))
    assert api.milestones == {"api": 8.5}
    ready = status_of(cluster(api), ALL_WELL, after(15.25))
    assert ready.milestones == {"api": 8.5, "node": 15.25, "ready": 15.25}
    assert status_of(cluster(ready), NOTHING, after(60)).milestones == ready.milestones


def test_endpoint_stays_known_while_it_is_not_seen() -> None:
    ready = status_of(cluster(), ALL_WELL, START)
    assert status_of(cluster(ready), NOTHING, after(5)).endpoint == "https://192.0.2.10:31234"


_observations = st.builds(
    Observation,
    masters=st.lists(
        st.builds(MasterState, st.sampled_from(ROLES), ready=st.booleans(), message=st.sampled_from(["", "starting"])),
        max_size=4,
    ).map(tuple),
    api_answers=st.booleans(),
    nodes=st.lists(
        st.builds(NodeStatus, name=st.sampled_from(["a-0", "a-1"]), pool=st.just("a"), ready=st.booleans()), max_size=3
    ).map(tuple),
    wanted_nodes=st.integers(0, 3),
    problem=st.sampled_from(["", "", "no such version"]),
)


@given(st.lists(_observations, min_size=1, max_size=5))
def test_whatever_is_seen_the_status_is_sound(looks: list[Observation]) -> None:
    status = ClusterStatus()
    for number, seen in enumerate(looks):
        before, status = status, status_of(cluster(status), seen, after(number))
        settled = all(condition.status == "True" for condition in status.conditions)
        assert (status.phase is Phase.READY) == settled == (not waits_on(status))
        assert before.milestones.items() <= status.milestones.items()
        assert ClusterStatus.model_validate(status.model_dump(mode="json", by_alias=True)) == status


# Which nodes a cluster should have.


def pooled(*pools: NodePool) -> Cluster:
    return cluster().model_copy(update={"spec": ClusterSpec(node_pools=pools)})


def node(name: str, *conditions: dict[str, str]) -> Manifest:
    return {"metadata": {"name": name}, "status": {"conditions": list(conditions)}}


def test_nodes_are_named_after_pool_and_number_and_highest_numbers_go() -> None:
    plan = plan_nodes(
        pooled(NodePool(name="a", count=2), NodePool(name="b", count=0)),
        [ProvidedNode("a-0", "i"), ProvidedNode("a-2", "i")],
        ["a-1", "b-0", "stranger"],
    )
    assert {name: pool.name for name, pool in plan.keep.items()} == {"a-0": "a", "a-1": "a"}
    assert plan.drop == ("a-2", "b-0", "stranger")


@given(st.integers(0, 6), st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_kept_and_dropped_never_meet_and_cover_all_that_is_known(
    count: int, machines: set[int], objects: set[int]
) -> None:
    provided = [ProvidedNode(f"a-{number}", "i") for number in machines]
    registered = [f"a-{number}" for number in objects]
    plan = plan_nodes(pooled(NodePool(name="a", count=count)), provided, registered)
    assert set(plan.drop).isdisjoint(plan.keep)
    assert {machine.name for machine in provided} | set(registered) <= set(plan.drop) | set(plan.keep)
    assert len(plan.keep) == count


@pytest.mark.parametrize(
    ("machines", "objects", "ready", "message"),
    [
        ([], [], False, "its machine is being made"),
        ([ProvidedNode("a-0", "", message="ImagePullBackOff")], [], False, "ImagePullBackOff"),
        ([ProvidedNode("a-0", "i", running=True)], [], False, "joining"),
        ([ProvidedNode("a-0", "i", running=True)], [{"metadata": {"name": "a-0"}}], False, "its kubelet starts"),
        (
            [ProvidedNode("a-0", "i", running=True)],
            [node("a-0", {"type": "Ready", "status": "False", "message": "no network"})],
            False,
            "no network",
        ),
        (
            [ProvidedNode("a-0", "i", running=False)],
            [node("a-0", {"type": "Ready", "status": "True"})],
            False,
            "its machine is being made",
        ),
        ([ProvidedNode("a-0", "i", running=True)], [node("a-0", {"type": "Ready", "status": "True"})], True, ""),
    ],
)
def test_node_is_ready_when_its_machine_runs_and_its_object_says_so(
    machines: list[ProvidedNode], objects: list[Manifest], ready: bool, message: str
) -> None:
    plan = plan_nodes(pooled(NodePool(name="a", count=1)), machines, ())
    (status,) = node_statuses(plan, machines, objects)
    assert (status.ready, status.message) == (ready, message)


@pytest.mark.parametrize("step", [step for step in Step if step is not Step.STEADY])
def test_authorities_that_are_replaced_are_a_change_and_no_fault(step: Step) -> None:
    ready = status_of(cluster(), ALL_WELL, after(20))
    rotating = replace(ALL_WELL, rotation=Verdict(step, waits_on="etcd"), nodes=())
    status = status_of(cluster(ready), rotating, after(30))
    assert status.phase is Phase.UPDATING
    condition = next(entry for entry in status.conditions if entry.type is ConditionType.AUTHORITIES_CURRENT)
    assert condition.status == "False"
    assert condition.message.endswith("waiting for etcd")


def test_cluster_is_ready_while_only_time_has_to_pass_for_its_old_authorities() -> None:
    waiting = replace(ALL_WELL, rotation=Verdict(Step.ISSUE, until=after(3600)))
    status = status_of(cluster(), waiting, after(30))
    assert status.phase is Phase.READY
    condition = next(entry for entry in status.conditions if entry.type is ConditionType.AUTHORITIES_CURRENT)
    assert (condition.status, condition.reason) == ("True", OLD_TRUSTED)
    assert f"{after(3600):%H:%M:%S}" in condition.message


def test_api_has_answered_anew_only_after_the_cluster_woke() -> None:
    assert not has_answered(ClusterStatus())
    ready = status_of(cluster(), ALL_WELL, after(5))
    silent = status_of(cluster(ready), replace(ALL_WELL, api_answers=False), after(6))
    assert has_answered(ready)
    assert has_answered(silent)
    ends = SleepStep(Level.NODES, "PodsEnding", "waiting for pods")
    falling = sleeping_status(cluster(ready), ends, "", after(7))
    asleep = sleeping_status(cluster(falling), SleepStep(Level.NOTHING, "Asleep", ""), "", after(8))
    waking = status_of(cluster(asleep), replace(NOTHING, api_answers=False), after(9))
    assert [status.phase for status in (falling, asleep, waking)] == [Phase.HIBERNATING, Phase.ASLEEP, Phase.WAKING]
    assert not any(has_answered(status) for status in (falling, asleep, waking))
    answers = status_of(cluster(waking), replace(ALL_WELL, nodes=()), after(10))
    assert answers.phase is Phase.WAKING
    assert has_answered(answers)


def upgrading(stage: Stage, *, masters: tuple[MasterState, ...] = ALL_WELL.masters, **more: Any) -> Observation:
    verdict = UpgradeVerdict(stage, "1.37.2", "1.36.5", "no minor may be skipped" if stage is Stage.REFUSED else "")
    return replace(ALL_WELL, masters=masters, upgrade=verdict, nodes_version="1.37.2", **more)


@pytest.mark.parametrize(
    ("seen", "reason", "words"),
    [
        (upgrading(Stage.API), "UpgradingMasters", "from Kubernetes 1.36.5 to 1.37.2, first the API server"),
        (upgrading(Stage.CONTROLLERS), "UpgradingMasters", "now controller manager and scheduler"),
        (upgrading(Stage.STARTING), "UpgradingMasters", "the nodes come after them"),
        (
            upgrading(Stage.API, masters=(MasterState("kube-apiserver", ready=True, coming="no such flag"),)),
            "UpgradingMasters",
            "; waiting for kube-apiserver (no such flag)",
        ),
        (upgrading(Stage.REFUSED), "UpgradeRefused", "no minor may be skipped"),
        (
            upgrading(Stage.DONE, nodes=(replace_version("1.37.2"), replace_version("1.36.5"))),
            "UpgradingNodes",
            "nodes come to Kubernetes 1.37.2: 1 of 2 done",
        ),
        (
            upgrading(Stage.DONE, nodes=(replace_version("1.36.5"),), stopped="node default-0 cannot be emptied"),
            "UpgradeStopped",
            "node default-0 cannot be emptied",
        ),
    ],
)
def test_an_upgrade_says_how_far_it_is(seen: Observation, reason: str, words: str) -> None:
    status = status_of(cluster(), seen, START)
    condition = status.conditions[-1]
    assert (condition.type, condition.status, condition.reason) == (ConditionType.VERSION_CURRENT, "False", reason)
    assert words in condition.message


@pytest.mark.parametrize("version", ["1.37.2", ""])
def test_nodes_of_the_wanted_version_and_those_that_never_said_theirs_are_no_upgrade(version: str) -> None:
    status = status_of(cluster(), upgrading(Stage.DONE, nodes=(replace_version(version),)), START)
    assert (status.conditions[-1].status, status.version) == ("True", "1.37.2")


def test_masters_that_take_too_long_are_a_stop_and_the_old_version_is_still_told() -> None:
    before = cluster().model_copy(update={"status": ClusterStatus(version="1.36.5")})
    first = status_of(before, upgrading(Stage.API), START)
    later = START + MASTERS_LIFE
    second = status_of(before.model_copy(update={"status": first}), upgrading(Stage.API), later)
    assert [status.conditions[-1].reason for status in (first, second)] == ["UpgradingMasters", "UpgradeStopped"]
    assert (first.version, second.version) == ("1.36.5", "1.36.5")
