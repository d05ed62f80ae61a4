"""Asking for another version: what is offered, what would come of it, who may, what is refused and written down."""

from __future__ import annotations

from typing import Any

import pytest

from haneul.dkos.model import ClusterStatus, Phase
from haneul.dkos.releases import VERSIONS
from tests.functional.api.application import Api

NEW, OLD = VERSIONS
CLUSTER = "/projects/shop/clusters/web"
UPGRADE = f"{CLUSTER}/upgrade"


async def make(api: Api, name: str = "web", version: str = OLD) -> None:
    """Let a cluster be there and ready."""
    body = {"name": name, "spec": {"version": version}}
    await api.call("alice", "POST", "/projects/shop/clusters", body, status=201)
    await see(api, name, version)


async def see(api: Api, name: str, version: str, phase: Phase = Phase.READY) -> None:
    cluster = await api.store.get("shop", name)
    seen = ClusterStatus(
        phase=phase, version=version, observed_generation=cluster.generation, milestones={"ready": 1.0}
    )
    api.store._keep("modified", cluster.model_copy(update={"status": seen}))


async def spec(api: Api) -> tuple[str, str, int]:
    cluster = await api.store.get("shop", "web")
    return cluster.spec.version, cluster.spec.node_version, cluster.generation


async def test_everybody_who_is_signed_in_sees_what_is_offered(api: Api) -> None:
    offered = await api.call("bob", "GET", "/kubernetes-versions")
    assert offered == {"items": [{"version": NEW, "state": "default"}, {"version": OLD, "state": "deprecated"}]}
    await api.call("nobody", "GET", "/kubernetes-versions", status=401)


async def test_developers_ask_for_the_next_version_and_it_is_recorded(api: Api) -> None:
    await make(api)
    await api.call("bob", "POST", UPGRADE, {"version": NEW}, status=404)
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "viewer"})
    await api.call("bob", "POST", UPGRADE, {"version": NEW}, status=403)
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "developer"})
    made = await api.call("bob", "POST", UPGRADE, {"version": NEW}, status=202)
    assert (made["spec"]["version"], made["spec"]["nodeVersion"]) == (NEW, "")
    record = (await api.call("admin", "GET", "/audit"))["items"][0]
    assert (record["person"], record["action"], record["object"]) == ("bob", "cluster.upgrade", f"web to {NEW}")
    # Asked again, nothing changes.
    before = await spec(api)
    await api.call("bob", "POST", UPGRADE, {"version": NEW}, status=202)
    assert await spec(api) == before


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"version": "1.99.0"}, "not built here"),
        ({"version": "newest"}, "not built here"),
        ({"nodeVersion": NEW}, "never newer"),
        ({"version": NEW, "nodeVersion": "1.20.1"}, "not built here"),
    ],
)
@pytest.mark.parametrize("way", ["upgrade", "patch"])
async def test_what_cannot_be_is_refused_before_anything_changes(
    api: Api, body: dict[str, Any], words: str, way: str
) -> None:
    await make(api)
    before = await spec(api)
    method, path = ("POST", UPGRADE) if way == "upgrade" else ("PATCH", CLUSTER)
    refused = await api.send("alice", method, path, json=body)
    assert refused.status_code == 422
    assert words in refused.json()["detail"] and refused.json()["hint"]
    assert await spec(api) == before


async def test_masters_never_go_back_and_nodes_do(api: Api) -> None:
    await make(api, version=NEW)
    for method, path in (("POST", UPGRADE), ("PATCH", CLUSTER)):
        refused = await api.send("alice", method, path, json={"version": OLD})
        assert refused.status_code == 422 and "cannot go back" in refused.json()["detail"]
        assert f"--nodes {OLD}" in refused.json()["hint"]
    made = await api.call("alice", "POST", UPGRADE, {"nodeVersion": OLD}, status=202)
    assert (made["spec"]["version"], made["spec"]["nodeVersion"]) == (NEW, OLD)
    made = await api.call("alice", "POST", UPGRADE, {}, status=202)
    assert (made["spec"]["version"], made["spec"]["nodeVersion"]) == (NEW, "")


async def test_a_cluster_that_sleeps_or_is_under_way_is_not_sent_on(api: Api) -> None:
    await make(api)
    await see(api, "web", OLD, Phase.ASLEEP)
    asleep = await api.send("alice", "POST", UPGRADE, json={"version": NEW})
    assert asleep.status_code == 409 and "wake web" in asleep.json()["hint"]
    await see(api, "web", "1.35.9")
    under_way = await api.send("alice", "POST", UPGRADE, json={"version": NEW})
    assert under_way.status_code == 409 and "on their way" in under_way.json()["detail"]
    assert (await spec(api))[0] == OLD


async def test_a_new_cluster_has_one_version_that_is_offered(api: Api) -> None:
    path = "/projects/shop/clusters"
    for wrong in ({"version": "1.35.1"}, {"version": NEW, "nodeVersion": OLD}):
        await api.call("alice", "POST", path, {"name": "web", "spec": wrong}, status=422)
    made = await api.call("alice", "POST", path, {"name": "web", "spec": {}}, status=201)
    assert made["spec"]["version"] == NEW


async def test_settings_of_a_cluster_whose_version_is_not_offered_any_more_can_be_changed(api: Api) -> None:
    await make(api)
    cluster = await api.store.get("shop", "web")
    older = cluster.spec.model_copy(update={"version": "1.36.1"})
    api.store._keep("modified", cluster.model_copy(update={"spec": older}))
    await see(api, "web", "1.36.1")
    made = await api.call("alice", "PATCH", CLUSTER, {"settings": {"maxPodsPerNode": 60}})
    assert made["spec"]["version"] == "1.36.1"
    made = await api.call("alice", "POST", UPGRADE, {"version": NEW}, status=202)
    assert made["spec"]["version"] == NEW


async def test_a_proposal_changes_nothing_and_says_what_would_come_of_it(api: Api) -> None:
    await make(api)
    await make(api, "there", NEW)
    await make(api, "sleeper")
    await see(api, "sleeper", OLD, Phase.ASLEEP)
    path = f"/projects/shop/upgrades?to={NEW}"
    await api.call("bob", "GET", path, status=404)
    found = (await api.call("alice", "GET", path))["items"]
    assert [(one["name"], one["outcome"]) for one in found] == [
        ("sleeper", "refused"),
        ("there", "current"),
        ("web", "upgrade"),
    ]
    assert "sleeps" in found[0]["why"] and "wake sleeper" in found[0]["hint"]
    assert (found[2]["version"], found[2]["asked"], found[2]["nodes"]) == (OLD, NEW, 1)
    assert await spec(api) == (OLD, "", 1)
    await api.call("alice", "GET", "/projects/shop/upgrades?to=1.99.0", status=422)
    await api.call("alice", "GET", "/projects/shop/upgrades", status=422)
