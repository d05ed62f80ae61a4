"""Images in use at a running hub: who reports, who sees it, and what is refused then."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from haneul.app.d2hub import accounts_of
from haneul.app.d2hub_report import ReportSettings, reported
from haneul.cli.hub import HubClient, HubContext
from haneul.kernel.errors import ForbiddenError, InvalidInputError
from haneul.kernel.kube import NAMESPACES, PODS
from haneul.kernel.kube_memory import MemoryKubeClient
from tests.functional.d2hub.hub import SECRET, Client, Hub, codes, image
from tests.functional.d2hub.test_commands import as_json, refused, said, signed_in, told

__all__ = ["signed_in"]
CLUSTER = "shop/prod"
MAINTENANCE = "registry:maintenance:*"


def reports_as(hub: Hub, user: str, digest: str, cluster: str = CLUSTER) -> httpx2.Response:
    project = cluster.partition("/")[0]
    body = {"images": [{"namespace": "web", "workload": "Deployment/web", "digest": digest}]}
    with Client(hub, project, user=user) as client:
        return client.http.put(f"/api/v1/inventory/{cluster}", json=body)


@pytest.fixture
def digest(hub: Hub, client: Client, repository: str) -> Iterator[str]:
    """Push an image that no other test has, and have it run; what was reported is forgotten in the end."""
    made = image(repository.encode())
    client.push(made, "v1")
    assert reports_as(hub, "writer", made.digest).json() == {"cluster": CLUSTER, "entries": 1}
    yield made.digest
    with Client(hub, "shop", user="admin", also=[MAINTENANCE]) as admin:
        for one in admin.http.get("/api/v1/inventory").json()["items"]:
            assert admin.http.delete(f"/api/v1/inventory/{one['cluster']}").status_code == 204


def test_who_may_push_in_a_project_reports_for_its_clusters(hub: Hub, digest: str) -> None:
    assert reports_as(hub, "reader", digest).status_code == 403
    assert reports_as(hub, "stranger", digest).status_code == 403
    assert reports_as(hub, "writer", digest, "elsewhere/prod").status_code == 403
    assert reports_as(hub, "stranger", digest, "elsewhere/prod").status_code == 200
    with hub.browser() as http:
        assert http.put(f"/api/v1/inventory/{CLUSTER}", json={"images": []}).status_code == 401


def test_a_report_that_is_not_understood_changes_nothing(hub: Hub, digest: str, client: Client) -> None:
    with Client(hub, "shop", user="writer") as writer:
        for content in (b"", b"[]", b"{}", b"{", b'{"images": [{}]}', b"[" * 100_000, b'{"images": 1}'):
            answer = writer.http.put(f"/api/v1/inventory/{CLUSTER}", content=content)
            assert (answer.status_code, answer.json()["code"]) == (400, "request-invalid"), content[:20]
        assert writer.http.put("/api/v1/inventory/shop/Prod", json={"images": []}).status_code == 400
    assert client.delete("manifests/v1").status_code == 409


def test_what_runs_is_not_deleted(hub: Hub, client: Client, digest: str, repository: str) -> None:
    for reference in ("v1", digest):
        answer = client.delete(f"manifests/{reference}")
        assert (answer.status_code, codes(answer)) == (409, ["DENIED"])
        for named in (CLUSTER, "namespace web", "Deployment/web"):
            assert named in answer.text
    assert client.get("manifests/v1").status_code == 200
    assert _written_soon(hub, repository)


def _written_soon(hub: Hub, repository: str) -> bool:
    """Wait for the records of refusals, which are written together a little later."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with Client(hub, "shop", user="owner") as owner:
            records = owner.http.get("/api/v1/audit", params={"project": "shop"}).json()["items"]
        if any(one["repository"] == repository and one["result"] == "image-in-use" for one in records):
            return True
        time.sleep(0.1)
    return False


def test_only_administrators_force(hub: Hub, client: Client, digest: str, repository: str) -> None:
    assert client.http.delete(client.path("manifests/v1"), params={"force": "true"}).status_code == 403
    with Client(hub, repository, user="admin", also=[MAINTENANCE]) as admin:
        assert admin.http.delete(client.path("manifests/v1"), params={"force": "true"}).status_code == 202
    assert client.get("manifests/v1").status_code == 404


def test_what_others_run_is_counted_and_not_named(signed_in: Path, hub: Hub, client: Client, digest: str) -> None:
    assert reports_as(hub, "stranger", digest, "elsewhere/vault").status_code == 200
    query = {"repository": client.repository, "reference": "v1"}
    with Client(hub, client.repository, user="reader") as reader:
        seen = reader.http.get("/api/v1/image", params=query).json()
    assert ([one["cluster"] for one in seen["usedBy"]], seen["usedElsewhere"]) == ([CLUSTER], 1)
    told = client.delete("manifests/v1").text
    assert CLUSTER in told and "other projects" in told and "vault" not in told


def test_reports_are_for_administrators(hub: Hub, digest: str) -> None:
    with Client(hub, "shop", user="owner", also=[MAINTENANCE]) as owner:
        assert owner.http.get("/api/v1/inventory").status_code == 403
        assert owner.http.delete(f"/api/v1/inventory/{CLUSTER}").status_code == 403
        assert owner.http.post("/api/v1/inventory").status_code == 404
    with Client(hub, "shop", user="admin", also=[MAINTENANCE]) as admin:
        assert admin.http.delete("/api/v1/inventory/shop/none").status_code == 404


