"""The REST API where requests are odd: every answer is one that a program and a person can use."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from structlog.testing import capture_logs

from haneul.dkos.cluster_store import MemoryClusters
from haneul.kernel.errors import UnavailableError
from haneul.kernel.http import LARGEST_BODY, encode_continue
from tests.functional.api.application import Api

CLUSTERS = "/projects/shop/clusters"


ERRORS: list[Any] = [
    ("", "GET", "/whoami", None, 401, "unauthenticated"),
    ("alice", "GET", "/people", None, 403, "forbidden"),
    ("alice", "GET", f"{CLUSTERS}/absent", None, 404, "not-found"),
    ("alice", "GET", "/nowhere", None, 404, "http"),
    ("alice", "DELETE", "/whoami", None, 405, "http"),
    ("alice", "POST", "/projects", {"name": "shop"}, 409, "conflict"),
    ("admin", "POST", "/people", {"name": "bob"}, 409, "conflict"),
    ("alice", "POST", "/projects", {"name": "other", "colour": "red"}, 422, "invalid-input"),
    ("alice", "POST", "/projects", {"name": "a" * 25}, 422, "invalid-input"),
    ("alice", "POST", CLUSTERS, {"name": "web", "spec": {"colour": "red"}}, 422, "invalid-input"),
    ("alice", "POST", "/people/alice/tokens", {"days": 366}, 422, "invalid-input"),
    ("admin", "POST", "/people", {"name": "eve", "displayName": "e" * 201}, 422, "invalid-input"),
    ("admin", "POST", "/people/nobody/tokens", {}, 404, "not-found"),
    ("admin", "PATCH", "/people/nobody", {"disabled": True}, 404, "not-found"),
    ("alice", "DELETE", "/people/alice/tokens/none", None, 404, "not-found"),
    ("alice", "PUT", "/projects/shop/members/nobody", {"role": "viewer"}, 404, "not-found"),
    ("alice", "PUT", "/projects/shop/members/bob", {"role": "king"}, 422, "invalid-input"),
    ("alice", "DELETE", "/projects/shop/members/bob", None, 404, "not-found"),
    ("alice", "POST", f"{CLUSTERS}/absent/credentials", {"certificateRequest": ""}, 404, "not-found"),
    ("admin", "GET", f"/audit?continue={encode_continue('9' * 30)}", None, 422, "invalid-input"),
    ("admin", "GET", "/audit?continue=%C3%A9", None, 422, "invalid-input"),
]


async def test_every_error_has_the_same_shape(api: Api) -> None:
    for person, method, path, body, status, code in ERRORS:
        response = await api.send(person, method, path, json=body, headers={"X-Request-Id": "mine-1"})
        problem = response.json()
        assert (response.status_code, problem["status"], problem["code"]) == (status, status, code), (method, path)
        assert response.headers["content-type"] == "application/problem+json"
        assert problem["requestId"] == response.headers["x-request-id"] == "mine-1"
        assert problem["title"] and problem["detail"] and "hint" in problem


async def test_a_request_id_that_could_do_harm_is_replaced(api: Api) -> None:
    response = await api.send("alice", "GET", "/whoami", headers={"X-Request-Id": "a b\t" + "c" * 100})
    assert len(response.headers["x-request-id"]) == 32


async def test_what_cannot_be_a_name_is_not_found_and_never_asked_for(api: Api) -> None:
    names = ("%2e%2e", "%3Fdry=1", "%23", "Web", "a" * 31, "web%0a")
    requests: tuple[tuple[str, Any], ...] = (("GET", None), ("PATCH", {}), ("DELETE", None))
    for name, (method, body) in itertools.product(names, requests):
        await api.call("alice", method, f"{CLUSTERS}/{name}", body, status=404)


BODIES: list[Any] = [
    (b"", 422),
    (b"{", 422),
    (b"[]", 422),
    (b"null", 422),
    (b"\xff", 400),
    (b'{"name": "\\ud800"}', 422),
    (b'{"\\ud800": 1, "name": "web"}', 422),
    (b'{"name": "web", "spec": ' + b'{"spec":' * 400 + b"1" + b"}" * 400 + b"}", 422),
    (b'{"name": "' + b"a" * LARGEST_BODY + b'"}', 413),
]


async def test_no_body_makes_the_server_fail(api: Api) -> None:
    headers = {"Content-Type": "application/json"}
    for content, status in BODIES:
        for person in ("alice", ""):
            response = await api.send(person, "POST", CLUSTERS, content=content, headers=headers)
            assert response.status_code in (status, 422 if person else 401), (content[:40], response.text)
            assert response.headers["content-type"] == "application/problem+json"


PATCHES: list[Any] = [
    ({"colour": "red"}, "colour"),
    ({"nodePools": "many"}, "nodePools"),
    ({"\ud800": 1}, "valid string"),
    ({"network": None}, "network"),
    ({"network": {"pods": "10.64.0.0/18"}}, "network"),
    ({"version": "0.1"}, "not built"),
    ({"settings": {"featureGates": {"no gate": True}}}, "no gate"),
]


async def test_a_change_that_cannot_be_changes_nothing(api: Api) -> None:
    made = await api.call("alice", "POST", CLUSTERS, {"name": "web"}, status=201)
    headers = {"Content-Type": "application/merge-patch+json"}
    for patch, word in PATCHES:
        content = json.dumps(patch).encode()
        response = await api.send("alice", "PATCH", f"{CLUSTERS}/web", content=content, headers=headers)
        assert response.status_code == 422, response.text
        assert word in response.json()["detail"]
    assert await api.call("alice", "GET", f"{CLUSTERS}/web") == made


async def test_merging_follows_rfc_7396(api: Api) -> None:
    gates = {"featureGates": {"SomeGate": True, "OtherGate": False}}
    body = {"name": "web", "spec": {"settings": {**gates, "maxPodsPerNode": 50}}}
    await api.call("alice", "POST", CLUSTERS, body, status=201)
    patch = {"settings": {"featureGates": {"SomeGate": None}, "maxPodsPerNode": None}, "nodePools": [{"count": 2}]}
    changed = (await api.call("alice", "PATCH", f"{CLUSTERS}/web", patch))["spec"]
    assert changed["settings"]["featureGates"] == {"OtherGate": False}
    assert changed["settings"]["maxPodsPerNode"] == 110
    assert [pool["count"] for pool in changed["nodePools"]] == [2]


async def test_a_pool_grows_no_further_than_the_range_of_its_pods(api: Api) -> None:
    body = {"name": "web", "spec": {"network": {"pods": "172.20.0.0/22"}}}
    await api.call("alice", "POST", CLUSTERS, body, status=201)
    await api.call("alice", "PATCH", f"{CLUSTERS}/web", {"nodePools": [{"count": 4}]})
    problem = await api.call("alice", "PATCH", f"{CLUSTERS}/web", {"nodePools": [{"count": 5}]}, status=422)
    assert "room for 4 nodes" in problem["detail"] and "/24" in problem["hint"]


async def test_a_cluster_of_a_taken_name_is_a_conflict(api: Api) -> None:
    await api.call("alice", "POST", CLUSTERS, {"name": "web"}, status=201)
    await api.call("alice", "POST", CLUSTERS, {"name": "web"}, status=409)


async def test_an_unexpected_error_says_nothing_but_its_id(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(MemoryClusters, "list", broken)
    with capture_logs() as logged:
        response = await api.send("alice", "GET", CLUSTERS)
    assert response.status_code == 500
    assert [entry["request_id"] for entry in logged] == [response.json()["requestId"]]
    assert "secret" not in response.text
    assert response.json()["requestId"] == response.headers["x-request-id"] != ""


async def test_every_kind_of_change_is_on_record_and_every_refused_one(api: Api) -> None:
    before = (await api.call("admin", "GET", "/audit"))["items"][0]["id"]
    await api.call("admin", "POST", "/people", {"name": "eve"}, status=201)
    token = (await api.call("admin", "POST", "/people/eve/tokens", {}, status=201))["token"]["id"]
    await api.call("admin", "DELETE", f"/people/eve/tokens/{token}", status=204)
    await api.call("admin", "PATCH", "/people/eve", {"disabled": True})
    await api.call("admin", "PATCH", "/people/eve", {"disabled": False})
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "viewer"})
    await api.call("alice", "DELETE", "/projects/shop/members/bob", status=204)
    await api.call("alice", "DELETE", "/projects/shop/members/alice", status=409)
    await api.call("alice", "POST", CLUSTERS, {"name": "web"}, status=201)
    await api.call("alice", "POST", CLUSTERS, {"name": "web"}, status=409)
    await api.call("alice", "PATCH", f"{CLUSTERS}/web", {"settings": {"maxPodsPerNode": 50}})
    await api.call("alice", "DELETE", f"{CLUSTERS}/web", status=202)
    await api.call("alice", "DELETE", "/projects/shop", status=204)
    records = (await api.call("admin", "GET", "/audit"))["items"]
    made = [entry for entry in records[::-1] if entry["id"] > before and entry["result"] != "asked"]
    assert [(entry["action"], entry["object"], entry["project"]) for entry in made] == [
        ("person.create", "eve", ""),
        ("token.create", f"eve/{token}", ""),
        ("token.revoke", f"eve/{token}", ""),
        ("person.disable", "eve", ""),
        ("person.enable", "eve", ""),
        ("member.set", "bob=viewer", "shop"),
        ("member.remove", "bob", "shop"),
        ("member.remove", "/projects/shop/members/alice", "shop"),
        ("cluster.create", "web", "shop"),
        ("cluster.create", CLUSTERS, "shop"),
        ("cluster.change", 'web {"settings": {"maxPodsPerNode": 50}}', "shop"),
        ("cluster.delete", "web", "shop"),
        ("project.delete", "shop", "shop"),
    ]
    assert [entry["result"] for entry in made if entry["result"] != "done"] == ["refused: conflict"] * 2
    assert all(entry["requestId"] and entry["source"] == "127.0.0.1" and entry["agent"] for entry in made)


@pytest.mark.parametrize(
    ("error", "results"),
    [
        (RuntimeError("killed here"), ["asked"]),
        (UnavailableError("gone", hint="wait"), ["asked", "failed: unavailable"]),
    ],
)
async def test_a_change_that_did_not_end_well_is_on_record(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: Exception, results: list[str]
) -> None:
    create = MemoryClusters.create

    async def made_and_then(*arguments: Any) -> None:
        await create(*arguments)
        raise error

    monkeypatch.setattr(MemoryClusters, "create", made_and_then)
    await api.send("alice", "POST", CLUSTERS, json={"name": "web"})
    records = (await api.call("admin", "GET", "/audit"))["items"][::-1]
    assert [entry["result"] for entry in records if entry["action"] == "cluster.create"] == results


async def test_the_record_ends_with_its_last_page(api: Api) -> None:
    count = len((await api.call("admin", "GET", "/audit"))["items"])
    assert (await api.call("admin", "GET", f"/audit?limit={count}"))["continue"] is None
    page = await api.call("admin", "GET", f"/audit?limit={count - 1}")
    last = await api.call("admin", "GET", f"/audit?limit=5&continue={page['continue']}")
    assert (len(last["items"]), last["continue"]) == (1, None)


async def test_health_is_told_without_a_token(api: Api) -> None:
    for path, status in (("healthz", "alive"), ("readyz", "ready")):
        response = await api.send("", "GET", f"http://api/{path}")
        assert response.json() == {"status": status}
    assert await api.call("", "GET", "/version") == {"version": "test"}


async def test_the_description_of_the_api_is_whole(api: Api) -> None:
    described = await api.call("", "GET", "/openapi.json")
    routes = {
        (method.upper(), path.removeprefix("/api/v1"))
        for path, operations in described["paths"].items()
        for method in operations
    }
    person, project = "/people/{name}", "/projects/{project}"
    cluster = f"{project}/clusters/{{name}}"
    groups, robot = "/groups/{name}", f"{project}/robots/{{name}}"
    secret, link, sessions = (f"{person}/{name}" for name in ("sign-on-secret", "provider-link", "sessions"))
    machine, key = f"{project}/machines/{{name}}", f"{project}/machine-key"
    assert routes == {
        *{("GET", path) for path in (f"{project}/machines", machine, key)},
        *{("POST", path) for path in (f"{project}/machines", f"{machine}/check")},
        ("PUT", key),
        ("DELETE", machine),
        *{("GET", path) for path in ("/clients", sessions)},
        *{("POST", path) for path in ("/clients", secret)},
        ("PUT", link),
        *{("DELETE", path) for path in ("/clients/{client}", secret, f"{sessions}/{{session}}")},
        *{("GET", path) for path in ("/audit/head", "/groups", f"{groups}/members", f"{project}/groups")},
        *{("GET", path) for path in (f"{project}/robots", f"{robot}/tokens")},
        *{("POST", path) for path in ("/groups", f"{project}/robots", f"{robot}/rotate")},
        *{
            (method, path)
            for method in ("PUT", "DELETE")
            for path in (
                f"{groups}/members/{{person}}",
                f"{groups}/roles/{{role}}",
                f"{person}/roles/{{role}}",
                f"{project}/groups/{{group}}",
            )
        },
        *{("DELETE", path) for path in (groups, robot, f"{robot}/tokens/{{token}}")},
        *{
            ("GET", path)
            for path in ("/version", "/whoami", "/whoami/roles", "/people", "/projects", "/audit", cluster)
        },
        *{("GET", path) for path in (f"{person}/tokens", f"{project}/members", f"{project}/clusters")},
        *{(method, f"{cluster}/benchmark") for method in ("GET", "POST")},
        ("GET", f"{cluster}/events"),
        *{("POST", path) for path in ("/people", "/projects", f"{person}/tokens", f"{project}/clusters")},
        *{("POST", f"{cluster}/{action}") for action in ("credentials", "hibernate", "look", "wake")},
        *{("POST", f"{cluster}/{action}") for action in ("restore", "rotate-authorities", "upgrade")},
        *{("GET", path) for path in (f"{cluster}/backups", f"{project}/backups", f"{project}/upgrades")},
        ("GET", "/kubernetes-versions"),
        ("POST", f"{cluster}/token"),
        *{("PATCH", path) for path in (person, cluster)},
        *{("GET", path) for path in ("/quota", f"{project}/quota", "/usage")},
        *{(method, f"{person}/roles/{{role}}") for method in ("PUT", "DELETE")},
        *{("GET", f"/firewall/{path}") for path in ("requests", "requests/{identity}", "history", "export")},
        *{("POST", f"/firewall/requests/{{identity}}/{verb}") for verb in ("approve", "deny", "revoke")},
        *{("PUT", path) for path in ("/quota", f"{project}/quota", f"{project}/members/{{person}}")},
        *{
            ("DELETE", path)
            for path in (f"{person}/tokens/{{token}}", project, f"{project}/members/{{person}}", cluster)
        },
    }
    known = described["components"]["schemas"]
    for operation in (operation for operations in described["paths"].values() for operation in operations.values()):
        assert "application/problem+json" in operation["responses"]["default"]["content"]
    for reference in references(described):
        assert reference.removeprefix("#/components/schemas/") in known
    assert described["openapi"].startswith("3.1")


async def test_no_route_answers_strangers_and_none_whom_nothing_was_granted(api: Api) -> None:
    described = await api.call("", "GET", "/openapi.json")
    operations = [
        (path.removeprefix("/api/v1"), method) for path, known in described["paths"].items() for method in known
    ]
    assert len(operations) > 50
    for path, method in operations:
        if path == "/version":
            continue
        where = re.sub(r"{(\w+)}", lambda match: {"project": "shop", "role": "admin"}.get(match[1], "alice"), path)
        assert (await api.send("", method, where)).status_code == 401, (method, path)
        if (path, method) in {("/whoami", "get"), ("/projects", "get"), ("/projects", "post"), ("/usage", "get")}:
            continue
        if (path, method) in {(f"/firewall/{what}", "get") for what in ("requests", "history", "export")}:
            # Lists of what one may see, which for bob is nothing.
            listed = (await api.send("bob", method, where)).json()
            assert (listed if path == "/firewall/export" else listed["items"]) == []
            continue
        if (path, method) == ("/whoami/roles", "get"):
            assert (await api.send("bob", method, where)).json()["roles"] == {}
            continue
        # What everybody may see who is signed in, and what is not there for bob.
        seen = dict.fromkeys([("/groups", "get"), ("/quota", "get"), ("/kubernetes-versions", "get")], 200)
        seen["/groups/{name}/members", "get"] = 404
        answer = await api.send("bob", method, where)
        allowed = {seen[path, method]} if (path, method) in seen else {403, 404, 422}
        assert answer.status_code in allowed, (method, path, answer.text)


def references(part: Any) -> list[str]:
    if isinstance(part, list):
        return [found for entry in part for found in references(entry)]
    if not isinstance(part, dict):
        return []
    here = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
    return here + [found for entry in part.values() for found in references(entry)]
