"""What is kept of clusters' objects, how it is counted, and when a cluster has too many."""

from __future__ import annotations

from typing import Any

import pytest

from haneul.dkos.readers import BALANCER, INGRESS
from haneul.kernel.kube import ENDPOINT_SLICES, PODS, SERVICES, Manifest
from haneul.kernel.kube_budget import Budget, Ledger, OverBudgetError, over_budget, trimmed


def named(name: str, **more: Any) -> Manifest:
    return {"metadata": {"name": name, "namespace": "shop", **more}}


def test_what_nobody_reads_is_not_kept() -> None:
    annotations = {"balancer.haneul.dev/pool": "inner", "note": "x" * 1000, "haneul.dev/gate": "on"}
    service = {**named("web", annotations=annotations, managedFields=[{"manager": "m"}], labels={"a": "b"}), "spec": {}}
    assert trimmed(SERVICES, service, BALANCER.annotations) == {
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "labels": {"a": "b"},
            "annotations": {"balancer.haneul.dev/pool": "inner"},
        },
        "spec": {},
    }
    assert trimmed(SERVICES, service, ())["metadata"].get("annotations") is None
    assert trimmed(SERVICES, service, INGRESS.annotations)["metadata"]["annotations"] == {"haneul.dev/gate": "on"}
    # What was given is as it was.
    assert service["metadata"]["managedFields"]


def test_of_a_pod_images_and_addresses_are_kept() -> None:
    pod = {
        **named("p"),
        "spec": {
            "containers": [{"name": "c", "image": "i@sha256:1", "env": [{"name": "A", "value": "x" * 1000}]}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "image": {"reference": "r@sha256:2"}}],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.1.0.1",
            "podIPs": [{"ip": "10.1.0.1"}],
            "containerStatuses": [{"name": "c", "imageID": "i@sha256:1", "state": {"running": {}}}],
            "message": "x" * 1000,
        },
    }
    kept = trimmed(PODS, pod, ())
    assert kept["spec"] == {
        "containers": [{"image": "i@sha256:1"}],
        "volumes": [{"image": {"reference": "r@sha256:2"}}],
    }
    assert kept["status"] == {
        "phase": "Running",
        "podIP": "10.1.0.1",
        "podIPs": [{"ip": "10.1.0.1"}],
        "containerStatuses": [{"imageID": "i@sha256:1"}],
    }


def test_objects_are_counted_as_they_come_change_and_go() -> None:
    account = Ledger(Budget(objects=2)).open()
    account.keep("services", SERVICES, named("a"))
    account.keep("services", SERVICES, named("b"))
    account.keep("services", SERVICES, named("b", labels={"x": "y"}))
    with pytest.raises(OverBudgetError, match="more than 2 objects: 2 services"):
        account.keep("endpointslices", ENDPOINT_SLICES, named("c"))
    account.drop("endpointslices", ("shop", "c"))
    account.drop("services", ("shop", "a"))
    account.drop("services", ("shop", "never"))
    account.keep("endpointslices", ENDPOINT_SLICES, named("c"))
    # A list begins anew, whatever there was before.
    account.begin("services")
    account.keep("services", SERVICES, named("d"))


def test_octets_are_counted_of_what_is_kept() -> None:
    account = Ledger(Budget(octets=2000)).open()
    account.keep("services", SERVICES, named("a", annotations={"note": "x" * 10_000}))
    assert account.octets < 100
    with pytest.raises(OverBudgetError, match="more than 1 KiB in all"):
        account.keep("services", SERVICES, named("b", labels={f"l{n}": "x" * 63 for n in range(40)}))


def test_a_cluster_within_its_share_is_never_stopped_for_what_others_have() -> None:
    ledger = Ledger(Budget(octets=5000, shared=6000))
    first, second, third = (ledger.open() for _ in range(3))

    def large(name: str) -> Manifest:
        return named(name, labels={"l": "x" * 900})

    for name in "abcd":
        first.keep("services", SERVICES, large(name))
    second.keep("services", SERVICES, large("a"))
    third.keep("services", SERVICES, large("a"))
    # All have 6 of 6 kB; who has more than 2 has no more room, and who has less has.
    second.keep("services", SERVICES, large("b"))
    with pytest.raises(OverBudgetError, match="more than 1 KiB in all"):
        first.keep("services", SERVICES, large("e"))
    first.close()
    # What it had is nobody's now.
    second.keep("services", SERVICES, large("c"))
    third.keep("services", SERVICES, large("b"))


def test_it_is_found_among_other_errors() -> None:
    account = Ledger(Budget(objects=0)).open()
    with pytest.raises(OverBudgetError) as caught:
        account.keep("services", SERVICES, named("a"))
    assert over_budget(ExceptionGroup("", [ValueError(), ExceptionGroup("", [caught.value])])) is caught.value
    assert over_budget(ExceptionGroup("", [ValueError()])) is None
    assert over_budget(caught.value) is caught.value
