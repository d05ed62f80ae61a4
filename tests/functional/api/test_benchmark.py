"""Checks against the benchmark, as the REST API offers them."""

from __future__ import annotations

from datetime import timedelta

from haneul.compliance.benchmark import ITEMS
from haneul.compliance.model import Look, Outcome, Result
from haneul.dkos.model import EXAMINATION_MARK, Phase
from tests.functional.api.application import START, Api

WEB = "/projects/shop/clusters/web"
BENCHMARK = f"{WEB}/benchmark"
NAMESPACE = "cluster-shop-web"


async def made(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)


async def answer(api: Api, asked: str) -> None:
    outcomes = tuple(Outcome(id=item.id, result=Result.FAIL, seen="it is so") for item in ITEMS)
    await api.looks.write(NAMESPACE, {}, Look(asked=asked, examined=START, outcomes=outcomes))


async def test_a_check_is_asked_for_and_its_report_names_the_request(api: Api) -> None:
    await made(api)
    refused = await api.call("alice", "GET", BENCHMARK, status=409)
    assert refused["hint"] == "'haneul check cluster web' asks for it"
    asked = (await api.call("alice", "POST", BENCHMARK, status=202))["asked"]
    assert asked == f"{START.isoformat()}{EXAMINATION_MARK}"
    assert (await api.call("alice", "GET", WEB))["lookRequested"] == asked
    await answer(api, asked)
    report = await api.call("alice", "GET", BENCHMARK)
    assert (report["subject"], report["asked"]) == ("shop/web", asked)
    assert report["benchmark"].startswith("CIS Kubernetes Benchmark")
    assert [item["id"] for item in report["items"]] == [item.id for item in ITEMS]
    first = report["items"][0]
    assert set(first) == {"id", "title", "result", "seen", "how", "mend", "reason"}
    by_id = {item["id"]: item for item in report["items"]}
    assert by_id["1.3.7"]["reason"] and not by_id["1.2.15"]["reason"]


async def test_later_requests_sort_after_earlier_ones(api: Api) -> None:
    await made(api)
    first = (await api.call("alice", "POST", BENCHMARK, status=202))["asked"]
    api.clock.advance(timedelta(seconds=1).total_seconds())
    assert (await api.call("alice", "POST", BENCHMARK, status=202))["asked"] > first


async def test_who_sees_the_project_may_check_and_nobody_else(api: Api) -> None:
    await made(api)
    for method in ("GET", "POST"):
        await api.call("bob", method, BENCHMARK, status=404)
        await api.call("", method, BENCHMARK, status=401)
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "viewer"})
    asked = (await api.call("bob", "POST", BENCHMARK, status=202))["asked"]
    await answer(api, asked)
    assert len((await api.call("bob", "GET", BENCHMARK))["items"]) == len(ITEMS)


async def test_what_is_no_cluster_is_not_checked(api: Api) -> None:
    await made(api)
    for method in ("GET", "POST"):
        for name in ("absent", "%2E%2E", "web%3Fx"):
            await api.call("alice", method, f"/projects/shop/clusters/{name}/benchmark", status=404)


async def test_a_sleeping_cluster_is_to_be_woken_first(api: Api) -> None:
    await made(api)
    cluster = await api.store.get("shop", "web")
    api.store._keep(
        "modified", cluster.model_copy(update={"status": cluster.status.model_copy(update={"phase": Phase.ASLEEP})})
    )
    refused = await api.call("alice", "POST", BENCHMARK, status=409)
    assert refused["hint"] == "'haneul cluster wake web', then ask again"
    assert (await api.call("alice", "GET", WEB))["lookRequested"] == ""
