"""Docker's token authentication, and what tokens allow."""

from __future__ import annotations

import re

import pytest

from haneul.app.d2hub import accounts_of
from tests.functional.d2hub.hub import SECRET, Client, Hub, codes, image, sha256


def challenge(header: str) -> dict[str, str]:
    assert header.startswith("Bearer ")
    return dict(re.findall(r'(\w+)="([^"]*)"', header))


def test_a_request_without_a_token_is_told_where_to_get_one(hub: Hub, repository: str) -> None:
    with hub.browser() as http:
        base = http.get("/v2/")
        assert base.status_code == 401
        assert codes(base) == ["UNAUTHORIZED"]
        assert base.headers["docker-distribution-api-version"] == "registry/2.0"
        said = challenge(base.headers["www-authenticate"])
        assert (said["realm"], said["service"]) == (f"{hub.url}/token", "d2hub")
        pull = challenge(http.get(f"/v2/{repository}/manifests/v1").headers["www-authenticate"])
        assert pull["scope"] == f"repository:{repository}:pull"
        push = challenge(http.post(f"/v2/{repository}/blobs/uploads/").headers["www-authenticate"])
        assert push["scope"] == f"repository:{repository}:pull,push"


def test_every_endpoint_wants_a_token(hub: Hub, repository: str) -> None:
    digest = sha256(b"")
    asked = [
        ("GET", "manifests/v1"), ("HEAD", "manifests/v1"), ("PUT", "manifests/v1"), ("DELETE", "manifests/v1"),
        ("GET", f"blobs/{digest}"), ("HEAD", f"blobs/{digest}"), ("DELETE", f"blobs/{digest}"),
        ("POST", "blobs/uploads/"), ("PATCH", "blobs/uploads/x"), ("PUT", "blobs/uploads/x"),
        ("GET", "blobs/uploads/x"), ("DELETE", "blobs/uploads/x"), ("GET", "tags/list"), ("GET", f"referrers/{digest}"),
    ]  # fmt: skip
    with hub.browser() as http:
        for method, path in asked:
            assert http.request(method, f"/v2/{repository}/{path}").status_code == 401, (method, path)
        for method, path in (
            ("GET", "repositories"),
            ("GET", "usage"),
            ("POST", "collections"),
            ("GET", "tags?repository=a/b"),
        ):
            assert http.request(method, f"/api/v1/{path}").status_code == 401, path


def test_a_wrong_secret_gets_nothing(hub: Hub) -> None:
    with hub.browser() as http:
        for auth in (("owner", "wrong"), ("nobody", SECRET), ("owner", "")):
            answer = http.get("/token", params={"service": "d2hub"}, auth=auth)
            assert answer.status_code == 401
            assert codes(answer) == ["UNAUTHORIZED"]


