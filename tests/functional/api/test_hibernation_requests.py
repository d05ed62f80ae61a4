"""Hibernating and waking through the REST API: who may, what is written down, and what sleep counts for."""

from __future__ import annotations

import pytest

from haneul.app.cluster_usage import ClusterSightings
from haneul.dkos.model import ClusterStatus, Phase
from haneul.dkos.quota import MASTERS_MEMORY_MIB, QuotaLimits
from haneul.usage.model import Shape
from tests.functional.api.application import Api

CLUSTER = "/projects/shop/clusters/web"


async def becomes(api: Api, phase: Phase) -> None:
    """Bring the cluster into a phase, as the operator does."""
    cluster = await api.store.get("shop", "web")
    milestones = {} if phase is Phase.CREATING else {"ready": 9.0}
    status = ClusterStatus(phase=phase, observed_generation=cluster.generation, milestones=milestones)
    api.store._keep("modified", cluster.model_copy(update={"status": status}))


async def test_developers_let_a_cluster_sleep_and_wake_and_it_is_recorded(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    await becomes(api, Phase.READY)
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
    assert actions[:4] == ["cluster.wake"] * 2 + ["cluster.hibernate"] * 2
    # So is who was refused it.
    refused = [
        (entry["action"], entry["person"])
        for entry in (await api.call("admin", "GET", "/audit"))["items"]
        if entry["result"].startswith("refused") and entry["action"] in ("cluster.wake", "cluster.hibernate")
    ]
    assert refused == [("cluster.wake", "bob"), ("cluster.hibernate", "bob"), ("cluster.hibernate", "bob")]


async def test_schedule_is_a_setting_and_asking_by_patch_counts_from_now(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    await becomes(api, Phase.READY)
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
    # A moment without a time zone is no moment.
    refused = await api.send("alice", "PATCH", CLUSTER, json={"hibernation": {"asked": "2026-11-24T09:00:00"}})
    assert refused.status_code == 422
    assert (await api.call("alice", "GET", CLUSTER))["spec"]["hibernation"]["schedule"] == [rule]


@pytest.mark.parametrize(("phase", "words"), [(Phase.CREATING, "being made"), (Phase.UPDATING, "being changed")])
async def test_cluster_in_the_middle_of_something_is_not_put_to_sleep(api: Api, phase: Phase, words: str) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    await becomes(api, phase)
    for method, path, body in (
        ("POST", f"{CLUSTER}/hibernate", None),
        ("PATCH", CLUSTER, {"hibernation": {"asleep": True}}),
    ):
        refused = await api.send("alice", method, path, json=body)
        assert refused.status_code == 409
        assert words in refused.json()["detail"]
        assert "--wait" in refused.json()["hint"]
    # Waking changes nothing of what is under way.
    await api.call("alice", "POST", f"{CLUSTER}/wake", status=202)


async def test_sleeping_cluster_counts_by_its_name_alone_and_wakes_only_where_there_is_room(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    await api.store.set_quota("shop", QuotaLimits(clusters=2, nodes=1, memory_mib=2048 + MASTERS_MEMORY_MIB))

    async def used() -> dict[str, float]:
        quota = await api.call("alice", "GET", "/projects/shop/quota")
        return {line["resource"]: line["used"] for line in quota["lines"]}

    awake = await used()
    assert (awake["clusters"], awake["nodes"]) == (1, 1)
    await becomes(api, Phase.READY)
    await api.call("alice", "POST", f"{CLUSTER}/hibernate", status=202)
    # What still runs still counts.
    assert await used() == awake
    await becomes(api, Phase.ASLEEP)
    assert await used() == {**dict.fromkeys(awake, 0), "clusters": 1}
    assert [seen.shape for seen in await ClusterSightings(api.store).look()] == [Shape(0, 0, 0)]
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "other"}, status=201)
    refused = await api.send("alice", "POST", f"{CLUSTER}/wake")
    assert (refused.status_code, refused.json()["code"]) == (403, "quota-exceeded")
    # It may grow while it sleeps, as far as nobody else is concerned.
    await api.call("alice", "PATCH", CLUSTER, {"nodePools": [{"name": "default", "count": 1, "memoryMib": 1024}]})
    await api.call("alice", "DELETE", "/projects/shop/clusters/other", status=202)
    await becomes(api, Phase.ASLEEP)
    await api.call("alice", "POST", f"{CLUSTER}/wake", status=202)
    assert (await used())["nodes"] == 1


async def test_sleeping_cluster_gets_no_new_authorities(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    cluster = await api.store.get("shop", "web")
    api.store._keep("modified", cluster.model_copy(update={"status": ClusterStatus(phase=Phase.ASLEEP)}))
    refused = await api.send("alice", "POST", f"{CLUSTER}/rotate-authorities", json={})
    assert (refused.status_code, refused.json()["detail"]) == (409, "web sleeps")
