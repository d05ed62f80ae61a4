"""The catalogue and the plan: promises of the design, and that every fault has its round."""

from __future__ import annotations

from pathlib import Path

import pytest

from haneul.chaos.faults import BY_NAME, CATALOGUE, MASTERS_BACK, Asked, Fault, Place, Way
from haneul.chaos.plan import PAIRS, TELLING, Round, named_plan, short_plan, whole_plan
from haneul.kernel.errors import InvalidInputError

_NEIGHBOUR = {Asked.NEIGHBOUR_API, Asked.NEIGHBOUR_WORKLOAD}
_SHARED = {Asked.PLATFORM_API, Asked.MANAGEMENT_API}


ORDINARY = [fault for fault in CATALOGUE if fault.way is not Way.POWER]


@pytest.mark.parametrize("fault", ORDINARY, ids=lambda fault: fault.name)
def test_no_fault_may_be_noticed_by_the_neighbour(fault: Fault) -> None:
    assert not _NEIGHBOUR & {asked for asked, seconds in fault.allowed.items() if seconds > 0}


@pytest.mark.parametrize("fault", CATALOGUE, ids=lambda fault: fault.name)
def test_a_fault_of_masters_leaves_their_pods_serving_and_is_over_in_time(fault: Fault) -> None:
    if fault.place is Place.MASTERS:
        noticed = {asked for asked, seconds in fault.allowed.items() if seconds > 0}
        assert noticed <= {Asked.VICTIM_API}
        assert fault.allowed.get(Asked.VICTIM_API, 0) <= fault.hold + MASTERS_BACK
        assert fault.recovery <= MASTERS_BACK or fault.way is Way.CHANGE


@pytest.mark.parametrize("fault", ORDINARY, ids=lambda fault: fault.name)
def test_a_dead_management_cluster_is_noticed_by_no_tenant(fault: Fault) -> None:
    if fault.place in (Place.MANAGEMENT, Place.PLATFORM, Place.HOST):
        assert {asked for asked, seconds in fault.allowed.items() if seconds > 0} <= _SHARED


def test_names_are_unique_and_the_catalogue_breaks_what_the_promises_are_about() -> None:
    assert len(BY_NAME) == len(CATALOGUE)
    masters = {fault.part for fault in CATALOGUE if fault.place is Place.MASTERS and fault.way is Way.KILL}
    assert masters == {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
    assert {fault.way for fault in CATALOGUE} == set(Way)
    assert {fault.place for fault in CATALOGUE} == set(Place)


def test_the_whole_plan_has_every_fault_alone_then_the_pairs_then_the_power_cut() -> None:
    plan = whole_plan()
    singles = [one.faults[0] for one in plan if len(one.faults) == 1]
    assert sorted(fault.name for fault in singles) == sorted(BY_NAME)
    assert [one.name for one in plan if len(one.faults) == 2] == [f"{one} + {other}" for one, other in PAIRS]
    assert len(set(PAIRS)) == len(PAIRS)
    assert plan[-1].faults[0].way is Way.POWER


def test_the_short_plan_has_the_telling_four() -> None:
    assert [one.name for one in short_plan()] == list(TELLING)
    assert len(TELLING) == 4


def test_a_pair_gets_the_more_lenient_promise_of_the_two_and_no_more() -> None:
    pair = Round((BY_NAME["etcd-killed"], BY_NAME["management-api-killed"]))
    assert pair.allowed[Asked.VICTIM_API] == 30
    assert pair.allowed[Asked.MANAGEMENT_API] == 60
    assert pair.recovery == 90
    both = Round((BY_NAME["etcd-killed"], BY_NAME["apiserver-killed"]))
    assert both.allowed == {Asked.VICTIM_API: 30}


def test_rounds_are_named_by_hand() -> None:
    one, pair = named_plan(["etcd-killed", "node-cut-off+scheduler-killed"])
    assert one.name == "etcd-killed"
    assert [fault.name for fault in pair.faults] == ["node-cut-off", "scheduler-killed"]
    with pytest.raises(InvalidInputError, match="etcd-kiled"):
        named_plan(["etcd-kiled"])


def test_the_page_of_faults_exists() -> None:
    page = Path(__file__).parents[3] / "docs/reference/faults.md"
    assert "<!-- chaos: begin -->" in page.read_text()
