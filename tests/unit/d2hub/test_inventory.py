"""What a cluster's pods say that it runs, and what a hub takes as a report."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from haneul.d2hub.errors import NameInvalidError, RequestInvalidError
from haneul.d2hub.inventory import MOST_ENTRIES, Running, Use, described, parse_cluster, parse_running, shown_to
from haneul.d2hub.reporting import images_of, running_in, workload_of
from haneul.kernel.kube import NAMESPACES, PODS
from haneul.kernel.kube_memory import MemoryKubeClient

NOW = datetime(2026, 11, 27, tzinfo=UTC)
ONE, TWO, THREE = (f"sha256:{number:064x}" for number in (1, 2, 3))


def pod(name: str = "web-1", *, owner: tuple[str, str] | None = None, mark: str = "", **parts: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": "web"}
    if owner is not None:
        other = {"kind": "Something", "name": "else"}
        metadata["ownerReferences"] = [other, {"kind": owner[0], "name": owner[1], "controller": True}]
    if mark:
        metadata["labels"] = {"pod-template-hash": mark}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, **parts}


def pulled(*texts: str, phase: str = "Running") -> dict[str, Any]:
    return {"phase": phase, "containerStatuses": [{"imageID": text} for text in texts]}


@pytest.mark.parametrize(
    ("made", "workload"),
    [
        (pod(), "Pod/web-1"),
        (pod(owner=("ReplicaSet", "web-6d4f"), mark="6d4f"), "Deployment/web"),
        (pod(owner=("ReplicaSet", "web-6d4f")), "ReplicaSet/web-6d4f"),
        (pod(owner=("ReplicaSet", "web"), mark="6d4f"), "ReplicaSet/web"),
        (pod(owner=("StatefulSet", "db")), "StatefulSet/db"),
        (pod(owner=("DaemonSet", "agent")), "DaemonSet/agent"),
        (pod(owner=("Job", "backup-28")), "Job/backup-28"),
        # Whoever makes a pod may write what no report may say.
        (pod(owner=("Foo-bar", "X Y")), "Pod/web-1"),
        (pod(owner=("Node", "worker-1.example.com")), "Node/worker-1.example.com"),
    ],
)
def test_what_a_pod_belongs_to(made: dict[str, Any], workload: str) -> None:
    assert workload_of(made) == workload


def test_every_container_counts() -> None:
    status = {
        "phase": "Running",
        "containerStatuses": [{"imageID": f"hub.test:5443/shop/web@{ONE}"}, {"imageID": ""}, {}],
        "initContainerStatuses": [{"imageID": f"docker.io/library/debian@{TWO}"}],
        "ephemeralContainerStatuses": [{"imageID": THREE}],
    }
    assert {one.digest for one in images_of([pod(status=status)])} == {ONE, TWO, THREE}


def test_what_a_pod_asks_for_by_digest_counts_before_it_is_there() -> None:
    spec = {
        "containers": [{"image": f"hub.test/shop/web:v1@{ONE}"}, {"image": "hub.test/shop/web:v1"}],
        "initContainers": [{"image": f"hub.test/shop/init@{TWO}"}],
        "volumes": [{"name": "data", "image": {"reference": f"hub.test/shop/data@{THREE}"}}, {"name": "other"}],
    }
    found = images_of([pod(spec=spec, status={"phase": "Pending"})])
    assert found == {Running("web", "Pod/web-1", named) for named in (ONE, TWO, THREE)}


@pytest.mark.parametrize("text", ["sha256:abc", f"x{ONE}", f"{ONE}0", "docker-pullable://", "md5:" + "0" * 32])
def test_what_is_no_digest(text: str) -> None:
    assert images_of([pod(status=pulled(text))]) == frozenset()


def test_pods_that_have_ended_run_nothing() -> None:
    ended = [pod(status=pulled(ONE, phase=phase)) for phase in ("Succeeded", "Failed")]
    assert images_of(ended) == frozenset()
    assert images_of([*ended, pod(status=pulled(ONE, phase="Unknown"))])


async def test_all_namespaces_of_a_cluster() -> None:
    kube = MemoryKubeClient()
    for namespace in ("web", "lab"):
        await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        made = pod(spec={"containers": [{"name": "web", "image": f"hub.test/shop/web@{ONE}"}]})
        made["metadata"]["namespace"] = namespace
        await kube.create(PODS, made)
    assert {one.namespace for one in await running_in(kube)} == {"web", "lab"}


def test_a_report() -> None:
    entry = {"namespace": "web", "workload": "Deployment/web", "digest": ONE}
    assert parse_running({"images": [entry, entry]}) == {Running("web", "Deployment/web", ONE)}
    assert parse_running({"images": []}) == frozenset()


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"images": {}},
        {"images": ["x"]},
        {"images": [{"namespace": "web", "workload": "Deployment/web"}]},
        {"images": [{"namespace": "web", "workload": "Deployment/web", "digest": 7}]},
        {"images": [{"namespace": "web", "workload": "Deployment/web", "digest": "v1"}]},
        {"images": [{"namespace": "Web", "workload": "Deployment/web", "digest": ONE}]},
        {"images": [{"namespace": "web", "workload": "web", "digest": ONE}]},
        {"images": [{"namespace": "web", "workload": "Deployment/web\n", "digest": ONE}]},
        {"images": [{"namespace": "web", "workload": "Deployment/" + "x" * 254, "digest": ONE}]},
        {"images": [{}] * (MOST_ENTRIES + 1)},
    ],
)
def test_reports_that_are_none(document: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalidError):
        parse_running(document)


@pytest.mark.parametrize(
    "name", ["prod", "shop/", "/prod", "shop/prod/x", "Shop/prod", "shop/..", "shop/pr od", "a" * 64]
)
def test_names_that_are_no_clusters(name: str) -> None:
    with pytest.raises(NameInvalidError):
        parse_cluster(name)


def test_who_uses_an_image_in_words() -> None:
    uses = [Use("shop/prod", Running("web", f"Deployment/web-{n}", ONE), NOW) for n in range(4)]
    assert described("shop", uses[:1]) == "Deployment/web-0 in namespace web of shop/prod"
    assert described("shop", uses).endswith("Deployment/web-2 in namespace web of shop/prod and others")


def test_what_others_call_their_workloads_is_not_told() -> None:
    foreign = [Use("bank/prod", Running("vault", "Deployment/secret", ONE), NOW)]
    own = [Use("shop/prod", Running("web", f"Deployment/web-{n}", ONE), NOW) for n in range(4)]
    assert shown_to("shop", foreign) == ([], 1)
    assert shown_to("shop", [*foreign, own[0]]) == ([own[0]], 1)
    assert described("shop", foreign) == "in other projects' clusters"
    told = described("shop", [own[0], *foreign])
    assert told == "Deployment/web-0 in namespace web of shop/prod and other projects' clusters"
    assert described("shop", [*own, *foreign]).endswith("web of shop/prod, others and other projects' clusters")
