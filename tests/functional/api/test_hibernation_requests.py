"""Hibernating and waking through the REST API: who may, what is written down, and what sleep counts for."""

from __future__ import annotations

from haneul.app.cluster_usage import ClusterSightings
from haneul.dkos.model import ClusterStatus, Phase
from haneul.usage.model import Shape
from tests.functional.api.application import Api

CLUSTER = "/projects/shop/clusters/web"


async def test_developers_let_a_cluster_sleep_and_wake_and_it_is_recorded(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    await api.call("bob", "POST", f"{CLUSTER}/hibernate", status=404)
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "viewer"})
    for action in ("hibernate", "wake"):
        await api.call("bob", "POST", f"{CLUSTER}/{action}", status=403)
    asleep = await api.call("alice", "POST", f"{CLUSTER}/hibernate", status=202)
    assert asleep["spec"]["hibernation"]["asleep"]
    api.clock.advance(60)
    awake = await api.call("alice", "POST", f"{CLUSTER}/wake", status=202)
    assert not awake["spec"]["hibernation"]["asleep"]
    assert awake["spec"]["hibernation"]["asked"] > asleep["spec"]["hibernation"]["asked"]
    assert awake["generation"] == asleep["generation"] + 1
    actions = [entry["action"] for entry in (await api.call("admin", "GET", "/audit"))["items"]]
    assert actions[:2] == ["cluster.wake", "cluster.hibernate"]


async def test_schedule_is_a_setting_and_asking_by_patch_counts_from_now(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    rule = {"sleep": "0 20 * * 1-5", "wake": "0 7 * * 1-5", "zone": "Europe/Berlin"}
    made = await api.call("alice", "PATCH", CLUSTER, {"hibernation": {"schedule": [rule]}})
    assert made["spec"]["hibernation"]["schedule"] == [rule]
    api.clock.advance(60)
    for ahead in ({}, {"asked": "2099-01-01T00:00:00Z"}):
        made = await api.call("alice", "PATCH", CLUSTER, {"hibernation": {"asleep": True, **ahead}})
        assert made["spec"]["hibernation"]["asked"][:19] == api.clock.now().isoformat()[:19]
    assert made["spec"]["hibernation"]["schedule"] == [rule]
    for wrong in ({"sleep": "* * * * *"}, {"sleep": "0 20 * * *", "zone": "Moon"}, {"wake": "0 7 * * *"}):
        refused = await api.send("alice", "PATCH", CLUSTER, json={"hibernation": {"schedule": [wrong]}})
        assert refused.status_code == 422
    assert (await api.call("alice", "GET", CLUSTER))["spec"]["hibernation"]["schedule"] == [rule]


async def test_sleeping_cluster_keeps_its_quota_and_uses_nothing(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    before = await api.call("alice", "GET", "/projects/shop/quota")
    awake = (await ClusterSightings(api.store).look())[0]
    assert awake.shape.nodes == 1
    cluster = await api.store.get("shop", "web")
    api.store._keep("modified", cluster.model_copy(update={"status": ClusterStatus(phase=Phase.ASLEEP)}))
    assert await api.call("alice", "GET", "/projects/shop/quota") == before
    asleep = (await ClusterSightings(api.store).look())[0]
    assert (asleep.uid, asleep.shape) == (awake.uid, Shape(0, 0, 0))


async def test_sleeping_cluster_gets_no_new_authorities(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    cluster = await api.store.get("shop", "web")
    api.store._keep("modified", cluster.model_copy(update={"status": ClusterStatus(phase=Phase.ASLEEP)}))
    refused = await api.send("alice", "POST", f"{CLUSTER}/rotate-authorities", json={})
    assert (refused.status_code, refused.json()["detail"]) == (409, "web sleeps")
