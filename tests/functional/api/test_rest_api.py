"""What the REST API does for whom, route by route."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from haneul.kernel.pki import new_private_key
from tests.functional.api.application import START, Api


async def test_nobody_gets_in_without_a_valid_token(api: Api) -> None:
    for token in ("", "nonsense", "haneul_0123456789ab_wrong"):
        async with api.client(token) as client:
            response = await client.get("/whoami")
        assert response.status_code == 401
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["code"] == "unauthenticated"
        assert response.json()["requestId"] == response.headers["x-request-id"]


async def test_a_token_ends_by_time_by_revocation_and_with_its_person(api: Api) -> None:
    tokens = await api.call("alice", "GET", "/people/alice/tokens")
    await api.call("alice", "DELETE", f"/people/alice/tokens/{tokens[0]['id']}", status=204)
    await api.call("alice", "GET", "/whoami", status=401)
    await api.call("bob", "GET", "/whoami")
    await api.call("admin", "PATCH", "/people/bob", {"disabled": True})
    await api.call("bob", "GET", "/whoami", status=401)
    await api.call("admin", "PATCH", "/people/bob", {"disabled": False})
    await api.call("bob", "GET", "/whoami")
    api.clock.advance(91 * 86400)
    await api.call("bob", "GET", "/whoami", status=401)


async def test_a_tokens_secret_is_never_shown_again(api: Api) -> None:
    shown = await api.call("alice", "GET", "/people/alice/tokens")
    assert "secret" not in shown[0] and "hash" not in shown[0]


async def test_people_are_for_administrators(api: Api) -> None:
    await api.call("alice", "GET", "/people", status=403)
    await api.call("alice", "POST", "/people", {"name": "eve", "admin": True}, status=403)
    await api.call("alice", "GET", "/people/bob/tokens", status=403)
    await api.call("admin", "PATCH", "/people/admin", {"disabled": True}, status=409)


async def test_strangers_do_not_learn_of_a_project(api: Api) -> None:
    await api.call("bob", "GET", "/projects/shop/clusters", status=404)
    assert await api.call("bob", "GET", "/projects") == []
    await api.call("admin", "GET", "/projects/shop/clusters")


async def test_viewers_look_and_developers_change(api: Api) -> None:
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "viewer"})
    await api.call("bob", "GET", "/projects/shop/clusters")
    await api.call("bob", "POST", "/projects/shop/clusters", {"name": "web"}, status=403)
    await api.call("bob", "PUT", "/projects/shop/members/bob", {"role": "owner"}, status=403)
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "developer"})
    await api.call("bob", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)


async def test_a_project_keeps_an_owner(api: Api) -> None:
    await api.call("alice", "DELETE", "/projects/shop/members/alice", status=409)
    await api.call("alice", "PUT", "/projects/shop/members/alice", {"role": "viewer"}, status=409)
    assert await api.call("alice", "GET", "/projects/shop/members") == [{"person": "alice", "role": "owner"}]


async def test_clusters_get_ranges_that_never_overlap(api: Api) -> None:
    networks = []
    for number in range(6):
        made = await api.call("alice", "POST", "/projects/shop/clusters", {"name": f"c{number}"}, status=201)
        networks += [ipaddress.ip_network(made["spec"]["network"][use]) for use in ("pods", "services")]
    for index, network in enumerate(networks):
        assert not any(network.overlaps(other) for other in networks[:index])


async def test_what_is_wrong_with_a_cluster_is_said_and_nothing_is_made(api: Api) -> None:
    bad = [
        ({"name": "Web"}, 422, "no DNS label"),
        ({"name": "web", "spec": {"version": "0.1"}}, 422, "not built"),
        ({"name": "web", "spec": {"nonsense": 1}}, 422, "nonsense"),
        ({"name": "web", "spec": {"nodePools": [{"count": 65}]}}, 422, "count"),
        ({"name": "web", "spec": {"network": {"pods": "8.8.0.0/20"}}}, 422, "does not fit"),
        ({"name": "web", "spec": {"network": {"pods": "169.254.0.0/18"}}}, 422, "does not fit"),
    ]
    for body, status, words in bad:
        problem = await api.call("alice", "POST", "/projects/shop/clusters", body, status=status)
        assert words in problem["detail"]
        assert problem["hint"]
    assert (await api.call("alice", "GET", "/projects/shop/clusters"))["items"] == []


async def test_names_that_would_share_a_namespace_are_refused(api: Api) -> None:
    await api.call("alice", "POST", "/projects", {"name": "shop-web"}, status=201)
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web-one"}, status=201)
    problem = await api.call("alice", "POST", "/projects/shop-web/clusters", {"name": "one"}, status=409)
    assert "namespace" in problem["detail"]


async def test_a_cluster_is_changed_by_merging_and_its_network_stays(api: Api) -> None:
    path = "/projects/shop/clusters/web"
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    changed = await api.call("alice", "PATCH", path, {"settings": {"maxPodsPerNode": 50}})
    assert changed["spec"]["settings"]["maxPodsPerNode"] == 50
    assert changed["generation"] == 2
    await api.call("alice", "PATCH", path, {"network": {"plugin": "cilium"}}, status=422)
    again = await api.call("alice", "PATCH", path, {"settings": {"maxPodsPerNode": 50}})
    assert again["generation"] == 2


async def test_lists_come_in_pages(api: Api) -> None:
    for name in ("a", "b", "c"):
        await api.call("alice", "POST", "/projects/shop/clusters", {"name": name}, status=201)
    first = await api.call("alice", "GET", "/projects/shop/clusters?limit=2")
    assert [cluster["name"] for cluster in first["items"]] == ["a", "b"]
    second = await api.call("alice", "GET", f"/projects/shop/clusters?limit=2&continue={first['continue']}")
    assert [cluster["name"] for cluster in second["items"]] == ["c"]
    assert second["continue"] is None
    await api.call("alice", "GET", "/projects/shop/clusters?continue=%21%21", status=422)


async def test_a_cluster_is_never_made_in_a_project_that_is_deleted_meanwhile(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alice may change the project when she asks for the cluster; before it is made, the project is gone."""
    create = api.store.create

    async def later(*arguments: Any) -> Any:
        await api.call("alice", "DELETE", "/projects/shop", status=204)
        return await create(*arguments)

    monkeypatch.setattr(api.store, "create", later)
    problem = await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=404)
    assert "no project named shop" in problem["detail"]
    assert list(await api.store.list()) == []


