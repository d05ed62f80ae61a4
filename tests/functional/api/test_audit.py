"""The audit record through the API: who reads what of it, refusals, and the chain."""

from __future__ import annotations

from typing import Any

from haneul.kernel.hash_chain import Anchor, verify
from tests.functional.api.application import Api


async def everything(api: Api) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    path = "/audit?order=oldest&limit=3"
    page: dict[str, Any] = {"continue": ""}
    while page["continue"] is not None:
        more = f"&continue={page['continue']}" if page["continue"] else ""
        page = await api.call("admin", "GET", path + more)
        records += page["items"]
    return records


async def test_what_the_api_shows_is_a_chain_up_to_its_head(api: Api) -> None:
    records = await everything(api)
    head = await api.call("admin", "GET", "/audit/head")
    assert head == {"id": len(records), "hash": records[-1]["hash"]}
    assert verify(records, anchors=[Anchor(**head)]).fault == ""
    records[2]["person"] = "eve"
    assert verify(records).fault.startswith("record 3 ")


async def test_auditors_read_all_and_owners_their_project(api: Api) -> None:
    await api.call("bob", "GET", "/audit?project=shop", status=404)
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "developer"})
    await api.call("bob", "GET", "/audit?project=shop", status=403)
    await api.call("alice", "GET", "/audit", status=403)
    await api.call("alice", "GET", "/audit/head", status=403)
    own = (await api.call("alice", "GET", "/audit?project=shop"))["items"]
    assert {record["project"] for record in own} == {"shop"}
    assert "project.create" in [record["action"] for record in own]
    await api.call("admin", "PUT", "/people/bob/roles/auditor", status=204)
    everything = (await api.call("bob", "GET", "/audit?person=alice"))["items"]
    assert {record["person"] for record in everything} == {"alice"}
    # An auditor reads records, and nothing else.
    await api.call("bob", "GET", "/people", status=403)


async def test_a_refusal_says_who_tried_what_from_where(api: Api) -> None:
    await api.send("bob", "DELETE", "/projects/shop", headers={"User-Agent": "curl/8\t\x7f", "X-Request-Id": "r-1"})
    record = (await api.call("admin", "GET", "/audit?limit=1"))["items"][0]
    said = {name: record[name] for name in ("person", "action", "object", "project", "result", "source", "requestId")}
    assert said == {
        "person": "bob",
        "action": "project.delete",
        "object": "/projects/shop",
        "project": "shop",
        "result": "refused: not-found",
        "source": "127.0.0.1",
        "requestId": "r-1",
    }
    assert record["agent"] == "curl/8��"


async def test_strangers_and_slips_of_the_pen_fill_no_record(api: Api) -> None:
    before = await api.call("admin", "GET", "/audit/head")
    await api.call("", "DELETE", "/projects/shop", status=401)
    await api.call("alice", "GET", "/projects/shop/clusters/absent", status=404)
    await api.call("alice", "POST", "/projects", {"name": 1}, status=422)
    assert await api.call("admin", "GET", "/audit/head") == before


async def test_texts_of_callers_are_cut_to_what_the_record_holds(api: Api) -> None:
    path = "/projects/shop/members/" + "x" * 500
    await api.send("alice", "DELETE", path, headers={"User-Agent": "u" * 500})
    record = (await api.call("admin", "GET", "/audit?limit=1"))["items"][0]
    assert (len(record["object"]), len(record["agent"])) == (200, 200)
    assert verify(await everything(api)).fault == ""


async def test_owners_do_not_read_of_an_earlier_project_of_the_name(api: Api) -> None:
    await api.call("alice", "DELETE", "/projects/shop", status=204)
    api.clock.advance(60)
    await api.call("bob", "POST", "/projects", {"name": "shop"}, status=201)
    own = (await api.call("bob", "GET", "/audit?project=shop"))["items"]
    assert [(record["person"], record["action"]) for record in own] == [("bob", "project.create")]
    everything = (await api.call("admin", "GET", "/audit?project=shop"))["items"]
    assert [record["action"] for record in everything] == ["project.create", "project.delete", "project.create"]
