"""What happened to clusters, as the REST API tells it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from haneul.dkos.events import Reason, event
from tests.functional.api.application import START, Api

EVENTS = "/projects/shop/clusters/web/events"


@pytest.fixture
async def told(api: Api) -> Api:
    """The application, with a cluster to which something happened."""
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    cluster = await api.store.get("shop", "web")
    for number in range(3):
        ready = event(Reason.NODE_READY, f"node default-{number} is ready")
        await api.events.record(cluster, ready, times=1, last=START + timedelta(seconds=number))
    refused = event(Reason.NODE_CERTIFICATE_REFUSED, "eve got no certificate of a node: no")
    await api.events.record(cluster, refused, times=2, last=START + timedelta(seconds=9))
    return api


async def test_newest_come_last_with_all_that_is_known(told: Api) -> None:
    items = (await told.call("alice", "GET", EVENTS))["items"]
    assert [entry["reason"] for entry in items] == ["NodeReady"] * 3 + ["NodeCertificateRefused"]
    assert {key: value for key, value in items[-1].items() if key != "name"} == {
        "type": "Warning",
        "reason": "NodeCertificateRefused",
        "message": "eve got no certificate of a node: no",
        "count": 2,
        "firstSeen": "2026-11-24T09:00:09Z",
        "lastSeen": "2026-11-24T09:00:09Z",
    }


async def test_of_many_the_newest_are_shown(told: Api) -> None:
    items = (await told.call("alice", "GET", f"{EVENTS}?limit=2"))["items"]
    assert [entry["reason"] for entry in items] == ["NodeReady", "NodeCertificateRefused"]
    assert items[0]["message"] == "node default-2 is ready"
    for limit in (0, 501):
        await told.call("alice", "GET", f"{EVENTS}?limit={limit}", status=422)


async def test_a_cluster_to_which_nothing_happened_has_no_events(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    assert await api.call("alice", "GET", EVENTS) == {"items": []}


async def test_who_sees_the_cluster_sees_its_events_and_nobody_else(told: Api) -> None:
    await told.call("bob", "GET", EVENTS, status=404)
    await told.call("", "GET", EVENTS, status=401)
    await told.call("alice", "PUT", "/projects/shop/members/bob", {"role": "viewer"})
    assert len((await told.call("bob", "GET", EVENTS))["items"]) == 4


@pytest.mark.parametrize("name", ["absent", "..", "web?x", "Web"])
async def test_what_is_no_cluster_has_no_events(told: Api, name: str) -> None:
    path = f"/projects/shop/clusters/{name.replace('?', '%3F').replace('..', '%2E%2E')}/events"
    await told.call("alice", "GET", path, status=404)


async def test_a_cluster_of_the_same_name_starts_anew(told: Api) -> None:
    await told.call("alice", "DELETE", "/projects/shop/clusters/web", status=202)
    await told.call("alice", "GET", EVENTS, status=404)
    await told.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    assert await told.call("alice", "GET", EVENTS) == {"items": []}