def test_an_image_shows_where_it_runs(signed_in: Path, hub: Hub, client: Client, digest: str) -> None:
    name = f"{client.repository}:v1"
    shown = as_json("image", "show", name)["usedBy"]
    assert [(one["cluster"], one["namespace"], one["workload"], one["digest"]) for one in shown] == [
        (CLUSTER, "web", "Deployment/web", digest)
    ]
    table = " ".join(told("image", "show", name).split())
    assert "shop/prod, namespace web, Deployment/web" in table
    assert [one["cluster"] for one in as_json("image", "clusters")] == [CLUSTER]
    assert "Deployment/web in namespace web of shop/prod" in said("image", "delete", name, "--yes")
    assert refused("image", "forget-cluster", CLUSTER) == "invalid-input"
    told("image", "forget-cluster", CLUSTER, "--yes")
    assert as_json("image", "clusters") == []
    told("image", "delete", name, "--yes")


def test_force_at_the_command_line(signed_in: Path, client: Client, digest: str) -> None:
    told("image", "delete", f"{client.repository}:v1", "--yes", "--force")
    assert client.get("manifests/v1").status_code == 404


def test_an_index_shows_where_its_parts_run(signed_in: Path, client: Client, digest: str, hub: Hub) -> None:
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    assert client.put_manifest("multi", index, "application/vnd.oci.image.index.v1+json").status_code == 201
    assert [one["digest"] for one in as_json("image", "show", f"{client.repository}:multi")["usedBy"]] == [digest]


def test_who_nobody_knows_does_not_see_where_images_run(hub: Hub, digest: str) -> None:
    accounts_of(hub.data).set_project("bazaar", public=True)
    made = image(b"in the open")
    with Client(hub, "bazaar/web", user="admin") as admin:
        admin.push(made, "v1")
    assert reports_as(hub, "admin", made.digest, "bazaar/prod").status_code == 200
    query = {"repository": "bazaar/web", "reference": "v1"}
    with hub.browser() as http, Client(hub, "bazaar/web", user="reader") as reader:
        assert http.get("/api/v1/image", params=query).json()["usedBy"] == []
        assert len(reader.http.get("/api/v1/image", params=query).json()["usedBy"]) == 1
    accounts_of(hub.data).set_project("bazaar", public=False)


def test_retention_keeps_what_runs(signed_in: Path, hub: Hub, client: Client, digest: str) -> None:
    accounts = hub.data / "accounts.yaml"
    before = accounts.read_text()
    client.push(image(b"idle", b"of retention"), "v2")
    changed = yaml.safe_load(before)
    changed.setdefault("projects", {})["shop"] = {"retention": {"newest": 0, "days": 0}}
    accounts.write_text(yaml.safe_dump(changed))
    try:
        body: dict[str, Any] = {"repository": client.repository}
        dry = client.http.post("/api/v1/retention", json=body).json()
        assert [tag["name"] for tag in dry["items"]] == ["v2"]
        assert [tag["name"] for tag in dry["inUse"]] == ["v1"]
        listed = as_json("image", "retention", "-p", "shop")
        mine = [tag["name"] for tag in listed if tag["repository"] == client.repository]
        assert mine == ["v2"]
        assert [tag["name"] for tag in as_json("image", "retention", client.repository, "--apply")] == ["v2"]
    finally:
        accounts.write_text(before)
    assert client.get("manifests/v1").status_code == 200
    assert refused("image", "retention") == "invalid-input"
    assert refused("image", "retention", client.repository, "-p", "shop") == "invalid-input"
    assert refused("image", "retention", "-p", "none") == "not-found"


async def test_a_clusters_pods_become_its_report(signed_in: Path, hub: Hub, client: Client, digest: str) -> None:
    kube = MemoryKubeClient()
    await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    await kube.create(PODS, _pod("db-0", digest))

    def of(user: str) -> HubClient:
        return HubClient(HubContext(hub.url, user), SECRET)

    assert await reported(kube, lambda: of("writer"), CLUSTER) == 1
    shown = as_json("image", "show", f"{client.repository}:v1")["usedBy"]
    assert [(one["namespace"], one["workload"]) for one in shown] == [("shop", "StatefulSet/db")]
    with pytest.raises(ForbiddenError):
        await reported(kube, lambda: of("reader"), CLUSTER)


def _pod(name: str, digest: str) -> dict[str, Any]:
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "controller": True, "uid": "1"}
    metadata = {"name": name, "namespace": "shop", "ownerReferences": [owner]}
    spec = {"containers": [{"name": "db", "image": f"hub.test/shop/db@{digest}"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def test_settings_of_reports(tmp_path: Path) -> None:
    for wrong in (
        {"cluster": "prod"},
        {"cluster": CLUSTER, "hub": "https://hub.test", "user": "ci"},
        {"cluster": CLUSTER, "user": "ci", "secret_file": tmp_path / "secret"},
        {"cluster": CLUSTER, "authority": tmp_path / "ca"},
    ):
        with pytest.raises(InvalidInputError):
            ReportSettings(**wrong)
    nobodys = tmp_path / "kubeconfig"
    nobodys.write_text(
        "current-context: a\ncontexts: [{name: a, context: {cluster: a, user: a}}]\n"
        "clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: a, user: {exec: {}}}]\n"
    )
    for kubeconfig in (tmp_path / "none", nobodys):
        told_why = said("d2hub", "report", "--cluster", CLUSTER, "--kubeconfig", str(kubeconfig))
        assert told_why.startswith("invalid-input"), told_why
