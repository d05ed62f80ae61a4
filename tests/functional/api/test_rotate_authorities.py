"""Asking for new authorities: who may, when it is refused, and what is written down."""

from __future__ import annotations

from typing import Any

from haneul.dkos.model import ClusterStatus, Condition, ConditionType
from haneul.dkos.states import OLD_TRUSTED
from tests.functional.api.application import START, Api

CLUSTER = "/projects/shop/clusters/web"
ROTATE = f"{CLUSTER}/rotate-authorities"


async def see(api: Api, *, status: str, reason: str = "AuthoritiesCurrent") -> None:
    """Let the operator have looked at the cluster as it is asked for now."""
    cluster = await api.store.get("shop", "web")
    condition = Condition(
        type=ConditionType.AUTHORITIES_CURRENT, status=status, reason=reason, message="…", last_transition_time=START
    )
    seen = ClusterStatus(observed_generation=cluster.generation, conditions=(condition,))
    api.store._keep("modified", cluster.model_copy(update={"status": seen}))


async def revision(api: Api) -> Any:
    return (await api.call("alice", "GET", CLUSTER))["spec"]["authorities"]["revision"]


async def test_owners_alone_ask_for_new_authorities_and_it_is_recorded(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    await see(api, status="True")
    await api.call("bob", "POST", ROTATE, {}, status=404)
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "developer"})
    await api.call("bob", "POST", ROTATE, {}, status=403)
    # Nor is there another way to ask.
    changed = await api.send("bob", "PATCH", CLUSTER, json={"authorities": {"revision": 5}})
    assert changed.status_code == 422
    assert "rotate-authorities" in changed.json()["hint"]
    made = await api.call("alice", "POST", ROTATE, {"graceSeconds": 5}, status=202)
    assert made["spec"]["authorities"] == {"revision": 1, "graceSeconds": 5}
    record = (await api.call("admin", "GET", "/audit"))["items"][0]
    assert (record["person"], record["action"]) == ("alice", "cluster.rotate-authorities")


async def test_one_replacement_at_a_time(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    await api.call("alice", "POST", ROTATE, {}, status=409)
    await see(api, status="True")
    await api.call("alice", "POST", ROTATE, {}, status=202)
    # The operator has not seen it yet, then is at it.
    await api.call("alice", "POST", ROTATE, {}, status=409)
    await see(api, status="False", reason="ReplacingNodes")
    await api.call("alice", "POST", ROTATE, {}, status=409)
    assert await revision(api) == 1
    # While only time has to pass, that is what can be asked for.
    await see(api, status="True", reason=OLD_TRUSTED)
    shortened = await api.call("alice", "POST", ROTATE, {"graceSeconds": 0}, status=202)
    assert shortened["spec"]["authorities"] == {"revision": 1, "graceSeconds": 0}
    await see(api, status="True")
    await api.call("alice", "POST", ROTATE, {}, status=202)
    assert await revision(api) == 2


async def test_a_grace_has_its_bounds(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    await see(api, status="True")
    for grace in (-1, 31 * 24 * 3600, "long"):
        await api.call("alice", "POST", ROTATE, {"graceSeconds": grace}, status=422)
    assert await revision(api) == 0
