"""Robots through the API: what they may, how their tokens end, and how they rotate."""

from __future__ import annotations

from typing import Any

from tests.functional.api.application import Api

ROBOTS = "/projects/shop/robots"


async def make(api: Api, name: str, role: str, by: str = "alice") -> Any:
    made = await api.call(by, "POST", ROBOTS, {"name": name, "role": role}, status=201)
    api.tokens[name] = made["secret"]
    return made


async def test_a_robot_works_in_its_project_and_nowhere_else(api: Api) -> None:
    await make(api, "ci", "developer")
    await api.call("admin", "POST", "/projects", {"name": "other"}, status=201)
    caller = await api.call("ci", "GET", "/whoami")
    assert (caller["person"], caller["kind"], caller["platformRoles"]) == ("robot:shop/ci", "robot", [])
    await api.call("ci", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    await api.call("ci", "GET", "/projects/other/clusters", status=404)
    assert [project["name"] for project in await api.call("ci", "GET", "/projects")] == ["shop"]
    record = (await api.call("admin", "GET", "/audit?limit=1"))["items"][0]
    assert (record["person"], record["action"]) == ("robot:shop/ci", "cluster.create")


async def test_a_robot_manages_nothing_whatever_its_role(api: Api) -> None:
    await make(api, "boss", "owner")
    refused = [
        ("POST", "/projects", {"name": "more"}),
        ("PUT", "/projects/shop/members/bob", {"role": "owner"}),
        ("POST", ROBOTS, {"name": "child", "role": "viewer"}),
        ("POST", f"{ROBOTS}/boss/rotate", {}),
        ("POST", "/people/alice/tokens", {}),
        ("GET", "/audit?project=shop", None),
        ("DELETE", "/projects/shop", None),
    ]
    for method, path, body in refused:
        await api.call("boss", method, path, body, status=403)


async def test_a_robots_role_is_at_most_its_makers(api: Api) -> None:
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "developer"})
    await api.call("bob", "POST", ROBOTS, {"name": "boss", "role": "owner"}, status=403)
    await make(api, "mine", "developer", by="bob")
    await make(api, "boss", "owner")
    # Its token would be a way up.
    await api.call("bob", "POST", f"{ROBOTS}/boss/rotate", {}, status=403)
    await api.call("bob", "DELETE", f"{ROBOTS}/boss", status=403)
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "viewer"})
    await api.call("bob", "POST", ROBOTS, {"name": "more", "role": "viewer"}, status=403)
    assert [robot["name"] for robot in await api.call("bob", "GET", ROBOTS)] == ["boss", "mine"]


async def test_rotation_stops_nothing(api: Api) -> None:
    await make(api, "ci", "viewer")
    api.tokens["old"] = api.tokens["ci"]
    made = await api.call("alice", "POST", f"{ROBOTS}/ci/rotate", {"overlapHours": 1}, status=201)
    api.tokens["ci"] = made["secret"]
    for name in ("old", "ci"):
        await api.call(name, "GET", "/whoami")
    api.clock.advance(3601)
    await api.call("old", "GET", "/whoami", status=401)
    await api.call("ci", "GET", "/whoami")
    # Rotating never makes an old token live longer.
    await api.call("alice", "POST", f"{ROBOTS}/ci/rotate", {"overlapHours": 168}, status=201)
    await api.call("old", "GET", "/whoami", status=401)
    await api.call("alice", "POST", f"{ROBOTS}/ci/rotate", {"overlapHours": 169}, status=422)


async def test_a_robots_token_ends_by_revocation_by_time_and_with_the_robot(api: Api) -> None:
    first = await make(api, "ci", "viewer")
    await api.call("alice", "DELETE", f"{ROBOTS}/ci/tokens/{first['token']['id']}", status=204)
    await api.call("ci", "GET", "/whoami", status=401)
    await api.call("alice", "DELETE", f"{ROBOTS}/ci/tokens/none", status=404)
    await make(api, "cd", "viewer")
    tokens = await api.call("alice", "GET", f"{ROBOTS}/cd/tokens")
    assert [sorted(token) for token in tokens] == [["created", "expires", "id", "lastUsed", "revoked"]]
    await api.call("alice", "DELETE", f"{ROBOTS}/cd", status=204)
    await api.call("cd", "GET", "/whoami", status=401)
    await make(api, "ce", "viewer")
    api.clock.advance(91 * 86400)
    await api.call("ce", "GET", "/whoami", status=401)


async def test_robots_go_with_their_project_and_stay_when_their_maker_goes(api: Api) -> None:
    await make(api, "ci", "viewer")
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "owner"})
    await api.call("bob", "DELETE", "/projects/shop/members/alice", status=204)
    await api.call("ci", "GET", "/projects/shop/clusters")
    await api.call("bob", "DELETE", "/projects/shop", status=204)
    await api.call("ci", "GET", "/whoami", status=401)


async def test_robots_that_cannot_be_are_refused(api: Api) -> None:
    await make(api, "ci", "viewer")
    await api.call("alice", "POST", ROBOTS, {"name": "ci"}, status=409)
    await api.call("alice", "POST", ROBOTS, {"name": "CI"}, status=422)
    await api.call("alice", "POST", ROBOTS, {"name": "cd", "days": 0}, status=422)
    await api.call("alice", "POST", f"{ROBOTS}/absent/rotate", {}, status=404)
    await api.call("alice", "DELETE", f"{ROBOTS}/absent", status=404)
