"""Groups and platform roles through the API."""

from __future__ import annotations

from tests.functional.api.application import Api


async def test_the_best_of_own_and_groups_roles_counts(api: Api) -> None:
    await api.call("admin", "POST", "/groups", {"name": "devs"}, status=201)
    await api.call("admin", "PUT", "/groups/devs/members/bob", status=204)
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "viewer"})
    await api.call("bob", "POST", "/projects/shop/clusters", {"name": "web"}, status=403)
    await api.call("alice", "PUT", "/projects/shop/groups/devs", {"role": "developer"})
    await api.call("bob", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    await api.call("alice", "DELETE", "/projects/shop/members/bob", status=204)
    assert [project["name"] for project in await api.call("bob", "GET", "/projects")] == ["shop"]
    assert await api.call("bob", "GET", "/projects/shop/groups") == [{"group": "devs", "role": "developer"}]
    assert (await api.call("bob", "GET", "/whoami"))["groups"] == ["devs"]
    await api.call("admin", "DELETE", "/groups/devs/members/bob", status=204)
    await api.call("bob", "GET", "/projects/shop/clusters", status=404)
    assert await api.call("bob", "GET", "/projects") == []


async def test_an_owning_group_lets_the_last_owner_leave_and_then_keeps_its_people(api: Api) -> None:
    await api.call("admin", "POST", "/groups", {"name": "leads"}, status=201)
    await api.call("alice", "PUT", "/projects/shop/groups/leads", {"role": "owner"})
    # Nobody is in it yet.
    await api.call("alice", "DELETE", "/projects/shop/members/alice", status=409)
    await api.call("admin", "PUT", "/groups/leads/members/bob", status=204)
    await api.call("alice", "DELETE", "/projects/shop/members/alice", status=204)
    for path in ("/groups/leads/members/bob", "/groups/leads"):
        problem = await api.call("admin", "DELETE", path, status=409)
        assert "shop would be left without an owner" in problem["detail"]
    await api.call("bob", "DELETE", "/projects/shop/groups/leads", status=409)
    await api.call("bob", "PUT", "/projects/shop/groups/leads", {"role": "viewer"}, status=409)
    await api.call("bob", "GET", "/projects/shop/clusters")


async def test_a_group_of_the_provider_is_no_projects_only_owner(api: Api) -> None:
    await api.call("admin", "POST", "/groups", {"name": "corp", "external": "CN=Shop"}, status=201)
    await api.call("admin", "PUT", "/groups/corp/members/bob", status=409)
    await api.call("alice", "PUT", "/projects/shop/groups/corp", {"role": "owner"})
    await api.call("alice", "DELETE", "/projects/shop/members/alice", status=409)
    await api.call("admin", "POST", "/groups", {"name": "other", "external": "CN=Shop"}, status=409)


async def test_groups_are_made_by_administrators(api: Api) -> None:
    for method, path in (
        ("POST", "/groups"),
        ("PUT", "/groups/x/members/alice"),
        ("DELETE", "/groups/x/members/alice"),
        ("DELETE", "/groups/x"),
        ("PUT", "/groups/x/roles/admin"),
        ("PUT", "/people/alice/roles/admin"),
        ("DELETE", "/people/admin/roles/admin"),
    ):
        await api.call("alice", method, path, {"name": "x"} if method == "POST" else None, status=403)
    await api.call("bob", "PUT", "/projects/shop/groups/x", {"role": "owner"}, status=404)


async def test_platform_roles_come_from_oneself_and_from_groups(api: Api) -> None:
    await api.call("admin", "POST", "/groups", {"name": "ops"}, status=201)
    await api.call("admin", "PUT", "/groups/ops/members/bob", status=204)
    await api.call("admin", "PUT", "/groups/ops/roles/admin", status=204)
    await api.call("admin", "PUT", "/people/bob/roles/firewall-approver", status=204)
    caller = await api.call("bob", "GET", "/whoami")
    assert (caller["platformRoles"], caller["admin"]) == (["admin", "firewall-approver"], True)
    await api.call("bob", "GET", "/people")
    await api.call("admin", "PUT", "/people/bob/roles/king", status=422)
    await api.call("admin", "PUT", "/people/nobody/roles/auditor", status=404)
    await api.call("admin", "DELETE", "/people/bob/roles/auditor", status=404)


async def test_the_platform_keeps_an_administrator_who_may_sign_in(api: Api) -> None:
    problem = await api.call("admin", "DELETE", "/people/admin/roles/admin", status=409)
    assert "without an administrator" in problem["detail"]
    await api.call("admin", "POST", "/groups", {"name": "ops"}, status=201)
    await api.call("admin", "PUT", "/groups/ops/roles/admin", status=204)
    await api.call("admin", "DELETE", "/people/admin/roles/admin", status=409)
    await api.call("admin", "PUT", "/groups/ops/members/bob", status=204)
    await api.call("admin", "DELETE", "/people/admin/roles/admin", status=204)
    await api.call("bob", "DELETE", "/groups/ops/members/bob", status=409)
    await api.call("bob", "DELETE", "/groups/ops/roles/admin", status=409)
    await api.call("bob", "PUT", "/people/admin/roles/admin", status=204)
    await api.call("admin", "PATCH", "/people/bob", {"disabled": True})
    await api.call("admin", "DELETE", "/people/admin/roles/admin", status=409)
