"""What a cluster wants, followed object by object."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from haneul.dns.model import ClusterDomain, Key
from haneul.dns.wanted import Wanted
from haneul.kernel.kube import ENDPOINT_SLICES, INGRESSES, PODS, SERVICES, Manifest, Resource
from haneul.kernel.kube_objects import Place, place_of
from tests.unit.dns.objects import endpoint, headless, ingress, pod, service, slice_of

DOMAIN = ClusterDomain.of("first", "zone")
WEB = "web.shop.svc.first.zone."
RESOURCES = {"Ingress": INGRESSES, "Service": SERVICES, "EndpointSlice": ENDPOINT_SLICES, "Pod": PODS}


def resource_of(manifest: Manifest) -> Resource:
    return RESOURCES[manifest["kind"]]


def seen(*manifests: Manifest, pods: bool = True) -> Wanted:
    wanted = Wanted(DOMAIN, pods=pods)
    for manifest in manifests:
        wanted.see(resource_of(manifest), manifest, 0.0)
    return wanted


def test_names_are_noted_once_with_the_first_moment() -> None:
    wanted = Wanted(DOMAIN)
    assert list(wanted.changed()) == ["dns-version.first.zone."]
    wanted.see(SERVICES, service("web", "10.3.0.1"), 1.0)
    wanted.see(SERVICES, service("web", "10.3.0.2"), 2.0)
    changed = wanted.changed()
    assert (changed[WEB], changed["2.0.3.10.in-addr.arpa."]) == (1.0, 2.0)
    # What came and went again before anybody looked is compared with the zone like anything else.
    assert changed["1.0.3.10.in-addr.arpa."] == 1.0
    assert wanted.changed() == {}


def test_a_status_that_changes_changes_no_records() -> None:
    wanted = seen(service("web", "10.3.0.1"))
    wanted.changed()
    wanted.see(SERVICES, {**service("web", "10.3.0.1"), "status": {"conditions": []}}, 3.0)
    assert wanted.changed() == {}


def test_a_service_that_goes_takes_its_records() -> None:
    wanted = seen(service("web", "10.3.0.1"))
    assert Key(WEB, "A") in wanted.records()
    wanted.forget(Place("Service", "shop", "web"), 4.0)
    assert wanted.records(["web"]) == {}
    assert [key.name for key in wanted.records()] == ["dns-version.first.zone."]


def test_slices_may_come_before_their_service_and_move_to_another() -> None:
    piece = slice_of("db", endpoint("10.4.0.1", hostname="db-0"))
    wanted = seen(piece, headless("db"), headless("all"))
    assert Key("db-0.db.shop.svc.first.zone.", "A") in wanted.records()
    moved = {**piece, "metadata": {**piece["metadata"], "labels": {"kubernetes.io/service-name": "all"}}}
    wanted.see(ENDPOINT_SLICES, moved, 5.0)
    found = {key.name for key in wanted.records()}
    assert "db-0.all.shop.svc.first.zone." in found
    assert "db-0.db.shop.svc.first.zone." not in found


def test_a_list_removes_what_it_leaves_out_except_what_was_heard_of_meanwhile() -> None:
    wanted = seen(service("web", "10.3.0.1"), service("old", "10.3.0.2"), service("new", "10.3.0.3"))
    heard = {Place("Service", "shop", "new"), Place("Service", "shop", "gone")}
    wanted.replace(SERVICES, [service("web", "10.3.0.9"), service("gone", "10.3.0.4")], heard, 6.0)
    assert [place.name for place in sorted(wanted.services())] == ["new", "web"]
    assert wanted.records([WEB])[Key(WEB, "A")].values == ("10.3.0.9",)


def test_without_pods_only_services_and_ingress_matter() -> None:
    assert seen(pods=False).resources == (SERVICES, ENDPOINT_SLICES, INGRESSES)


ADDRESS = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"])
OBJECTS = st.one_of(
    st.builds(service, st.sampled_from("ab"), ADDRESS),
    st.builds(headless, st.sampled_from("ab")),
    st.builds(
        lambda name, of, address, ready: slice_of(of, endpoint(address, ready=ready), name=name),
        st.sampled_from("xy"),
        st.sampled_from("ab"),
        ADDRESS,
        st.booleans(),
    ),
    st.builds(pod, st.sampled_from("pq"), ADDRESS),
)


@given(st.lists(st.tuples(OBJECTS, st.booleans()), max_size=20))
def test_following_changes_comes_to_what_looking_anew_does(steps: list[tuple[Manifest, bool]]) -> None:
    followed = Wanted(DOMAIN)
    there: dict[Place, Manifest] = {}
    shown: dict[Key, Any] = {}
    for manifest, goes in steps:
        place = place_of(resource_of(manifest), manifest)
        if goes:
            there.pop(place, None)
            followed.forget(place, 0.0)
        else:
            there[place] = manifest
            followed.see(resource_of(manifest), manifest, 0.0)
        # Whoever follows the names that changed knows all.
        names = set(followed.changed())
        shown = {key: one for key, one in shown.items() if key.name not in names} | followed.records(names)
    anew = seen(*there.values())
    assert followed.records() == anew.records()
    assert {key: one for key, one in anew.records().items() if not key.name.startswith("dns-version")} == {
        key: one for key, one in shown.items() if not key.name.startswith("dns-version")
    }


def test_an_ingress_that_is_served_elsewhere_now_moves_its_names() -> None:
    wanted = seen(ingress("web.first.zone", served_at=["10.198.0.1"]))
    key = Key("web.first.zone.", "A")
    assert wanted.records()[key].values == ("10.198.0.1",)
    wanted.see(INGRESSES, ingress("web.first.zone", served_at=["10.198.0.2"]), 1.0)
    assert wanted.records()[key].values == ("10.198.0.2",)
    wanted.forget(place_of(INGRESSES, ingress()), 2.0)
    assert key not in wanted.records()
