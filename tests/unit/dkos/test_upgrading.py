"""Which upgrades a cluster may be asked for: all else is refused before anything changes, and says what to do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from haneul.dkos.model import (
    Cluster,
    ClusterSpec,
    ClusterStatus,
    Condition,
    ConditionType,
    Hibernation,
    NodeStatus,
    Phase,
)
from haneul.dkos.upgrading import Outcome, asked_spec, check_upgrade, propose, state_of
from haneul.kernel.errors import ConflictError, HaneulError, InvalidInputError

NOW = datetime(2026, 11, 1, tzinfo=UTC)
OLD, NEW = "1.36.5", "1.37.2"


def cluster(asked: str = OLD, /, *, nodes_at: str = "", **status: Any) -> Cluster:
    seen = {"phase": Phase.READY, "version": asked, "milestones": {"ready": 1.0}, **status}
    return Cluster(
        project="shop",
        name="web",
        uid="uid",
        generation=1,
        created=NOW,
        spec=ClusterSpec(version=asked, node_version=nodes_at),
        status=ClusterStatus(**seen),
    )


def refused(of: Cluster, version: str | None = None, nodes: str | None = None) -> HaneulError:
    with pytest.raises(HaneulError) as raised:
        check_upgrade(of, asked_spec(of, version, nodes))
    return raised.value


def test_the_next_minor_may_be_asked_for_and_the_same_again() -> None:
    check_upgrade(cluster(), asked_spec(cluster(), NEW, None))
    check_upgrade(cluster(), asked_spec(cluster(), OLD, None))
    assert asked_spec(cluster(), NEW, None).node_version == ""


def test_nodes_may_stay_go_back_and_come_along() -> None:
    assert asked_spec(cluster(), NEW, OLD).node_version == OLD
    check_upgrade(cluster(), asked_spec(cluster(), NEW, OLD))
    check_upgrade(cluster(NEW), asked_spec(cluster(NEW), None, OLD))
    behind = cluster(NEW, nodes_at=OLD)
    assert asked_spec(behind, None, None).node_version == ""
    check_upgrade(behind, asked_spec(behind, None, None))
    assert asked_spec(behind, None, NEW).node_version == ""


def test_what_kubernetes_does_not_allow_is_refused_with_what_may_be_done() -> None:
    back = refused(cluster(NEW), OLD)
    assert isinstance(back, InvalidInputError)
    assert "cannot go back" in back.detail and f"--nodes {OLD}" in back.hint
    skipped = refused(cluster("1.35.4"), NEW)
    assert isinstance(skipped, InvalidInputError)
    assert "no minor may be skipped" in skipped.detail and f"--to {OLD}" in skipped.hint
    assert "move there" in refused(cluster("1.33.1"), NEW).hint
    assert "never newer" in refused(cluster(OLD), None, NEW).detail


@pytest.mark.parametrize("version", ["1.38.0", "1.37.1", "latest", "", "v1.37.2"])
def test_versions_that_are_not_offered_are_refused(version: str) -> None:
    if version:
        assert "not built here" in refused(cluster(), version).detail
        assert "not built here" in refused(cluster(NEW), None, version).detail
    with pytest.raises(InvalidInputError, match="not built here"):
        after = cluster().spec.model_copy(update={"version": version})
        check_upgrade(cluster(), after)


def test_nodes_may_stay_at_a_version_that_is_not_offered_any_more() -> None:
    older = cluster("1.36.1")
    check_upgrade(older, asked_spec(older, NEW, "1.36.1"))
    check_upgrade(older, asked_spec(older, "1.36.5", None))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"phase": Phase.ASLEEP}, "sleeps"),
        ({"phase": Phase.WAKING}, "sleeps"),
        ({"milestones": {}}, "was never ready"),
        ({"version": "1.35.4"}, "on their way from 1.35.4"),
        (
            {"nodes": (NodeStatus(name="default-0", pool="default", version="1.33.2"),)},
            "at most 3 minors older",
        ),
    ],
)
def test_a_cluster_that_is_not_in_a_state_to_begin_is_not_sent_on(status: dict[str, Any], words: str) -> None:
    error = refused(cluster(**status), NEW)
    assert isinstance(error, ConflictError)
    assert words in error.detail and error.hint


def test_a_cluster_that_is_asked_to_sleep_is_not_upgraded() -> None:
    tired = cluster()
    tired = tired.model_copy(update={"spec": tired.spec.model_copy(update={"hibernation": Hibernation(asleep=True)})})
    assert "sleeps" in refused(tired, NEW).detail


def condition(reason: str, message: str) -> Condition:
    kind = ConditionType.VERSION_CURRENT
    return Condition(type=kind, status="False", reason=reason, message=message, last_transition_time=NOW)


def test_a_proposal_says_what_would_come_of_it() -> None:
    assert propose(cluster(), NEW).outcome is Outcome.UPGRADE
    assert propose(cluster(NEW), NEW).outcome is Outcome.CURRENT
    behind = cluster(NEW, nodes_at=OLD)
    assert (propose(behind, NEW).outcome, propose(behind, NEW).node_version) == (Outcome.UPGRADE, OLD)
    back = propose(cluster(NEW), OLD)
    assert back.outcome is Outcome.REFUSED and "cannot go back" in back.why and back.hint
    gone = cluster().model_copy(update={"deleting": True})
    assert (propose(gone, NEW).outcome, propose(gone, NEW).why) == (Outcome.REFUSED, "it is being deleted")
    broken = cluster().model_copy(update={"spec_problem": "version: no"})
    assert "not valid" in propose(broken, NEW).why


def test_a_proposal_tells_a_cluster_that_is_under_way_from_one_that_is_there() -> None:
    stopped = cluster(NEW, conditions=(condition("UpgradeStopped", "node default-0 cannot be emptied"),))
    assert propose(stopped, NEW).outcome is Outcome.UNDER_WAY
    assert propose(stopped, NEW).why == "node default-0 cannot be emptied"
    asked = cluster(NEW, version=OLD)
    assert propose(asked, NEW).outcome is Outcome.UNDER_WAY


def test_each_version_has_a_state() -> None:
    assert [state_of(version) for version in (NEW, OLD, "1.35.4")] == ["default", "deprecated", "not offered"]
