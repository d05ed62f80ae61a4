"""A real Kubernetes API server trusts the platform's issuer: tokens, roles, and the end of both.

etcd and kube-apiserver run as plain processes, with the configuration that DKOS renders.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from haneul.app.installation import component_store
from haneul.dkos.authentication import IssuerTrust, authentication
from haneul.dkos.credentials import Endpoints
from haneul.dkos.model import Cluster, ClusterSpec
from haneul.dkos.tenant_objects import base_objects
from haneul.kernel.errors import HaneulError
from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf, new_private_key, private_key_pem
from tests.functional.sign_on.processes import Platform, running_platform

DEADLINE = 120.0


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(server.getsockname()[1]) for server in servers]


def program(name: str) -> str:
    try:
        return str(component_store().program(name))
    except HaneulError as error:
        pytest.skip(f"{error.detail}: 'haneul components build kubernetes etcd'")


class ApiServer:
    """A running API server that trusts a platform."""

    def __init__(self, folder: Path, platform: Platform, cluster: Cluster) -> None:
        self.folder = folder
        self.cluster = cluster
        self.client_port, self.peer_port, self.port = free_ports(3)
        self.endpoints = Endpoints(("127.0.0.1",), "127.0.0.1", "127.0.0.1", "127.0.0.1", self.port)
        now = datetime.now(UTC)
        authority = issue_authority("cluster authority", now=now)
        life = timedelta(hours=1)
        server = issue_leaf(
            authority, LeafProfile("kube-apiserver", addresses=("127.0.0.1",), server=True), now=now, life=life
        )
        root = issue_leaf(authority, LeafProfile("root", ("system:masters",), client=True), now=now, life=life)
        trust = IssuerTrust(f"{platform.origin}/oidc", platform.authority.read_text())
        files = {
            "ca.crt": authority.certificate,
            "server.crt": server.certificate,
            "server.key": server.key,
            "root.pem": root.certificate + root.key,
            "sa.key": private_key_pem(new_private_key()),
            "authentication.yaml": authentication(cluster, trust).encode(),
        }
        for name, content in files.items():
            (folder / name).write_bytes(content)

    def commands(self) -> list[list[str]]:
        etcd, folder = f"http://127.0.0.1:{self.client_port}", self.folder
        peer = f"http://127.0.0.1:{self.peer_port}"
        return [
            [
                program("etcd"),
                f"--data-dir={folder}/etcd",
                f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
            ],
            [
                program("kube-apiserver"),
                f"--etcd-servers={etcd}",
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                "--endpoint-reconciler-type=none",
                f"--secure-port={self.port}",
                f"--client-ca-file={folder}/ca.crt",
                f"--tls-cert-file={folder}/server.crt",
                f"--tls-private-key-file={folder}/server.key",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={folder}/sa.key",
                f"--service-account-signing-key-file={folder}/sa.key",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--authorization-mode=RBAC",
                f"--authentication-config={folder}/authentication.yaml",
            ],
        ]

    def ask(self, path: str, token: str = "", *, root: bool = False, body: Any = None) -> httpx2.Response:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        if root:
            context.load_cert_chain(self.folder / "root.pem")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with httpx2.Client(verify=context, timeout=30) as http:
            address = f"https://127.0.0.1:{self.port}{path}"
            return http.request("POST" if body else "GET", address, headers=headers, json=body)

    def who(self, token: str) -> tuple[str, list[str]]:
        """Return whom the API server takes a token's holder for."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = self.ask("/apis/authentication.k8s.io/v1/selfsubjectreviews", token, body=body)
        assert answer.status_code == 201, answer.text
        user = answer.json()["status"]["userInfo"]
        return user["username"], sorted(user["groups"])


@contextlib.contextmanager
def running(server: ApiServer) -> Iterator[None]:
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with (server.folder / "log").open("wb") as log:
            for command in server.commands():
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        deadline = time.monotonic() + DEADLINE
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if server.ask("/readyz", root=True).status_code == 200:
                    break
            alive = all(process.poll() is None for process in processes)
            assert alive and time.monotonic() < deadline, (server.folder / "log").read_text()[-3000:]
            time.sleep(0.2)
        for manifest in base_objects(server.cluster, server.endpoints):
            kind = f"{manifest['kind'].lower()}s"
            made = server.ask(f"/apis/rbac.authorization.k8s.io/v1/{kind}", root=True, body=manifest)
            assert made.status_code == 201, made.text
        yield
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in reversed(processes):
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(15)


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
        server = ApiServer(tmp_path / "cluster", platform, cluster)
        with running(server):
            alice = token("alice").json()["token"]
            deadline = time.monotonic() + 30
            # The API server fetches the issuer's keys in its own time.
            while server.ask("/api/v1/namespaces", alice).status_code == 401 and time.monotonic() < deadline:
                time.sleep(0.5)
            assert server.who(alice) == ("haneul:alice", ["haneul:owners", "system:authenticated"])
            assert server.ask("/api/v1/namespaces/default/secrets", alice).status_code == 200
            bob = token("bob").json()["token"]
            # What viewers may, the controller manager puts together, which does not run here.
            assert server.who(bob) == ("haneul:bob", ["haneul:viewers", "system:authenticated"])
            assert server.ask("/api/v1/namespaces/default/secrets", bob).status_code == 403
            # A token of another cluster, and one for the platform, are none here.
            assert server.ask("/api/v1/namespaces", token("alice", "other").json()["token"]).status_code == 401
            assert server.ask("/api/v1/namespaces", tokens["alice"]).status_code == 401
            left = time.monotonic()
            alice = token("alice").json()["token"]
            assert server.ask("/api/v1/namespaces", alice).status_code == 200
            platform.admin("PATCH", "/people/alice", {"disabled": True})
            assert token("alice").status_code == 401
            while server.ask("/api/v1/namespaces", alice).status_code == 200:
                assert time.monotonic() - left < 60
                time.sleep(0.5)
