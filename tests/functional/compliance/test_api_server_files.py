"""A real Kubernetes API server takes the files and flags that the benchmark asks for, and does what they say.

etcd and kube-apiserver run as plain processes, with what kubeadm is told for the management cluster.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from haneul.kernel.kube_manifests import JOIN_PATH, STRONG_CIPHERS
from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf, new_private_key, private_key_pem
from haneul.management import api_server_files, kubeadm
from haneul.management.settings import ManagementSettings
from tests.functional.kubernetes import free_ports, program

DEADLINE = 120.0
#: Of what kubeadm is told, what this test is about.
FLAGS = (
    "authentication-config",
    "enable-admission-plugins",
    "admission-control-config-file",
    "tls-cipher-suites",
    "audit-policy-file",
    "audit-log-path",
    "audit-log-maxage",
    "audit-log-maxbackup",
    "audit-log-maxsize",
)
NAMESPACES = "/api/v1/namespaces"


class ApiServer:
    """An API server and its etcd in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = ManagementSettings(address="127.0.0.1", host_name="node-1", state=folder, logs=folder / "log")
        self.client_port, self.peer_port, self.port = free_ports(3)
        now, life = datetime.now(UTC), timedelta(hours=1)
        authority = issue_authority("cluster authority", now=now)
        server = issue_leaf(authority, LeafProfile("api", addresses=("127.0.0.1",), server=True), now=now, life=life)
        root = issue_leaf(authority, LeafProfile("root", ("system:masters",), client=True), now=now, life=life)
        files = {
            "ca.crt": authority.certificate,
            "server.crt": server.certificate,
            "server.key": server.key,
            "root.pem": root.certificate + root.key,
            "sa.key": private_key_pem(new_private_key()),
        }
        for name, content in files.items():
            (folder / name).write_bytes(content)
        api_server_files.write(self.settings)

    def commands(self) -> list[list[str]]:
        etcd, peer = f"http://127.0.0.1:{self.client_port}", f"http://127.0.0.1:{self.peer_port}"
        _, cluster, _ = yaml.safe_load_all(kubeadm.configuration(self.settings, kubernetes="1.37.2", etcd="3.7.0"))
        told = {entry["name"]: entry["value"] for entry in cluster["apiServer"]["extraArgs"]}
        return [
            [
                program("etcd"),
                f"--data-dir={self.folder}/etcd",
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
                f"--client-ca-file={self.folder}/ca.crt",
                f"--tls-cert-file={self.folder}/server.crt",
                f"--tls-private-key-file={self.folder}/server.key",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={self.folder}/sa.key",
                f"--service-account-signing-key-file={self.folder}/sa.key",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--authorization-mode=RBAC",
                *(f"--{name}={told[name]}" for name in FLAGS),
            ],
        ]

    @contextlib.contextmanager
    def client(self, *, root: bool = True) -> Iterator[httpx2.Client]:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        if root:
            context.load_cert_chain(self.folder / "root.pem")
        with httpx2.Client(verify=context, timeout=30, base_url=f"https://127.0.0.1:{self.port}") as client:
            yield client

    def ask(self, path: str, body: Any = None, *, root: bool = True) -> httpx2.Response:
        with self.client(root=root) as client:
            return client.request("POST" if body else "GET", path, json=body)

    def audited(self) -> list[dict[str, Any]]:
        lines = (self.settings.audit_log / "audit.log").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path_factory.mktemp("api-server"))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with (server.folder / "output").open("wb") as output:
            for command in server.commands():
                processes.append(subprocess.Popen(command, stdout=output, stderr=output))
        deadline = time.monotonic() + DEADLINE
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if server.ask("/readyz").status_code == 200 and server.ask(f"{NAMESPACES}/default").status_code == 200:
                    break
            alive = all(process.poll() is None for process in processes)
            assert alive and time.monotonic() < deadline, (server.folder / "output").read_text()[-3000:]
            time.sleep(0.2)
        yield server
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def test_who_is_not_known_reaches_health_checks_and_what_joining_hosts_read(server: ApiServer) -> None:
    for path in ("/livez", "/readyz", "/healthz"):
        assert server.ask(path, root=False).status_code == 200
    # Whether they may read it is up to rights, which kubeadm gives.
    assert server.ask(JOIN_PATH, root=False).status_code == 403
    for path in ("/version", "/api", f"{NAMESPACES}/kube-public/configmaps", "/openid/v1/jwks"):
        assert server.ask(path, root=False).status_code == 401


def test_a_service_claims_no_addresses_outside(server: ApiServer) -> None:
    spec = {"ports": [{"port": 80}], "externalIPs": ["192.0.2.1"]}
    refused = server.ask(f"{NAMESPACES}/default/services", {"metadata": {"name": "thief"}, "spec": spec})
    assert refused.status_code == 403
    assert "external IPs is denied by admission control" in refused.text


def test_a_flood_of_events_is_refused_and_the_rest_goes_on(server: ApiServer) -> None:
    made = server.ask(NAMESPACES, {"metadata": {"name": "flooded"}})
    assert made.status_code == 201
    about = {"kind": "Namespace", "name": "flooded", "namespace": "flooded"}
    with server.client() as client, ThreadPoolExecutor(16) as pool:

        def tell(number: int) -> int:
            event = {"metadata": {"name": f"e{number}"}, "involvedObject": about, "reason": "Flood"}
            return client.post(f"{NAMESPACES}/flooded/events", json=event).status_code

        # Far more than the burst of one namespace; this machine's pace decides how many of them are refused.
        statuses = Counter(pool.map(tell, range(3000)))
    assert statuses.keys() == {201, 429}
    assert statuses[201] >= 500
    assert server.ask(f"{NAMESPACES}/flooded").status_code == 200


def test_the_audit_log_says_who_did_what_and_no_secret(server: ApiServer) -> None:
    secret = {"metadata": {"name": "password"}, "stringData": {"password": "very secret words"}}
    assert server.ask(f"{NAMESPACES}/default/secrets", secret).status_code == 201
    assert server.ask(f"{NAMESPACES}/default/secrets/password").status_code == 200
    entries = server.audited()
    about = [entry for entry in entries if entry["requestURI"].startswith(f"{NAMESPACES}/default/secrets")]
    assert [(entry["verb"], entry["user"]["username"]) for entry in about] == [("create", "root"), ("get", "root")]
    assert all(entry["level"] == "Metadata" and "requestObject" not in entry for entry in about)
    assert not [entry for entry in entries if entry["requestURI"].startswith(("/livez", "/readyz"))]
    assert not [entry for entry in entries if "/events" in entry["requestURI"]]
    assert "very secret words" not in (server.settings.audit_log / "audit.log").read_text()


@pytest.mark.parametrize(
    ("cipher", "accepted"), [("ECDHE-ECDSA-AES128-GCM-SHA256", True), ("ECDHE-ECDSA-AES128-SHA", False)]
)
def test_only_strong_ciphers_are_spoken(server: ApiServer, cipher: str, accepted: bool) -> None:
    context = ssl.create_default_context(cafile=str(server.folder / "ca.crt"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    assert len(STRONG_CIPHERS) == 6
    with httpx2.Client(verify=context, timeout=30) as client:
        if accepted:
            assert client.get(f"https://127.0.0.1:{server.port}/livez").status_code == 200
        else:
            with pytest.raises(httpx2.ConnectError):
                client.get(f"https://127.0.0.1:{server.port}/livez")
