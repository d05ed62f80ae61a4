"""Tokens for clusters through the API: for whom, for what, for how long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.functional.api.application import ORIGIN, START, Api, running_api

CLUSTER = "/projects/shop/clusters/web"


@pytest.fixture
async def trusting(tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(tmp_path, clusters_trust_issuer=True) as api:
        await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
        yield api


async def claims_of(api: Api, token: str) -> Any:
    keys = KeySet.import_key_set((await api.browser().get("/oidc/keys")).json())
    return jwt.decode(token, keys, algorithms=["ES256"]).claims


async def test_a_token_is_for_one_cluster_in_ones_role_and_half_a_minute(trusting: Api) -> None:
    made = await trusting.call("alice", "POST", f"{CLUSTER}/token", status=201)
    uid = (await trusting.store.get("shop", "web")).uid
    now = int(START.timestamp())
    assert await claims_of(trusting, made["token"]) == {
        "iss": f"{ORIGIN}/oidc",
        "sub": "alice",
        "aud": f"haneul:cluster:{uid}",
        "groups": ["owners"],
        "iat": now,
        "exp": now + 30,
    }
    assert (made["server"], "CERTIFICATE" in made["certificateAuthority"]) == ("https://192.0.2.9:30000", True)
    # It is no way into the platform.
    async with trusting.client(made["token"]) as client:
        assert (await client.get("/whoami")).status_code == 401


async def test_roles_and_robots_get_their_groups(trusting: Api) -> None:
    await trusting.call("bob", "POST", f"{CLUSTER}/token", status=404)
    await trusting.call("alice", "PUT", "/projects/shop/members/bob", {"role": "viewer"})
    made = await trusting.call("bob", "POST", f"{CLUSTER}/token", status=201)
    assert (await claims_of(trusting, made["token"]))["groups"] == ["viewers"]
    robot = await trusting.call("alice", "POST", "/projects/shop/robots", {"name": "ci"}, status=201)
    trusting.tokens["ci"] = robot["secret"]
    made = await trusting.call("ci", "POST", f"{CLUSTER}/token", status=201)
    claims = await claims_of(trusting, made["token"])
    assert (claims["sub"], claims["groups"]) == ("robot:shop/ci", ["developers"])


async def test_who_leaves_gets_no_more_tokens_and_never_a_certificate(trusting: Api) -> None:
    body = {"certificateRequest": "whatever"}
    problem = await trusting.call("alice", "POST", f"{CLUSTER}/credentials", body, status=409)
    assert "end within a minute" in problem["detail"]
    await trusting.call("admin", "PATCH", "/people/alice", {"disabled": True})
    await trusting.call("alice", "POST", f"{CLUSTER}/token", status=401)


async def test_tokens_are_on_record_once_an_hour(trusting: Api) -> None:
    for seconds in (0, 30, 3600):
        trusting.clock.advance(seconds)
        await trusting.call("alice", "POST", f"{CLUSTER}/token", status=201)
    records = (await trusting.call("admin", "GET", "/audit?project=shop"))["items"]
    assert [record["result"] for record in records if record["action"] == "cluster.token"] == ["done", "asked"] * 2


async def test_where_clusters_do_not_trust_the_issuer_there_are_certificates(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    problem = await api.call("alice", "POST", f"{CLUSTER}/token", status=409)
    assert "certificate" in problem["hint"]
    await api.call("alice", "POST", "/projects/shop/clusters/absent/token", status=404)
