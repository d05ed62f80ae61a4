"""Telling what the API remembers from what runs."""

from typing import Any

import pytest

from haneul.management.reports import outdated_counts, outdated_pods, running_tasks

LISTING = """\
TASK       PID       STATUS
aaa        1733      RUNNING
bbb        0         STOPPED
"""


def pod(name: str = "web", *, container: str = "aaa", ready: bool = True, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "kube-system", "labels": {"app": "web", "hash": "1"}},
        "spec": {"nodeName": "node-1", **spec},
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"containerID": f"containerd://{container}", "state": {"running": {}}}],
        },
    }


def deployment(ready: int, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "namespace": "kube-system"},
        "spec": {"selector": {"matchLabels": labels or {"app": "web"}}},
        "status": {"readyReplicas": ready} if ready else {},
    }


def test_only_running_tasks_count() -> None:
    assert running_tasks(LISTING) == {"aaa"}
    assert running_tasks("") == frozenset()


def test_a_pod_whose_container_is_gone_is_outdated() -> None:
    assert outdated_pods([pod(container="bbb")], host="node-1", running={"aaa"}) == ["kube-system/web"]
    assert outdated_pods([pod()], host="node-1", running={"aaa"}) == []


def test_pods_of_other_hosts_and_pods_not_started_cannot_be_judged() -> None:
    waiting = pod(container="bbb")
    waiting["status"]["containerStatuses"][0]["state"] = {"waiting": {}}
    unseen = {"metadata": {"name": "x", "namespace": "y"}, "spec": {}}
    elsewhere = pod(container="bbb", nodeName="node-2")
    assert outdated_pods([waiting, unseen, elsewhere], host="node-1", running=set()) == []


@pytest.mark.parametrize(
    ("owner", "pods", "outdated"),
    [
        (deployment(1), [pod()], False),
        (deployment(1), [pod(ready=False)], True),
        (deployment(0), [pod(ready=False)], False),
        (deployment(0), [], False),
        (deployment(2), [pod("a"), pod("b")], False),
        (deployment(1), [], True),
        (deployment(0, app="other"), [pod()], False),
    ],
)
def test_counts_are_compared_with_pods(owner: dict[str, Any], pods: list[dict[str, Any]], outdated: bool) -> None:
    assert outdated_counts([owner], pods) == (["kube-system/web"] if outdated else [])


def test_daemon_sets_count_in_another_field() -> None:
    agents = deployment(0)
    agents["status"] = {"numberReady": 1}
    assert outdated_counts([agents], [pod()]) == []
