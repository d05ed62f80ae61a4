"""The firewall gate through the REST API: who decides, what is kept, and that no way around a person leads through."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from haneul.dkos.model import ClusterStatus, NodeStatus
from haneul.firewall.model import Approval
from haneul.kernel.database import open_database, writing
from haneul.kernel.errors import UnavailableError
from tests.functional.api.application import Api

DB = {"name": "db-prod", "addresses": ["10.1.2.3"], "ports": ["5432/tcp"], "reason": "orders"}
MAIL = {"name": "mail", "addresses": ["10.1.9.0/24"], "ports": ["25/tcp"], "reason": "=letters()"}
POOL = {"name": "gated", "count": 2, "externalResources": [DB]}


async def seen(api: Api, cluster: str = "web", **addresses: str) -> None:
    """Let the operator have seen nodes at addresses; ``gated_0`` stands for the node gated-0."""
    found = await api.store.get("shop", cluster)
    nodes = tuple(
        NodeStatus(name=name.replace("_", "-"), pool="gated", address=address) for name, address in addresses.items()
    )
    api.store._keep("modified", found.model_copy(update={"status": ClusterStatus(nodes=nodes)}))


async def requests(api: Api, person: str = "carol", query: str = "") -> dict[str, dict[str, Any]]:
    """Return the requests by address and resource."""
    page = await api.call(person, "GET", f"/firewall/requests{query}")
    return {f"{one['way']['address']} {one['way']['resource']['name']}": one for one in page["items"]}


async def decide(
    api: Api, person: str, verb: str, request: dict[str, Any], *, status: int = 200, **changes: Any
) -> Any:
    way = request["way"]
    body = {"address": way["address"], "resource": way["resource"]["name"], "why": "change 4711", **changes}
    return await api.call(person, "POST", f"/firewall/requests/{request['id']}/{verb}", body, status=status)


def published(api: Api) -> set[str]:
    return {f"{one.way.address} {one.way.resource.name}" for one in api.board._approvals.values()}


@pytest.fixture
async def gated(api: Api) -> Api:
    """bob's cluster ``web`` with two gated nodes; carol and dave are approvers."""
    for person in ("carol", "dave"):
        await api.add(person)
        await api.call("admin", "PUT", f"/people/{person}/roles/firewall-approver", status=204)
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "developer"})
    await api.call("bob", "POST", "/projects/shop/clusters", {"name": "web", "spec": {"nodePools": [POOL]}}, status=201)
    await seen(api, gated_0="192.0.2.7", gated_1="192.0.2.8")
    return api


async def test_a_person_approves_exactly_one_address(gated: Api) -> None:
    found = await requests(gated)
    assert {key: one["state"] for key, one in found.items()} == {
        "192.0.2.7 db-prod": "pending",
        "192.0.2.8 db-prod": "pending",
    }
    assert found["192.0.2.7 db-prod"]["askers"] == ["bob"]
    made = await decide(gated, "carol", "approve", found["192.0.2.7 db-prod"])
    assert (made["state"], made["decidedBy"], made["why"]) == ("approved", "carol", "change 4711")
    assert published(gated) == {"192.0.2.7 db-prod"}
    assert set(await requests(gated, query="?state=pending")) == {"192.0.2.8 db-prod"}
    audit = await gated.call("admin", "GET", "/audit")
    record = next(one for one in audit["items"] if one["action"] == "firewall.approve")
    assert (record["person"], record["project"], record["result"]) == ("carol", "shop", "done")
    assert "192.0.2.7 db-prod" in record["object"]


async def test_a_denied_request_can_be_approved_later_and_an_approved_one_only_revoked(gated: Api) -> None:
    one = (await requests(gated))["192.0.2.7 db-prod"]
    assert (await decide(gated, "carol", "deny", one, why="use the replica"))["state"] == "denied"
    assert published(gated) == set()
    await decide(gated, "carol", "revoke", one, status=409)
    await decide(gated, "dave", "approve", one)
    await decide(gated, "carol", "approve", one, status=409)
    await decide(gated, "carol", "deny", one, status=409)
    assert (await decide(gated, "carol", "revoke", one))["state"] == "revoked"
    assert published(gated) == set()
    history = await gated.call("bob", "GET", "/firewall/history")
    assert [(entry["person"], entry["kind"], entry["why"]) for entry in history["items"]] == [
        ("carol", "revoked", "change 4711"),
        ("dave", "approved", "change 4711"),
        ("carol", "denied", "use the replica"),
    ]


