"""Which part of a cluster comes to another version when: the order, the gates in between, and what is refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haneul.dkos.masters import NODES_VERSION, recorded
from haneul.dkos.model import ClusterSpec
from haneul.dkos.releases import RELEASES, VERSIONS, is_newer, parse, way_of_masters, way_of_nodes
from haneul.dkos.upgrade import Part, Recorded, Stage, Versions, next_versions
from haneul.kernel.kube import Manifest

OLD, NEW = "1.36.5", "1.37.2"


def made(api: str, controllers: str, nodes: str, *, api_runs: bool = True, controllers_run: bool = True) -> Recorded:
    return Recorded(Part(api, api_runs), Part(controllers, controllers_run), nodes)


def spec(version: str = NEW, nodes: str = "") -> ClusterSpec:
    return ClusterSpec(version=version, node_version=nodes)


@pytest.mark.parametrize(
    ("seen", "wanted", "stage"),
    [
        (Recorded(), Versions(NEW, NEW, NEW), Stage.DONE),
        # A creation that ended between the API server and the rest.
        (Recorded(Part(NEW)), Versions(NEW, NEW, NEW), Stage.DONE),
        (made(OLD, OLD, OLD), Versions(NEW, OLD, OLD), Stage.API),
        (made(OLD, OLD, OLD, api_runs=False), Versions(NEW, OLD, OLD), Stage.API),
        (made(NEW, OLD, OLD, api_runs=False), Versions(NEW, OLD, OLD), Stage.API),
        (made(NEW, OLD, OLD), Versions(NEW, NEW, OLD), Stage.CONTROLLERS),
        (made(NEW, NEW, OLD, controllers_run=False), Versions(NEW, NEW, OLD), Stage.STARTING),
        (made(NEW, NEW, OLD, api_runs=False), Versions(NEW, NEW, OLD), Stage.STARTING),
        (made(NEW, NEW, OLD), Versions(NEW, NEW, NEW), Stage.DONE),
        # Masters that restart later are no upgrade.
        (made(NEW, NEW, NEW, api_runs=False, controllers_run=False), Versions(NEW, NEW, NEW), Stage.DONE),
        # What an earlier Haneul made says nothing of its nodes.
        (made(OLD, OLD, ""), Versions(NEW, OLD, OLD), Stage.API),
    ],
)
def test_each_part_waits_for_the_one_before(seen: Recorded, wanted: Versions, stage: Stage) -> None:
    plan = next_versions(spec(), seen)
    assert (plan.versions, plan.verdict.stage) == (wanted, stage)


def test_nodes_go_back_alone_and_come_again() -> None:
    back = next_versions(spec(NEW, OLD), made(NEW, NEW, NEW))
    assert (back.versions, back.verdict.stage) == (Versions(NEW, NEW, OLD), Stage.DONE)
    again = next_versions(spec(), made(NEW, NEW, OLD))
    assert again.versions == Versions(NEW, NEW, NEW)


def test_masters_come_to_a_version_and_nodes_stay_if_that_is_asked_for() -> None:
    assert next_versions(spec(NEW, OLD), made(OLD, OLD, OLD)).versions == Versions(NEW, OLD, OLD)
    assert next_versions(spec(NEW, OLD), made(NEW, NEW, OLD)).versions == Versions(NEW, NEW, OLD)


@pytest.mark.parametrize(
    ("asked", "seen", "words"),
    [
        (spec(OLD), made(NEW, NEW, NEW), "cannot go back"),
        (spec("1.38.0"), made(OLD, OLD, OLD), "no minor may be skipped"),
        (spec("2.37.0"), made(NEW, NEW, NEW), "no minor may be skipped"),
        (spec("latest"), made(NEW, NEW, NEW), "no version of Kubernetes"),
        (spec(OLD, NEW), made(OLD, OLD, OLD), "never newer than its API server"),
        (spec(NEW), made(OLD, OLD, "1.33.9"), "at most 3 minors older"),
        (spec(NEW, "1.33.9"), made(NEW, NEW, NEW), "at most 3 minors older"),
    ],
)
def test_what_is_written_past_the_api_and_cannot_be_changes_nothing(
    asked: ClusterSpec, seen: Recorded, words: str
) -> None:
    plan = next_versions(asked, seen)
    assert plan.verdict.stage is Stage.REFUSED and words in plan.verdict.why
    assert plan.versions == Versions(seen.api.version, seen.controllers.version, seen.nodes)


_KNOWN = st.sampled_from(["1.34.1", "1.35.0", "1.35.4", "1.36.5", "1.37.2", "1.38.0", "nonsense"])


def _minor(version: str) -> int:
    numbers = parse(version)
    assert numbers is not None
    return numbers[1]


@settings(deadline=None)
@given(
    start=st.sampled_from(["1.34.1", "1.35.0", "1.36.5", "1.37.2"]),
    asked=st.lists(st.tuples(_KNOWN, st.one_of(st.just(""), _KNOWN), st.lists(st.booleans(), max_size=4)), max_size=8),
)
def test_whatever_is_asked_for_and_whenever_no_part_is_ever_newer_than_its_api_server(
    start: str, asked: list[tuple[str, str, list[bool]]]
) -> None:
    seen = made(start, start, start)
    for version, nodes, starts in asked:
        wanted = spec(version, nodes)
        for runs in [*starts, True, True, True, True]:
            plan = next_versions(wanted, seen)
            now = plan.versions
            for other in (now.controllers, now.nodes):
                assert not is_newer(other, now.api)
            assert not is_newer(seen.api.version, now.api), "masters never go back"
            assert _minor(now.api) - _minor(seen.api.version) <= 1, "no minor is skipped"
            assert _minor(now.api) - _minor(now.controllers) <= 1
            assert _minor(now.api) - _minor(now.nodes) <= 3
            moved = (now.api != seen.api.version, now.controllers != seen.controllers.version, now.nodes != seen.nodes)
            assert sum(moved) <= 1, "one part at a time"
            api = Part(now.api, runs=runs if moved[0] else seen.api.runs or runs)
            controllers = Part(now.controllers, runs=runs if moved[1] else seen.controllers.runs or runs)
            seen = Recorded(api, controllers, now.nodes)
        last = next_versions(wanted, seen)
        if last.verdict.stage is not Stage.REFUSED:
            assert last.versions == Versions(version, version, nodes or version)
            assert last.verdict.stage is Stage.DONE


def test_offered_versions_are_ordered_and_each_can_be_upgraded_to_the_next() -> None:
    assert [release.version for release in RELEASES] == list(VERSIONS)
    assert not RELEASES[0].deprecated
    for newer, older in itertools.pairwise(VERSIONS):
        assert is_newer(newer, older)
        assert way_of_masters(older, newer) == "" and way_of_nodes(newer, older) == ""
        assert way_of_masters(newer, older) and way_of_nodes(older, newer)


def deployment(name: str, version: str, *, ready: int = 1, old: int = 0, nodes: str = "") -> Manifest:
    status = {"observedGeneration": 3, "replicas": 1 + old, "updatedReplicas": 1, "readyReplicas": ready}
    return {
        "metadata": {"name": name, "generation": 3, "annotations": {NODES_VERSION: nodes} if nodes else {}},
        "spec": {
            "replicas": 1,
            "template": {"spec": {"containers": [{"image": f"haneul.local/{name}:v{version}"}]}},
        },
        "status": status,
    }


MASTERS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")


def test_what_was_made_last_stands_on_the_workloads() -> None:
    found = [deployment(name, OLD, nodes=OLD) for name in MASTERS]
    assert recorded(found) == made(OLD, OLD, OLD)
    assert recorded([]) == Recorded()
    assert recorded([deployment("cilium-operator", "1.19.1")]) == Recorded()


@pytest.mark.parametrize(
    "change",
    [
        {"readyReplicas": 0},
        {"replicas": 2},
        {"updatedReplicas": 0},
        {"observedGeneration": 2},
        {"terminatingReplicas": 1},
    ],
)
def test_a_rollout_is_over_when_its_pods_alone_run_and_are_ready(change: Manifest) -> None:
    api = deployment("kube-apiserver", NEW)
    assert recorded([api]).api == Part(NEW, runs=True)
    api["status"] |= change
    assert recorded([api]).api == Part(NEW, runs=False)


@pytest.mark.parametrize(("updated", "ready", "runs"), [(1, 3, False), (3, 2, False), (3, 3, True)])
def test_several_api_servers_run_when_all_of_them_are_of_the_last_version(updated: int, ready: int, runs: bool) -> None:
    api = deployment("kube-apiserver", NEW)
    api["spec"]["replicas"] = 3
    api["status"] |= {"replicas": 3, "updatedReplicas": updated, "readyReplicas": ready}
    assert recorded([api]).api == Part(NEW, runs=runs)


def test_of_two_controllers_the_older_version_counts() -> None:
    found = [deployment("kube-controller-manager", NEW, nodes=OLD), deployment("kube-scheduler", OLD)]
    assert recorded(found).controllers == Part(OLD, runs=False)
    # Numbers, not letters.
    found = [deployment("kube-controller-manager", "1.100.0"), deployment("kube-scheduler", "1.99.0")]
    assert recorded(found).controllers.version == "1.99.0"


def test_masters_without_replicas_do_not_run() -> None:
    asleep = deployment("kube-apiserver", OLD)
    asleep["spec"] |= {"replicas": 0}
    asleep["status"] |= {"replicas": 0, "updatedReplicas": 0, "readyReplicas": 0}
    assert recorded([asleep]).api == Part(OLD, runs=False)
    assert next_versions(spec(OLD), replace(recorded([asleep]), controllers=Part(OLD))).verdict.stage is Stage.DONE
