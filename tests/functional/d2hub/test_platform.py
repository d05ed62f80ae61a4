"""A hub whose people are a platform's: the real API in this process, the hub in one of its own."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from haneul.d2hub.adapters.http_platform import HttpPlatform
from haneul.d2hub.model import ProjectRole, Standing
from haneul.kernel.errors import InvalidInputError, UnavailableError
from tests.functional.api.application import Api, running_api, served
from tests.functional.d2hub.hub import Hub, image, sha256


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    folder = tmp_path / "platform"
    folder.mkdir()
    async with running_api(folder) as api:
        yield api


@pytest.fixture
async def platform(api: Api) -> AsyncIterator[HttpPlatform]:
    transport = httpx2.ASGITransport(app=api.app, raise_app_exceptions=False)
    platform = HttpPlatform("https://platform.test", transport=transport)
    yield platform
    await platform.close()


async def test_people_have_their_own_and_their_groups_roles(api: Api, platform: HttpPlatform) -> None:
    await api.call("alice", "POST", "/projects", {"name": "lab"}, status=201)
    await api.call("alice", "PUT", "/projects/lab/members/bob", {"role": "viewer"})
    await api.call("admin", "POST", "/groups", {"name": "ops"}, status=201)
    await api.call("admin", "PUT", "/groups/ops/members/bob", status=204)
    await api.call("alice", "PUT", "/projects/lab/groups/ops", {"role": "developer"})
    assert await platform.standing(api.tokens["alice"]) == Standing(
        "alice", roles={"lab": ProjectRole.OWNER, "shop": ProjectRole.OWNER}
    )
    assert await platform.standing(api.tokens["bob"]) == Standing("bob", roles={"lab": ProjectRole.DEVELOPER})
    admin = await platform.standing(api.tokens["admin"])
    assert admin is not None
    assert admin.admin


async def test_robots_have_one_role(api: Api, platform: HttpPlatform) -> None:
    made = await api.call("alice", "POST", "/projects/shop/robots", {"name": "ci", "role": "developer"}, status=201)
    assert await platform.standing(made["secret"]) == Standing("robot:shop/ci", roles={"shop": ProjectRole.DEVELOPER})
    await api.call("alice", "DELETE", "/projects/shop/robots/ci", status=204)
    assert await platform.standing(made["secret"]) is None


async def test_tokens_that_are_nobodys(api: Api, platform: HttpPlatform) -> None:
    for secret in ("haneul_0123_wrong", "nonsense", "a b", "a\nb", "é", "haneul__"):
        assert await platform.standing(secret) is None, secret
    await api.call("admin", "PATCH", "/people/alice", {"disabled": True})
    assert await platform.standing(api.tokens["alice"]) is None


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(500),
        httpx2.Response(503, text="away"),
        httpx2.Response(302, headers={"location": "https://elsewhere.test/"}),
        httpx2.Response(404),
        httpx2.Response(200, text="<html>"),
        httpx2.Response(200, json={"caller": {"person": "alice"}}),
        httpx2.Response(200, content=b" " * (2 << 20)),
    ],
    ids=["broken", "away", "redirect", "older", "no JSON", "less", "too much"],
)
async def test_an_answer_that_is_none_lets_nobody_in(answer: httpx2.Response) -> None:
    platform = HttpPlatform("https://platform.test", transport=httpx2.MockTransport(lambda _: answer))
    with pytest.raises(UnavailableError) as refused:
        await platform.standing("haneul_0123_secret")
    assert "secret" not in str(refused.value)
    await platform.close()


async def test_a_platform_that_is_not_there_lets_nobody_in() -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused", request=request)

    platform = HttpPlatform("https://platform.test", transport=httpx2.MockTransport(refuse))
    with pytest.raises(UnavailableError):
        await platform.standing("haneul_0123_secret")
    await platform.close()


@pytest.mark.parametrize(
    "url", ["platform.test", "http://platform.test", "ftp://platform.test", "https://", "https://a:b@c", "https://a/b"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(InvalidInputError):
        HttpPlatform(url)


async def test_an_authority_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("nothing")
    for path in (tmp_path / "ca.crt", tmp_path / "none.crt"):
        with pytest.raises(InvalidInputError):
            HttpPlatform("https://platform.test", authority=path)


async def test_people_and_robots_push_and_pull_with_their_tokens(api: Api, tmp_path: Path) -> None:
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "viewer"})
    made = await api.call("alice", "POST", "/projects/shop/robots", {"name": "ci", "role": "developer"}, status=201)
    data = tmp_path / "data"
    data.mkdir()
    (data / "accounts.yaml").write_text("projects: {shop: {public: false}, open: {public: true}}\n")
    pictured = image(b"layer")
    async with served(api) as address:
        hub = Hub(data, "--plain-http", "--platform", address)
        try:
            await asyncio.to_thread(hub.start)
            async with httpx2.AsyncClient(base_url=hub.url, timeout=30, trust_env=False) as http:
                robot = await _token(http, "shop/ci", made["secret"], "pull,push,delete")
                for blob in (pictured.config, *pictured.layers):
                    begun = await http.post("/v2/shop/web/blobs/uploads/", headers=robot)
                    assert begun.status_code == 202, begun.text
                    put = await http.put(
                        begun.headers["location"], params={"digest": sha256(blob)}, content=blob, headers=robot
                    )
                    assert put.status_code == 201, put.text
                kind = {"Content-Type": pictured.media_type}
                pushed = await http.put("/v2/shop/web/manifests/v1", content=pictured.manifest, headers=robot | kind)
                assert pushed.status_code == 201, pushed.text
                assert (await http.delete("/v2/shop/web/manifests/v1", headers=robot)).status_code == 403
                viewer = await _token(http, "bob", api.tokens["bob"], "pull,push")
                assert (await http.get("/v2/shop/web/manifests/v1", headers=viewer)).status_code == 200
                assert (await http.post("/v2/shop/web/blobs/uploads/", headers=viewer)).status_code == 403
                for name, secret in (("alice", api.tokens["bob"]), ("ci", made["secret"]), ("alice", "wrong")):
                    assert (await _asked(http, name, secret, "pull")).status_code == 401, name
                owner = await _token(http, "alice", api.tokens["alice"], "pull", "repository:shop:delete")
                records = await http.get("/api/v1/audit", params={"project": "shop"}, headers=owner)
                done = {(entry["action"], entry["account"]) for entry in records.json()["items"]}
                assert ("push", "robot:shop/ci") in done
                admin = await _token(http, "admin", api.tokens["admin"], "pull", "registry:maintenance:*")
                assert (await http.post("/api/v1/collections", json={}, headers=admin)).status_code == 200
        except BaseException:
            _end(hub)
            raise
    # From here on nobody answers there.
    try:
        async with httpx2.AsyncClient(base_url=hub.url, timeout=30, trust_env=False) as http:
            away = await _asked(http, "carol", "haneul_0123_of-carol", "pull")
            assert away.status_code == 503
            assert away.headers["retry-after"]
            assert away.json()["errors"][0]["code"] == "UNAVAILABLE"
            assert (await http.get("/v2/open/web/tags/list")).status_code == 404
    finally:
        _end(hub)


async def _asked(http: httpx2.AsyncClient, name: str, secret: str, actions: str, *also: str) -> httpx2.Response:
    scopes = [f"repository:shop/web:{actions}", *also]
    auth = base64.b64encode(f"{name}:{secret}".encode()).decode()
    return await http.get(
        "/token", params={"service": "d2hub", "scope": scopes}, headers={"Authorization": f"Basic {auth}"}
    )


async def _token(http: httpx2.AsyncClient, name: str, secret: str, actions: str, *also: str) -> dict[str, str]:
    answer = await _asked(http, name, secret, actions, *also)
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def _end(hub: Hub) -> None:
    if hub.process is not None and hub.process.poll() is None:
        hub.kill()
    hub.reserved.close()