async def test_administrators_owners_and_askers_are_no_approvers(gated: Api) -> None:
    one = (await requests(gated))["192.0.2.7 db-prod"]
    for person in ("admin", "alice", "bob"):
        for verb in ("approve", "deny", "revoke"):
            await decide(gated, person, verb, one, status=403)
    await decide(gated, "nobody", "approve", one, status=401)
    assert published(gated) == set()


@pytest.mark.parametrize("change", [{"count": 3}, {"externalResources": [DB, MAIL]}])
async def test_who_made_changed_or_scaled_the_pool_never_approves_it(gated: Api, change: dict[str, Any]) -> None:
    await gated.call("alice", "PUT", "/projects/shop/members/carol", {"role": "developer"})
    body = {"nodePools": [{**POOL, **change}]}
    await gated.call("carol", "PATCH", "/projects/shop/clusters/web", body)
    # It does not help that somebody else changed it after her, back to what it was.
    await gated.call("bob", "PATCH", "/projects/shop/clusters/web", {"nodePools": [POOL]})
    one = (await requests(gated))["192.0.2.7 db-prod"]
    refused = await decide(gated, "carol", "approve", one, status=403)
    assert "asked for pool gated" in refused["detail"]
    await decide(gated, "dave", "approve", one)


async def test_nobody_approves_with_a_token_that_an_asker_made_or_through_one_that_they_made(gated: Api) -> None:
    # The administrator made everybody's first token, so asks with bob, and is behind carol.
    await gated.call("admin", "PUT", "/people/admin/roles/firewall-approver", status=204)
    one = (await requests(gated))["192.0.2.7 db-prod"]
    await decide(gated, "admin", "approve", one, status=403)
    body = {"nodePools": [{**POOL, "count": 1}]}
    await gated.call("admin", "PATCH", "/projects/shop/clusters/web", body)
    refused = await decide(gated, "carol", "approve", one, status=403)
    assert "made a token of carol" in refused["detail"]
    assert published(gated) == set()


async def test_no_wildcard_no_list_and_no_decision_without_a_reason(gated: Api) -> None:
    one = (await requests(gated))["192.0.2.7 db-prod"]
    wrong: list[dict[str, Any]] = [
        {"address": "192.0.2.8"},
        {"address": "192.0.2.0/24"},
        {"address": "*"},
        {"address": "192.0.2.7 "},
        {"resource": "*"},
        {"resource": "db"},
        {"why": " "},
        {"address": ["192.0.2.7", "192.0.2.8"]},
        {"ids": ["a", "b"]},
    ]
    for named in wrong:
        await decide(gated, "carol", "approve", one, status=422, **named)
    assert published(gated) == set()


async def test_there_is_no_way_to_approve_several_at_once(gated: Api) -> None:
    body = {"address": "192.0.2.7", "resource": "db-prod", "why": "all of them"}
    for path in ("*/approve", "all/approve", "approve", "192.0.2.7/approve", "%2A/approve"):
        response = await gated.send("carol", "POST", f"/firewall/requests/{path}", json=body)
        assert response.status_code in (404, 405)
    described = (await gated.call("carol", "GET", "/openapi.json"))["paths"]
    writing_ways = {path for path, verbs in described.items() if "/firewall" in path and set(verbs) - {"get"}}
    assert writing_ways == {f"/api/v1/firewall/requests/{{identity}}/{verb}" for verb in ("approve", "deny", "revoke")}
    assert published(gated) == set()


async def test_a_pool_written_past_the_api_cannot_be_approved(gated: Api) -> None:
    cluster = await gated.store.get("shop", "web")
    (pool,) = cluster.spec.node_pools
    wider = pool.external_resources[0].model_copy(update={"ports": ("1-65535/tcp",)})
    pools = (pool.model_copy(update={"external_resources": (wider,)}),)
    changed = cluster.model_copy(update={"spec": cluster.spec.model_copy(update={"node_pools": pools})})
    gated.store._keep("modified", changed)
    one = (await requests(gated))["192.0.2.7 db-prod"]
    refused = await decide(gated, "carol", "approve", one, status=409)
    assert "nobody is known to have asked" in refused["detail"]