def test_tokens_by_the_oauth_form(hub: Hub, client: Client) -> None:
    client.push(image(b"layer"), "v1")
    form = {
        "grant_type": "password",
        "service": "d2hub",
        "client_id": "test",
        "username": "owner",
        "password": SECRET,
        "scope": f"repository:{client.repository}:pull",
    }
    with hub.browser() as http:
        token = http.post("/token", data=form).json()["access_token"]
        answer = http.get(client.path("manifests/v1"), headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200
        assert http.post("/token", data={**form, "password": "wrong"}).status_code == 401
        assert http.post("/token", data={**form, "grant_type": "other"}).status_code == 400


def test_who_is_removed_is_out_at_once_whatever_tokens_they_have(hub: Hub, repository: str) -> None:
    hub.user("leaver", shop="owner")
    with Client(hub, repository, user="leaver") as leaver:
        made = image(b"layer")
        leaver.push(made, "v1")
        accounts_of(hub.data).remove_user("leaver")
        answer = leaver.get("manifests/v1")
        assert (answer.status_code, codes(answer)) == (401, ["UNAUTHORIZED"])
        said = challenge(answer.headers["www-authenticate"])
        assert (said["error"], said["scope"]) == ("invalid_token", f"repository:{repository}:delete,pull,push")
        assert leaver.http.get("/api/v1/tags", params={"repository": repository}).status_code == 401


def test_a_token_is_good_for_its_repository_only(hub: Hub, client: Client) -> None:
    client.push(image(b"layer"), "v1")
    with Client(hub, f"{client.repository}-other", user="owner") as other:
        answer = other.http.get(client.path("manifests/v1"))
        assert answer.status_code == 401
        assert challenge(answer.headers["www-authenticate"])["error"] == "insufficient_scope"


def test_a_token_is_good_for_its_actions_only(hub: Hub, client: Client) -> None:
    client.push(image(b"layer"), "v1")
    with Client(hub, client.repository, user="owner", actions="pull") as puller:
        assert puller.get("manifests/v1").status_code == 200
        assert puller.http.post(puller.path("blobs/uploads/")).status_code == 401
        assert puller.delete("manifests/v1").status_code == 401


@pytest.mark.parametrize(("user", "pull", "push"), [("reader", 200, 403), ("writer", 200, 202), ("stranger", 403, 403)])
def test_roles(hub: Hub, client: Client, user: str, pull: int, push: int) -> None:
    client.push(image(b"layer"), "v1")
    with Client(hub, client.repository, user=user, actions="pull,push") as somebody:
        assert somebody.get("manifests/v1").status_code == pull
        assert somebody.http.post(somebody.path("blobs/uploads/")).status_code == push


def test_a_public_project_is_pulled_by_anybody(hub: Hub) -> None:
    accounts = accounts_of(hub.data)
    with Client(hub, "open/image", user="admin") as admin:
        admin.push(image(b"layer"), "v1")
        with Client(hub, "open/image") as anybody, hub.browser() as nobody:
            assert anybody.get("manifests/v1").status_code == 401
            accounts.set_project("open", public=True)
            assert anybody.get("manifests/v1").status_code == 200
            assert nobody.get("/v2/open/image/manifests/v1").status_code == 200
            assert nobody.get("/v2/open/image/tags/list").status_code == 200
            assert nobody.post("/v2/open/image/blobs/uploads/").status_code == 401
            accounts.set_project("open", public=False)
            assert nobody.get("/v2/open/image/manifests/v1").status_code == 401


@pytest.mark.parametrize("token", ["x", "a.b.c", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJvd25lciJ9."])
def test_a_token_that_is_none_is_refused(hub: Hub, repository: str, token: str) -> None:
    with hub.browser() as http:
        answer = http.get(f"/v2/{repository}/tags/list", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401
        said = challenge(answer.headers["www-authenticate"])
        assert (said["error"], said["scope"]) == ("invalid_token", f"repository:{repository}:pull")


def test_secrets_do_not_come_with_requests(hub: Hub, repository: str) -> None:
    with hub.browser() as http:
        assert http.get(f"/v2/{repository}/tags/list", auth=("owner", SECRET)).status_code == 401


def test_secrets_are_not_in_the_log(hub: Hub) -> None:
    with hub.browser() as http:
        http.post("/token", data={"grant_type": "password", "username": "owner", "password": SECRET})
    assert SECRET not in hub.log.read_text()
    assert SECRET not in (hub.data / "accounts.yaml").read_text()


def test_immutable_tags_stay(hub: Hub) -> None:
    accounts_of(hub.data).set_project("fixed", immutable_tags=["v*"])
    first, second = image(b"first"), image(b"second")
    with Client(hub, "fixed/image", user="admin") as admin:
        for tag in ("v1", "latest"):
            admin.push(first, tag)
        assert admin.put_manifest("v1", first.manifest).status_code == 201
        admin.push(second, "latest")
        refused = [admin.put_manifest("v1", second.manifest), admin.delete("manifests/v1")]
        refused.append(admin.delete(f"manifests/{first.digest}"))
        for answer in refused:
            assert answer.status_code == 409
            assert codes(answer) == ["DENIED"]
        assert admin.get("manifests/v1").content == first.manifest
        assert admin.delete("manifests/latest").status_code == 202
