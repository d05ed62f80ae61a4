"""What is kept of clusters' objects, how it is counted, and when a cluster has too many."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.dkos.readers import BALANCER, INGRESS
from haneul.kernel.kube import ENDPOINT_SLICES, PODS, SECRETS, SERVICES, KubeAccess, Manifest
from haneul.kernel.kube_budget import Account, Budget, Ledger, OverBudgetError, even_share, over_budget, trimmed
from haneul.kernel.kube_http import HttpKubeClient


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


def test_of_a_secret_only_what_is_asked_for_is_kept_and_counted() -> None:
    account = Ledger(Budget(octets=2000)).open("shop", secret_keys=("tls.crt",))
    kept = account.keep("secrets", SECRETS, {**named("web"), "data": {"tls.crt": "Yw==", "release": "x" * 10_000}})
    assert kept["data"] == {"tls.crt": "Yw=="}
    assert account.octets < 200


def test_objects_are_counted_as_they_come_change_and_go() -> None:
    account = Ledger(Budget(objects=2)).open("shop")
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
    account = Ledger(Budget(octets=2000)).open("shop")
    account.keep("services", SERVICES, named("a", annotations={"note": "x" * 10_000}))
    assert account.octets < 100
    with pytest.raises(OverBudgetError, match="more than 1 KiB in all"):
        account.keep("services", SERVICES, named("b", labels={f"l{n}": "x" * 63 for n in range(40)}))


def fill(account: Account, octets: int, *, name: str = "a") -> None:
    """Have a cluster's account count about so many octets."""
    account.keep("services", SERVICES, named(name, labels={"l": "x" * (octets - 70)}))


def test_a_project_within_its_share_is_never_stopped_for_what_others_have() -> None:
    ledger = Ledger(Budget(octets=5000, shared=6000))
    large, other, third = (ledger.open(project) for project in ("shop", "team", "club"))
    fill(large, 4000)
    fill(other, 1000)
    fill(third, 1000)
    # Beyond the bound, who has more than what the others leave has no more room, and who has less has.
    fill(other, 1500)
    with pytest.raises(OverBudgetError, match="more than 3 KiB in all"):
        fill(large, 100, name="b")
    large.close()
    # What it had is nobody's now.
    fill(other, 4500)
    fill(third, 1400)


def test_many_clusters_of_one_project_do_no_more_than_one() -> None:
    ledger = Ledger(Budget(octets=20_000, shared=24_000))
    quiet = [ledger.open("hostile") for _ in range(20)]
    for account in quiet:
        fill(account, 1150)
    honest, small = ledger.open("honest"), ledger.open("hostile")
    # It has the half of all, whatever the number of clusters that the other project has.
    fill(honest, 11_900)
    fill(honest, 11_950)
    with pytest.raises(OverBudgetError):
        fill(quiet[0], 1160)
    # Of a project beyond its share, a cluster within its part of that goes on.
    fill(small, 300)


def test_quiet_clusters_that_bring_all_beyond_the_bound_stop_nobody_within_its_share() -> None:
    ledger = Ledger(Budget(octets=24_000, shared=24_000))
    first, second, honest = (ledger.open(project) for project in ("a", "b", "c"))
    fill(first, 12_000)
    fill(second, 12_000)
    fill(honest, 7_000)
    fill(honest, 7_900)
    for account in (first, second):
        with pytest.raises(OverBudgetError):
            fill(account, 12_100)


def test_one_large_cluster_is_followed_beside_many_small_ones() -> None:
    ledger = Ledger()
    large, small = ledger.open("large"), [ledger.open(f"small-{number}") for number in range(12)]
    for number in range(180):
        fill(large, 100_000, name=f"s{number}")
    for _ in range(2):
        for number, account in enumerate(small):
            fill(account, 500_000)
            fill(large, 100_000, name=f"s{number}")
    assert large.octets + sum(account.octets for account in small) < ledger.budget.shared
    # Beyond the bound two large ones have what the small ones leave: an even part by count were not two megabytes.
    other = ledger.open("other")
    for number in range(90):
        fill(other, 100_000, name=f"s{number}")
    with pytest.raises(OverBudgetError, match="more than 9"):
        fill(large, 100_001, name="s0")
    for number in range(92, 180):
        large.drop("services", ("shop", f"s{number}"))
    for number in range(90, 95):
        fill(other, 100_000, name=f"s{number}")
    fill(small[0], 600_000, name="b")
    assert ledger.octets > ledger.budget.shared
    fill(large, 100_010, name="s0")


@given(st.lists(st.integers(0, 100), max_size=8), st.integers(0, 200))
def test_an_even_share_is_the_largest_of_which_all_have_enough_together(needs: list[int], total: int) -> None:
    share = even_share(total, needs)
    assert sum(min(need, share) for need in needs) <= total
    if sum(needs) > total:
        # One more would be too much, but for what cannot be parted.
        assert sum(min(need, share + 1) for need in needs) > total
        assert share >= total // len(needs)
    else:
        assert all(need <= share for need in needs)


def test_a_list_that_breaks_off_takes_nothing_from_what_is_counted() -> None:
    account = Ledger(Budget(objects=3)).open("shop")
    for name in "abc":
        account.keep("services", SERVICES, named(name))
    octets = account.octets
    before = account.begin("services")
    account.keep("services", SERVICES, named("a"))
    account.resume("services", before)
    assert account.octets == octets
    before = account.begin("services")
    account.keep("services", SERVICES, named("d"))
    with pytest.raises(OverBudgetError, match="4 services"):
        account.resume("services", before)


async def test_of_connections_that_ended_nothing_is_counted() -> None:
    ledger = Ledger(Budget(octets=2000, shared=2000))
    for _ in range(50):
        account = ledger.open("shop")
        with contextlib.suppress(OverBudgetError):
            async with HttpKubeClient(KubeAccess("https://a", b""), account=account):
                fill(account, 1500)
                fill(account, 2500)
        assert account.octets > 2000 and ledger.octets == 0
    assert ledger.share("shop") == 2000


def test_it_is_found_among_other_errors() -> None:
    account = Ledger(Budget(objects=0)).open("shop")
    with pytest.raises(OverBudgetError) as caught:
        account.keep("services", SERVICES, named("a"))
    assert over_budget(ExceptionGroup("", [ValueError(), ExceptionGroup("", [caught.value])])) is caught.value
    assert over_budget(ExceptionGroup("", [ValueError()])) is None
    assert over_budget(caught.value) is caught.value
