"""Quotas and usage through the REST API: who may see and set what, and what is refused."""

from __future__ import annotations

import pytest

from haneul.app.cluster_usage import ClusterSightings
from haneul.dkos.quota import Amounts
from haneul.kernel.database import open_database
from haneul.usage.record import UsageRecord
from tests.functional.api.application import Api


def lines(quota: dict[str, list[dict[str, object]]]) -> dict[object, tuple[object, object, object]]:
    return {line["resource"]: (line["used"], line["limit"], line["setBy"]) for line in quota["lines"]}


async def test_members_read_their_quota_and_administrators_set_it(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    await api.call("admin", "PUT", "/quota", {"nodes": 50})
    await api.addresses.tell({"shop": Amounts(addresses=3, listeners=7), "team": Amounts(addresses=1, listeners=1)})
    set_to = await api.call("admin", "PUT", "/projects/shop/quota", {"clusters": 2, "cpu": 6.5})
    shown = await api.call("alice", "GET", "/projects/shop/quota")
    assert shown == set_to
    assert lines(shown) == {
        "clusters": (1, 2, "project"),
        "nodes": (1, 50, "platform"),
        "cpu": (2.1, 6.5, "project"),
        "memoryMib": (2560, 409600, "built-in"),
        "addresses": (3, 20, "built-in"),
        "listeners": (7, 200, "built-in"),
    }
    assert {name: limit for name, limit in shown["limits"].items() if limit is not None} == {"clusters": 2, "cpu": 6.5}
    assert (await api.call("alice", "GET", "/quota"))["effective"]["nodes"] == 50


async def test_quotas_are_closed_to_others(api: Api) -> None:
    await api.call("bob", "GET", "/projects/shop/quota", status=404)
    await api.call("bob", "PUT", "/projects/shop/quota", {}, status=404)
    await api.call("alice", "PUT", "/projects/shop/quota", {"clusters": 1000}, status=403)
    await api.call("alice", "PUT", "/quota", {"clusters": 1000}, status=403)
    await api.call("admin", "GET", "/projects/absent/quota", status=404)
    await api.call("admin", "PUT", "/projects/absent/quota", {"clusters": 1}, status=404)
    for body in ({"clusters": -1}, {"disks": 1}, {"cpu": "many"}, {"nodes": 1.5}):
        await api.call("admin", "PUT", "/projects/shop/quota", body, status=422)
    assert lines(await api.call("alice", "GET", "/projects/shop/quota"))["clusters"] == (0, 20, "built-in")


async def test_more_than_the_quota_is_refused_with_what_would_help(api: Api) -> None:
    await api.call("admin", "PUT", "/projects/shop/quota", {"nodes": 3})
    pools = [{"name": "default", "count": 2}]
    await api.call(
        "alice", "POST", "/projects/shop/clusters", {"name": "web", "spec": {"nodePools": pools}}, status=201
    )
    problem = await api.call(
        "alice", "POST", "/projects/shop/clusters", {"name": "api", "spec": {"nodePools": pools}}, status=403
    )
    assert problem["code"] == "quota-exceeded"
    assert problem["detail"] == "shop would have more than its quota; nodes: 2 used of 3, 2 more asked for"
    assert "web (2)" in problem["hint"] and "quota set shop --nodes 4" in problem["hint"]
    path = "/projects/shop/clusters/web"
    await api.call("alice", "PATCH", path, {"nodePools": [{"name": "default", "count": 4}]}, status=403)
    await api.call("alice", "PATCH", path, {"nodePools": [*pools, {"name": "more", "count": 2}]}, status=403)
    await api.call("alice", "PATCH", path, {"nodePools": [*pools, {"name": "more", "count": 1}]})
    await api.call("admin", "PUT", "/projects/shop/quota", {"nodes": 1})
    await api.call("alice", "PATCH", path, {"settings": {"maxPodsPerNode": 50}})
    await api.call("alice", "PATCH", path, {"nodePools": pools})


async def test_setting_a_quota_is_recorded_and_ends_with_the_project(api: Api) -> None:
    await api.call("admin", "PUT", "/projects/shop/quota", {"nodes": 3})
    records = (await api.call("admin", "GET", "/audit"))["items"]
    assert (records[0]["action"], records[0]["object"], records[0]["project"]) == ("quota.set", '{"nodes":3}', "shop")
    await api.call("alice", "DELETE", "/projects/shop", status=204)
    assert (await api.store.quotas()).projects == {}


async def look(api: Api) -> None:
    """Look at all clusters now, as another process of the API does."""
    engine = open_database(api.database)
    await UsageRecord(engine, clock=api.clock).note(await ClusterSightings(api.store).look())
    await engine.dispose()


async def _with_usage(api: Api) -> None:
    """Two clusters of shop and one of bob's project, for two hours."""
    await api.call("bob", "POST", "/projects", {"name": "lab"}, status=201)
    for person, project, name in (("alice", "shop", "web"), ("alice", "shop", "api"), ("bob", "lab", "x")):
        await api.call(person, "POST", f"/projects/{project}/clusters", {"name": name}, status=201)
    await look(api)
    api.clock.advance(7200)
    await look(api)


async def test_people_see_the_usage_of_their_projects_and_administrators_all(api: Api) -> None:
    await _with_usage(api)
    mine = await api.call("alice", "GET", "/usage")
    assert [(entry["project"], entry["cluster"]) for entry in mine["items"]] == [("shop", "api"), ("shop", "web")]
    web = mine["items"][1]
    assert (web["clusterHours"], web["nodeHours"], web["cpuCoreHours"], web["memoryGibHours"]) == (2.0, 2.0, 4.2, 5.0)
    everything = await api.call("admin", "GET", "/usage?by=project")
    assert [(entry["project"], entry["clusterHours"]) for entry in everything["items"]] == [("lab", 2.0), ("shop", 4.0)]
    await api.call("alice", "GET", "/usage?project=lab", status=404)
    assert len((await api.call("admin", "GET", "/usage?project=lab"))["items"]) == 1
    await api.call("", "GET", "/usage", status=401)


async def test_usage_is_of_the_asked_time(api: Api) -> None:
    await _with_usage(api)
    last = await api.call("alice", "GET", "/usage?since=1h")
    assert [entry["clusterHours"] for entry in last["items"]] == [1.0, 1.0]
    query = {"since": "2026-11-24T18:00:00+09:00", "until": "2026-11-24T18:30:00+09:00"}
    response = await api.send("alice", "GET", "/usage", params=query)
    assert [entry["clusterHours"] for entry in response.json()["items"]] == [0.5, 0.5]


async def test_usage_comes_in_pages_of_one_time(api: Api) -> None:
    await _with_usage(api)
    first = await api.call("admin", "GET", "/usage?limit=2&since=5h")
    api.clock.advance(60)
    second = await api.call("admin", "GET", f"/usage?limit=2&since=5h&continue={first['continue']}")
    assert [entry["cluster"] for entry in (*first["items"], *second["items"])] == ["x", "api", "web"]
    assert (second["since"], second["until"], second["continue"]) == (first["since"], first["until"], None)


@pytest.mark.parametrize(
    "query",
    [
        "since=yesterday",
        "since=1h&until=2h",
        "continue=x",
        "continue=W10=",
        "since=0001-01-01T00:00:00%2B09:00",
        "by=x",
    ],
)
async def test_what_is_no_time_is_refused(api: Api, query: str) -> None:
    problem = await api.call("alice", "GET", f"/usage?{query}", status=422)
    assert problem["hint"]


async def test_a_name_that_was_used_before_shows_nothing_of_then(api: Api) -> None:
    await _with_usage(api)
    for name in ("web", "api"):
        await api.call("alice", "DELETE", f"/projects/shop/clusters/{name}", status=202)
    await api.call("alice", "DELETE", "/projects/shop", status=204)
    api.clock.advance(60)
    await api.call("bob", "POST", "/projects", {"name": "shop"}, status=201)
    assert [entry["project"] for entry in (await api.call("bob", "GET", "/usage"))["items"]] == ["lab"]
    assert {entry["project"] for entry in (await api.call("admin", "GET", "/usage"))["items"]} == {"lab", "shop"}