async def test_another_address_needs_another_approval_and_the_old_one_lapses_for_good(gated: Api) -> None:
    one = (await requests(gated))["192.0.2.7 db-prod"]
    await decide(gated, "carol", "approve", one)
    # While its address is not known, nothing is given up; nobody else has it.
    await seen(gated, gated_0="", gated_1="192.0.2.8")
    await decide(gated, "carol", "deny", (await requests(gated))["192.0.2.8 db-prod"])
    assert published(gated) == {"192.0.2.7 db-prod"}
    # It comes back at another address, and its old one is now the other node's.
    await seen(gated, gated_0="192.0.2.9", gated_1="192.0.2.7")
    found = await requests(gated)
    assert {key: entry["state"] for key, entry in found.items()} == {
        "192.0.2.9 db-prod": "pending",
        "192.0.2.7 db-prod": "pending",
    }
    await decide(gated, "carol", "deny", found["192.0.2.9 db-prod"])
    assert published(gated) == set()
    # Back at its first address it is a request again, and not approved.
    await seen(gated, gated_0="192.0.2.7", gated_1="192.0.2.8")
    again = (await requests(gated))["192.0.2.7 db-prod"]
    assert (again["id"], again["state"]) == (one["id"], "pending")
    kinds = [entry["kind"] for entry in (await gated.call("carol", "GET", "/firewall/history"))["items"]]
    # The lapse is found at the next decision or in the background, whichever comes first.
    assert sorted(kinds) == ["approved", "denied", "denied", "lapsed"]


@pytest.mark.parametrize(
    "pool", [{"externalResources": [{**DB, "ports": ["5433/tcp"]}]}, {"externalResources": []}, {"count": 0}]
)
async def test_a_changed_resource_or_pool_ends_its_approvals(gated: Api, pool: dict[str, Any]) -> None:
    found = await requests(gated)
    await decide(gated, "carol", "approve", found["192.0.2.7 db-prod"])
    await gated.call("bob", "PATCH", "/projects/shop/clusters/web", {"nodePools": [{**POOL, **pool}]})
    await gated.call(
        "bob", "POST", "/projects/shop/clusters", {"name": "other", "spec": {"nodePools": [POOL]}}, status=201
    )
    await seen(gated, "other", gated_0="192.0.2.20")
    await decide(gated, "carol", "deny", (await requests(gated))["192.0.2.20 db-prod"])
    assert published(gated) == set()


async def test_an_approved_way_can_be_revoked_while_its_node_has_no_address(gated: Api) -> None:
    one = (await requests(gated))["192.0.2.7 db-prod"]
    await decide(gated, "carol", "approve", one)
    await seen(gated, gated_0="", gated_1="192.0.2.8")
    await decide(gated, "dave", "revoke", one)
    assert published(gated) == set()


async def test_what_is_published_by_anybody_else_is_taken_away(gated: Api) -> None:
    found = await requests(gated)
    await decide(gated, "carol", "approve", found["192.0.2.7 db-prod"])
    (true,) = await gated.board.published()
    forged = true.model_copy(update={"way": true.way.model_copy(update={"address": "192.0.2.8"})})
    await gated.board.publish(forged)
    await decide(gated, "carol", "deny", found["192.0.2.8 db-prod"])
    assert published(gated) == {"192.0.2.7 db-prod"}


async def test_the_record_refuses_to_be_changed(gated: Api) -> None:
    await decide(gated, "carol", "approve", (await requests(gated))["192.0.2.7 db-prod"])
    engine = open_database(gated.database)
    for table in ("firewall_decisions", "firewall_askers"):
        for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET person = 'mallory'"):  # noqa: S608
            with pytest.raises(DatabaseError, match="kept for good"):
                async with writing(engine) as connection:
                    await connection.execute(text(statement))
    await engine.dispose()