async def test_while_a_cluster_is_being_created_its_project_is_not_deleted(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = api.store.create

    async def slowly(project: str, name: str, admit: Any, confirm: Any) -> Any:
        async def confirmed() -> None:
            await confirm()
            problem = await api.call("alice", "DELETE", "/projects/shop", status=409)
            assert "being created" in problem["detail"] and problem["hint"]

        return await create(project, name, admit, confirmed)

    monkeypatch.setattr(api.store, "create", slowly)
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    problem = await api.call("alice", "DELETE", "/projects/shop", status=409)
    assert "cluster web" in problem["detail"]


async def test_while_a_project_is_being_deleted_no_cluster_is_created_in_it(api: Api) -> None:
    async with api.store.closed("shop"):
        problem = await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=409)
        assert "being deleted" in problem["detail"]
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)


async def test_a_project_with_clusters_is_not_deleted(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    assert "cluster web" in (await api.call("alice", "DELETE", "/projects/shop", status=409))["detail"]
    await api.call("alice", "DELETE", "/projects/shop/clusters/web", status=202)
    await api.call("alice", "DELETE", "/projects/shop", status=204)
    await api.call("alice", "GET", "/projects/shop/clusters", status=404)


def request_for(key: Any) -> str:
    # Whatever the request asks to be is not what it becomes.
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters"),
            x509.NameAttribute(NameOID.COMMON_NAME, "root"),
        ]
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize("role", ["owner", "developer", "viewer"])
async def test_a_credential_says_who_asked_and_lives_an_hour(api: Api, role: str) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": role})
    body = {"certificateRequest": request_for(new_private_key())}
    made = await api.call("bob", "POST", "/projects/shop/clusters/web/credentials", body, status=201)
    certificate = x509.load_pem_x509_certificate(made["certificate"].encode())
    assert certificate.subject.rfc4514_string() == f"CN=haneul:bob,O=haneul:{role}s"
    assert (certificate.not_valid_after_utc - START).total_seconds() == 3600
    assert made["server"] == "https://192.0.2.9:30000"


async def test_a_bad_request_for_a_credential_is_an_error_of_the_caller(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "young"}, status=201)
    path = "/projects/shop/clusters/{}/credentials"
    await api.call("alice", "POST", path.format("web"), {"certificateRequest": "nonsense"}, status=422)
    body = {"certificateRequest": request_for(new_private_key())}
    await api.call("alice", "POST", path.format("young"), body, status=503)
    await api.call("alice", "POST", path.format("absent"), body, status=404)
    other = request_for(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    problem = await api.call("alice", "POST", path.format("web"), {"certificateRequest": other}, status=422)
    assert "elliptic-curve" in problem["detail"]


async def test_every_change_is_on_record(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    await api.call("alice", "DELETE", "/projects/shop/clusters/web", status=202)
    await api.call("alice", "GET", "/audit", status=403)
    records = (await api.call("admin", "GET", "/audit"))["items"]
    assert [(entry["action"], entry["object"], entry["result"]) for entry in records[:6]] == [
        ("audit.list", "/audit", "refused: forbidden"),
        ("cluster.delete", "web", "done"),
        ("cluster.delete", "web", "asked"),
        ("cluster.create", "web", "done"),
        ("cluster.create", "web", "asked"),
        ("project.create", "shop", "done"),
    ]
    assert {entry["person"] for entry in records[:6]} == {"alice"}
    page = await api.call("admin", "GET", "/audit?limit=1")
    following = await api.call("admin", "GET", f"/audit?limit=1&continue={page['continue']}")
    assert following["items"][0]["id"] == page["items"][0]["id"] - 1
