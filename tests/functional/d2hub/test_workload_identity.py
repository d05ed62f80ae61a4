"""Workloads at a hub: an issuer in this process, the hub in one of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from haneul.d2hub.adapters.http_issuers import HttpIssuers
from haneul.d2hub.issuer_keys import KeySource
from haneul.kernel.errors import UnavailableError
from tests.functional.d2hub.hub import SECRET, Hub, codes, image, running, sha256
from tests.functional.d2hub.issuer import AUDIENCE, Issuer, served_issuer

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"
TRUST = """issuers:
  ci:
    issuer: {issuer}
    audience: {audience}
    rules:
      - claims: {{sub: "repo:acme/web:*"}}
        repositories: [shop/web]
        actions: [pull, push]
"""


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with served_issuer(int(time.time())) as issuer:
        yield issuer


@pytest.fixture(scope="module")
def hub(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    data = tmp_path_factory.mktemp("workloads") / "data"
    data.mkdir()
    (data / "accounts.yaml").write_text("projects: {open: {public: true}}\n")
    (data / "workloads.yaml").write_text(TRUST.format(issuer=issuer.url, audience=AUDIENCE))
    with running(data, "--plain-http") as hub:
        yield hub


def signed_in(hub: Hub, token: str, *scopes: str) -> httpx2.Response:
    with hub.browser() as http:
        return http.get("/token", params={"service": "d2hub", "scope": scopes}, auth=("oidc", token))


def exchanged(hub: Hub, **form: Any) -> httpx2.Response:
    whole = {"grant_type": EXCHANGE, "subject_token_type": JWT, "scope": "repository:shop/web:pull,push", **form}
    with hub.browser() as http:
        return http.post("/token", data=whole)


def bearer(answer: httpx2.Response) -> dict[str, str]:
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def test_a_build_pushes_and_pulls_as_docker_does(hub: Hub, issuer: Issuer) -> None:
    made = image(b"layer")
    header = bearer(signed_in(hub, issuer.token(), "repository:shop/web:pull,push,delete"))
    with hub.browser() as http:
        for blob in (made.config, *made.layers):
            begun = http.post("/v2/shop/web/blobs/uploads/", headers=header)
            assert begun.status_code == 202, begun.text
            put = http.put(begun.headers["location"], params={"digest": sha256(blob)}, content=blob, headers=header)
            assert put.status_code == 201, put.text
        kind = {"Content-Type": made.media_type}
        pushed = http.put("/v2/shop/web/manifests/v1", content=made.manifest, headers=header | kind)
        assert pushed.status_code == 201, pushed.text
        assert http.get("/v2/shop/web/manifests/v1", headers=header).status_code == 200
        assert http.delete("/v2/shop/web/manifests/v1", headers=header).status_code == 403
        hub.user("owner", shop="owner")
        owner = http.get("/token", params={"scope": "repository:shop:delete"}, auth=("owner", SECRET)).json()
        records = http.get(
            "/api/v1/audit", params={"project": "shop"}, headers={"Authorization": f"Bearer {owner['token']}"}
        ).json()["items"]
    assert {entry["account"] for entry in records if entry["action"] == "push"} == {"oidc:ci:repo:acme/web:main"}


def test_elsewhere_it_may_what_everybody_may(hub: Hub, issuer: Issuer) -> None:
    scopes = [f"repository:{name}:pull,push" for name in ("shop/other", "open/web")]
    header = bearer(signed_in(hub, issuer.token(), *scopes, "registry:catalog:*", "registry:maintenance:*"))
    with hub.browser() as http:
        assert http.get("/v2/shop/other/tags/list", headers=header).status_code == 403
        assert http.get("/v2/open/web/tags/list", headers=header).status_code == 404
        assert http.post("/v2/open/web/blobs/uploads/", headers=header).status_code == 403
        assert http.post("/api/v1/collections", json={}, headers=header).status_code == 403


def test_token_exchange_by_its_specification(hub: Hub, issuer: Issuer) -> None:
    answer = exchanged(hub, subject_token=issuer.token())
    assert answer.headers["cache-control"] == "no-store"
    said = answer.json()
    assert (said["token_type"], said["issued_token_type"]) == (
        "Bearer",
        "urn:ietf:params:oauth:token-type:access_token",
    )
    assert said["access_token"]
    assert 0 < said["expires_in"] <= 300
    with hub.browser() as http:
        header = {"Authorization": f"Bearer {said['access_token']}"}
        assert http.post("/v2/shop/web/blobs/uploads/", headers=header).status_code == 202


def test_what_is_not_exchanged(hub: Hub, issuer: Issuer) -> None:
    good = issuer.token()
    wrong: list[dict[str, Any]] = [
        {},
        {"subject_token": issuer.token(aud="https://other.test")},
        {"subject_token": issuer.token(exp=issuer.now - 3600)},
        {"subject_token": issuer.token(sub="repo:other/web:main")},
        {"subject_token": "no token"},
        {"subject_token": good, "subject_token_type": "urn:ietf:params:oauth:token-type:saml2"},
        {"subject_token": good, "requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
        {"subject_token": good, "actor_token": good},
    ]
    for form in wrong:
        answer = exchanged(hub, **form)
        assert answer.status_code == 400, form
        said = answer.json()
        assert said["error"] == "invalid_request"
        assert said["error_description"]
        assert codes(answer)


def test_what_does_not_sign_in(hub: Hub, issuer: Issuer) -> None:
    expired = signed_in(hub, issuer.token(exp=issuer.now - 3600))
    assert (expired.status_code, codes(expired)) == (401, ["UNAUTHORIZED"])
    assert "expired" in expired.text
    unknown = signed_in(hub, issuer.token(sub="repo:other/web:main"))
    assert (unknown.status_code, codes(unknown)) == (403, ["DENIED"])
    assert signed_in(hub, "not three parts").status_code == 401


async def test_keys_of_a_running_issuer(issuer: Issuer, tmp_path: Path) -> None:
    found = await HttpIssuers().fetch(KeySource(issuer.url))
    assert [key.kid for key in found.keys] == [key.kid for key in issuer.keys]
    assert await HttpIssuers().fetch(KeySource(issuer.url, jwks_url=f"{issuer.url}/keys"))
    (tmp_path / "keys").write_text(json.dumps(issuer.jwks()))
    assert await HttpIssuers().fetch(KeySource("https://far.test", jwks_file=tmp_path / "keys"))
    with pytest.raises(UnavailableError):
        await HttpIssuers().fetch(KeySource(issuer.url, jwks_url=f"{issuer.url}/none"))


def answering(**documents: httpx2.Response) -> HttpIssuers:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return documents["keys" if request.url.path == "/keys" else "discovery"]

    return HttpIssuers(transport=httpx2.MockTransport(answer))


@pytest.mark.parametrize(
    "discovery",
    [
        httpx2.Response(500),
        httpx2.Response(302, headers={"location": "https://elsewhere.test/"}),
        httpx2.Response(200, text="<html>"),
        httpx2.Response(200, json=[]),
        httpx2.Response(200, json={"issuer": "https://other.test", "jwks_uri": "https://ci.test/keys"}),
        httpx2.Response(200, json={"issuer": "https://ci.test", "jwks_uri": "https://other.test/keys"}),
        httpx2.Response(200, json={"issuer": "https://ci.test", "jwks_uri": "http://ci.test/keys"}),
        httpx2.Response(200, json={"issuer": "https://ci.test", "jwks_uri": 7}),
        httpx2.Response(200, content=b" " * (300 << 10)),
        httpx2.Response(200, content=b"[" * 100_000),
    ],
)
async def test_discovery_that_is_not_followed(discovery: httpx2.Response) -> None:
    issuers = answering(discovery=discovery, keys=httpx2.Response(200, json=Issuer("https://ci.test", now=0).jwks()))
    with pytest.raises(UnavailableError):
        await issuers.fetch(KeySource("https://ci.test"))


@pytest.mark.parametrize("keys", [{}, {"keys": []}, {"keys": [{"kty": "EC"}]}, {"keys": [{"kty": "oct", "k": "YQ"}]}])
async def test_keys_that_are_none(keys: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(json.dumps(keys))
    with pytest.raises(UnavailableError):
        await HttpIssuers().fetch(KeySource("https://ci.test", jwks_file=tmp_path / "keys"))
    issuers = answering(keys=httpx2.Response(200, json=keys))
    with pytest.raises(UnavailableError):
        await issuers.fetch(KeySource("https://ci.test", jwks_url="https://ci.test/keys"))


async def test_a_file_that_is_not_there_and_an_authority_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        await HttpIssuers().fetch(KeySource("https://ci.test", jwks_file=tmp_path / "none"))
    with pytest.raises(UnavailableError):
        await HttpIssuers().fetch(KeySource("https://ci.test", authority=tmp_path / "none"))


def test_skopeo_signs_in_as_a_build(hub: Hub, issuer: Issuer, tmp_path: Path) -> None:
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        pytest.skip("skopeo is not installed")
    host, files = hub.url.removeprefix("http://"), ["--authfile", str(tmp_path / "auth.json")]
    plain = "--tls-verify=false"
    login = [skopeo, "login", *files, plain, "--username", "oidc", "--password-stdin", host]
    layout = f"dir:{tmp_path / 'image'}"
    made = image(b"of skopeo")
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "version").write_text("Directory Transport Version: 1.1\n")
    (tmp_path / "image" / "manifest.json").write_bytes(made.manifest)
    for blob in (made.config, *made.layers):
        (tmp_path / "image" / sha256(blob).removeprefix("sha256:")).write_bytes(blob)
    for command in (login, [skopeo, "copy", *files, "--dest-tls-verify=false", layout, f"docker://{host}/shop/web:v2"]):
        done = subprocess.run(command, input=issuer.token(), capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr
    done = subprocess.run(login, input="not a token", capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode != 0