async def test_a_decision_that_cannot_be_published_stands_and_says_so(
    gated: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await requests(gated)
    await decide(gated, "carol", "approve", found["192.0.2.7 db-prod"])

    async def silent(_: Approval) -> None:
        raise UnavailableError("the Kubernetes API does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(gated.board, "withdraw", silent)
        refused = await decide(gated, "carol", "revoke", found["192.0.2.7 db-prod"], status=503)
    assert "it is written down" in refused["detail"]
    # The next process, or the next decision, makes it so.
    await decide(gated, "carol", "deny", found["192.0.2.8 db-prod"])
    assert published(gated) == set()


async def test_members_see_their_projects_requests_and_nobody_elses(gated: Api) -> None:
    await gated.add("erin")
    assert await requests(gated, "erin") == {}
    await gated.call("erin", "GET", "/firewall/requests?project=shop", status=404)
    assert (await gated.call("erin", "GET", "/firewall/history"))["items"] == []
    assert len(await requests(gated, "bob", "?project=shop")) == 2
    one = (await requests(gated))["192.0.2.7 db-prod"]
    await gated.call("erin", "GET", f"/firewall/requests/{one['id']}", status=404)
    assert (await gated.call("bob", "GET", f"/firewall/requests/{one['id']}"))["id"] == one["id"]


async def test_the_export_has_what_is_approved_and_no_words_of_people(gated: Api) -> None:
    await gated.call(
        "bob", "PATCH", "/projects/shop/clusters/web", {"nodePools": [{**POOL, "externalResources": [DB, MAIL]}]}
    )
    await decide(gated, "carol", "approve", (await requests(gated))["192.0.2.8 mail"])
    response = await gated.send("carol", "GET", "/firewall/export?format=csv")
    heading, row = csv.reader(io.StringIO(response.text))
    assert dict(zip(heading, row, strict=True)) | {"approved": ""} == {
        "source": "192.0.2.8",
        "destinations": "10.1.9.0/24",
        "ports": "25/tcp",
        "resource": "mail",
        "project": "shop",
        "cluster": "web",
        "pool": "gated",
        "node": "gated-1",
        "approver": "carol",
        "approved": "",
    }
    assert "letters" not in response.text
    (listed,) = await gated.call("carol", "GET", "/firewall/export")
    assert listed["way"]["resource"]["reason"] == "=letters()"


async def test_lists_come_in_pages(gated: Api) -> None:
    first = await gated.call("carol", "GET", "/firewall/requests?limit=1")
    second = await gated.call("carol", "GET", f"/firewall/requests?limit=1&continue={first['continue']}")
    assert second["continue"] is None
    assert [one["way"]["node"] for one in first["items"] + second["items"]] == ["gated-0", "gated-1"]
    await gated.call("carol", "GET", "/firewall/history?continue=bm9uZQ==", status=422)


async def test_what_is_no_external_resource_is_refused(api: Api) -> None:
    wrong: list[tuple[list[Any], str]] = [
        ([{**DB, "addresses": ["10.0.0.0/8"]}], "wider than a /16"),
        ([{**DB, "addresses": ["0.0.0.0/0"]}], "wider than a /16"),
        ([{**DB, "addresses": ["127.0.0.1"]}], "no place outside"),
        ([{**DB, "addresses": []}], "at least 1"),
        ([{**DB, "addresses": ["db.example.com"]}], "db.example.com"),
        ([{**DB, "ports": ["5432"]}], "no port"),
        ([{**DB, "ports": ["9000-8000/tcp"]}], "no port"),
        ([{**DB, "ports": ["65536/tcp"]}], "no port"),
        ([{**DB, "reason": "  "}], "gives no reason"),
        ([{**DB, "name": "DB"}], "no DNS label"),
        ([DB, DB], "same name"),
    ]
    for resources, said in wrong:
        body = {"name": "web", "spec": {"nodePools": [{"externalResources": resources}]}}
        refused = await api.call("alice", "POST", "/projects/shop/clusters", body, status=422)
        assert said in refused["detail"]


async def test_platform_roles_are_given_and_taken_by_administrators_alone(gated: Api, tmp_path: Path) -> None:
    await gated.call("carol", "PUT", "/people/bob/roles/firewall-approver", status=403)
    await gated.call("admin", "PUT", "/people/bob/roles/king", status=422)
    await gated.call("admin", "PUT", "/people/mallory/roles/firewall-approver", status=404)
    one = (await requests(gated))["192.0.2.7 db-prod"]
    await gated.call("admin", "DELETE", "/people/carol/roles/firewall-approver", status=204)
    await decide(gated, "carol", "approve", one, status=403)
    await gated.call("admin", "DELETE", "/people/carol/roles/firewall-approver", status=404)


async def test_a_robot_decides_nothing_whatever_its_role(gated: Api) -> None:
    one = (await requests(gated))["192.0.2.7 db-prod"]
    made = await gated.call("alice", "POST", "/projects/shop/robots", {"name": "boss", "role": "owner"}, status=201)
    gated.tokens["boss"] = made["secret"]
    for verb in ("approve", "deny", "revoke"):
        refused = await decide(gated, "boss", verb, one, status=403)
        assert "robot" in refused["detail"]
    assert len(await requests(gated, "boss")) == 2


async def test_whoever_had_a_robot_s_token_never_approves_what_it_asked_for(gated: Api) -> None:
    """carol makes the robot, dave makes it another token; both are approvers, and neither approves for it."""
    for person in ("carol", "dave"):
        await gated.call("alice", "PUT", f"/projects/shop/members/{person}", {"role": "developer"})
    made = await gated.call("carol", "POST", "/projects/shop/robots", {"name": "ci"}, status=201)
    gated.tokens["ci"] = made["secret"]
    await gated.call("dave", "POST", "/projects/shop/robots/ci/rotate", {}, status=201)
    await gated.call(
        "ci", "POST", "/projects/shop/clusters", {"name": "by-ci", "spec": {"nodePools": [POOL]}}, status=201
    )
    await seen(gated, "by-ci", gated_0="192.0.2.30")
    one = (await requests(gated))["192.0.2.30 db-prod"]
    assert one["askers"] == ["robot:shop/ci"]
    for person in ("carol", "dave"):
        refused = await decide(gated, person, "approve", one, status=403)
        assert "can act as who did" in refused["detail"]
    await gated.add("erin")
    await gated.call("admin", "PUT", "/people/erin/roles/firewall-approver", status=204)
    await decide(gated, "erin", "approve", one)


async def test_a_group_s_role_counts_as_long_as_one_is_in_it_and_for_nothing_one_asked_for(gated: Api) -> None:
    await gated.call("admin", "POST", "/groups", {"name": "security"}, status=201)
    await gated.call("admin", "PUT", "/groups/security/roles/firewall-approver", status=204)
    for person in ("bob", "alice"):
        await gated.call("admin", "PUT", f"/groups/security/members/{person}", status=204)
    found = await requests(gated)
    # bob asked for the pool.
    await decide(gated, "bob", "approve", found["192.0.2.7 db-prod"], status=403)
    await decide(gated, "alice", "approve", found["192.0.2.7 db-prod"])
    await gated.call("admin", "DELETE", "/groups/security/members/alice", status=204)
    await decide(gated, "alice", "approve", found["192.0.2.8 db-prod"], status=403)
    assert published(gated) == {"192.0.2.7 db-prod"}


async def test_auditors_see_everything_and_decide_nothing(gated: Api) -> None:
    await gated.add("erin")
    await gated.call("admin", "PUT", "/people/erin/roles/auditor", status=204)
    one = (await requests(gated, "erin"))["192.0.2.7 db-prod"]
    await decide(gated, "erin", "approve", one, status=403)


async def test_an_administrator_approves_nothing_as_somebody_they_made_however_many_are_in_between(gated: Api) -> None:
    """The administrator asks, and has somebody make somebody who approves."""
    await gated.add("puppet")
    await gated.call("admin", "PUT", "/people/puppet/roles/admin", status=204)
    await gated.call("puppet", "POST", "/people", {"name": "hidden"}, status=201)
    issued = await gated.call("puppet", "POST", "/people/hidden/tokens", {}, status=201)
    gated.tokens["hidden"] = issued["secret"]
    await gated.call("puppet", "PUT", "/people/hidden/roles/firewall-approver", status=204)
    await gated.call("admin", "PATCH", "/projects/shop/clusters/web", {"nodePools": [{**POOL, "count": 1}]})
    one = (await requests(gated))["192.0.2.7 db-prod"]
    refused = await decide(gated, "hidden", "approve", one, status=403)
    assert "admin asked" in refused["detail"]
    # Another token, which they make themselves, does not make them somebody else.
    again = await gated.call("hidden", "POST", "/people/hidden/tokens", {}, status=201)
    gated.tokens["hidden"] = again["secret"]
    await decide(gated, "hidden", "approve", one, status=403)
    assert published(gated) == set()


async def test_a_resource_of_another_name_or_place_is_another_request(gated: Api) -> None:
    one = (await requests(gated))["192.0.2.7 db-prod"]
    await decide(gated, "carol", "approve", one)
    other: list[dict[str, Any]] = [
        {"name": "db"},
        {"addresses": ["10.1.2.4"]},
        {"addresses": ["10.1.2.3", "10.1.2.4"]},
        {"ports": ["5432/tcp", "22/tcp"]},
        {"reason": "something else"},
    ]
    for change in other:
        pools = {"nodePools": [{**POOL, "externalResources": [{**DB, **change}]}]}
        await gated.call("bob", "PATCH", "/projects/shop/clusters/web", pools)
        listed = (await gated.call("carol", "GET", "/firewall/requests?state=pending"))["items"]
        (now,) = [found for found in listed if found["way"]["node"] == "gated-0"]
        assert (now["id"] != one["id"], now["state"]) == (True, "pending")


async def test_a_registered_machine_is_approved_at_its_address_and_at_no_other(gated: Api) -> None:
    rack = {"address": "203.0.113.7", "trustOnFirstUse": True}
    pool = {"name": "metal", "provider": "ssh", "machines": ["rack1"], "externalResources": [DB]}
    await gated.call("bob", "POST", "/projects/shop/machines", {"name": "rack1", "spec": rack}, status=201)
    await gated.call(
        "bob", "POST", "/projects/shop/clusters", {"name": "metal", "spec": {"nodePools": [pool]}}, status=201
    )
    await seen(gated, "metal", metal_rack1="203.0.113.7")
    one = (await requests(gated))["203.0.113.7 db-prod"]
    assert one["way"]["node"] == "metal-rack1"
    await decide(gated, "carol", "approve", one)
    # Another machine of the name, with another address: its pool has to let go of the first one before.
    await gated.call("bob", "DELETE", "/projects/shop/machines/rack1", status=409)
    spare = {"name": "spare", "spec": {**rack, "address": "203.0.113.9"}}
    await gated.call("bob", "POST", "/projects/shop/machines", spare, status=201)
    other = {"nodePools": [{**pool, "machines": ["spare"]}]}
    await gated.call("bob", "PATCH", "/projects/shop/clusters/metal", other)
    await gated.call("bob", "DELETE", "/projects/shop/machines/rack1", status=204)
    moved = {"name": "rack1", "spec": {**rack, "address": "203.0.113.8"}}
    await gated.call("bob", "POST", "/projects/shop/machines", moved, status=201)
    await gated.call("bob", "PATCH", "/projects/shop/clusters/metal", {"nodePools": [pool]})
    await seen(gated, "metal", metal_rack1="203.0.113.8")
    assert (await requests(gated))["203.0.113.8 db-prod"]["state"] == "pending"


async def test_another_machine_of_a_pool_makes_its_approver_an_asker(gated: Api) -> None:
    for name, address in (("rack1", "203.0.113.7"), ("rack2", "203.0.113.8")):
        machine = {"name": name, "spec": {"address": address, "trustOnFirstUse": True}}
        await gated.call("bob", "POST", "/projects/shop/machines", machine, status=201)
    pool = {"name": "metal", "provider": "ssh", "machines": ["rack1"], "externalResources": [DB]}
    await gated.call(
        "bob", "POST", "/projects/shop/clusters", {"name": "metal", "spec": {"nodePools": [pool]}}, status=201
    )
    await gated.call("alice", "PUT", "/projects/shop/members/carol", {"role": "developer"})
    patch = {"nodePools": [{**pool, "count": 1, "machines": ["rack2"]}]}
    await gated.call("carol", "PATCH", "/projects/shop/clusters/metal", patch)
    await seen(gated, "metal", metal_rack2="203.0.113.8")
    one = (await requests(gated))["203.0.113.8 db-prod"]
    await decide(gated, "carol", "approve", one, status=403)
    await decide(gated, "dave", "approve", one)


async def test_what_was_refused_at_the_gate_is_on_the_record(gated: Api) -> None:
    one = (await requests(gated))["192.0.2.7 db-prod"]
    await decide(gated, "bob", "approve", one, status=403)
    await decide(gated, "carol", "revoke", one, status=409)
    records = (await gated.call("admin", "GET", "/audit?limit=2"))["items"]
    assert [(record["person"], record["action"], record["result"]) for record in records] == [
        ("carol", "firewall.revoke", "refused: conflict"),
        ("bob", "firewall.approve", "refused: forbidden"),
    ]
