"""A real Kubernetes API server trusts the platform's issuer: tokens, roles, and the end of both.

etcd and kube-apiserver run as plain processes, with the configuration that DKOS renders.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import httpx2

from haneul.dkos.authentication import IssuerTrust, authentication
from haneul.dkos.credentials import Endpoints
from haneul.dkos.model import Cluster, ClusterSpec
from haneul.dkos.tenant_objects import base_objects
from tests.functional.kubernetes import ApiServer, program, running
from tests.functional.sign_on.processes import Platform, running_platform

RIGHTS = "/apis/rbac.authorization.k8s.io/v1"


def trusting(folder: Path, platform: Platform, cluster: Cluster) -> ApiServer:
    """Return an API server that trusts a platform."""
    trust = IssuerTrust(f"{platform.origin}/oidc", platform.authority.read_text())
    return ApiServer(
        folder,
        arguments={"authentication-config": f"{folder}/authentication.yaml"},
        files={"authentication.yaml": authentication(cluster, trust)},
    )


def who(server: ApiServer, token: str) -> tuple[str, list[str]]:
    """Return whom the API server takes a token's holder for."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = server.ask("/apis/authentication.k8s.io/v1/selfsubjectreviews", token=token, body=body)
    assert answer.status_code == 201, answer.text
    user = answer.json()["status"]["userInfo"]
    return user["username"], sorted(user["groups"])


def test_people_reach_a_cluster_by_tokens_that_end(tmp_path: Path) -> None:
    program("kube-apiserver")
    with running_platform(tmp_path / "platform") as platform:
        for name in ("alice", "bob"):
            platform.admin("POST", "/people", {"name": name})
        tokens = {name: platform.admin("POST", f"/people/{name}/tokens", {})["secret"] for name in ("alice", "bob")}
        platform.admin("POST", "/projects", {"name": "shop"})
        platform.admin("PUT", "/projects/shop/members/alice", {"role": "owner"})
        platform.admin("PUT", "/projects/shop/members/bob", {"role": "viewer"})
        made = platform.admin("POST", "/projects/shop/clusters", {"name": "web"})
        other = platform.admin("POST", "/projects/shop/clusters", {"name": "other"})
        cluster = Cluster(
            project="shop", name="web", uid=made["uid"], generation=1, created=datetime.now(UTC), spec=ClusterSpec()
        )
        assert other["uid"] != made["uid"]

        def token(person: str, name: str = "web") -> httpx2.Response:
            with platform.browser() as http:
                return http.post(
                    f"{platform.origin}/api/v1/projects/shop/clusters/{name}/token",
                    headers={"Authorization": f"Bearer {tokens[person]}"},
                )

        (tmp_path / "cluster").mkdir()
        server = trusting(tmp_path / "cluster", platform, cluster)
        endpoints = Endpoints(("127.0.0.1",), "127.0.0.1", "127.0.0.1", "127.0.0.1", server.port)
        with running(server):
            server.make(base_objects(cluster, endpoints), RIGHTS)
            alice = token("alice").json()["token"]
            deadline = time.monotonic() + 60
            # The API server fetches the issuer's keys in its own time.
            while server.ask("/api/v1/namespaces", token=alice).status_code == 401 and time.monotonic() < deadline:
                time.sleep(0.5)
            assert who(server, alice) == ("haneul:alice", ["haneul:owners", "system:authenticated"])
            assert server.ask("/api/v1/namespaces/default/secrets", token=alice).status_code == 200
            bob = token("bob").json()["token"]
            # What viewers may, the controller manager puts together, which does not run here.
            assert who(server, bob) == ("haneul:bob", ["haneul:viewers", "system:authenticated"])
            assert server.ask("/api/v1/namespaces/default/secrets", token=bob).status_code == 403
            # A token of another cluster, and one for the platform, are none here.
            assert server.ask("/api/v1/namespaces", token=token("alice", "other").json()["token"]).status_code == 401
            assert server.ask("/api/v1/namespaces", token=tokens["alice"]).status_code == 401
            left = time.monotonic()
            alice = token("alice").json()["token"]
            assert server.ask("/api/v1/namespaces", token=alice).status_code == 200
            platform.admin("PATCH", "/people/alice", {"disabled": True})
            assert token("alice").status_code == 401
            while server.ask("/api/v1/namespaces", token=alice).status_code == 200:
                assert time.monotonic() - left < 60
                time.sleep(0.5)
