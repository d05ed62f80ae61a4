"""A real Kubernetes API server takes the files and flags that the benchmark asks for, and does what they say.

etcd and kube-apiserver run as plain processes, with what kubeadm is told for the management cluster.
"""

from __future__ import annotations

import json
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
import yaml

from haneul.kernel.kube_manifests import JOIN_PATH, STRONG_CIPHERS
from haneul.management import api_server_files, kubeadm
from haneul.management.settings import ManagementSettings
from tests.functional.kubernetes import DEADLINE, ROOT, ApiServer, running

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


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ManagementSettings:
    folder = tmp_path_factory.mktemp("management")
    return ManagementSettings(address="127.0.0.1", host_name="node-1", state=folder, logs=folder / "log")


@pytest.fixture(scope="module")
def server(settings: ManagementSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    api_server_files.write(settings)
    _, cluster, _ = yaml.safe_load_all(kubeadm.configuration(settings, kubernetes="1.37.2", etcd="3.7.0"))
    told = {entry["name"]: entry["value"] for entry in cluster["apiServer"]["extraArgs"]}
    arguments = {name: told[name] for name in FLAGS}
    server = ApiServer(tmp_path_factory.mktemp("api-server"), arguments=arguments, files={})
    with running(server):
        deadline = time.monotonic() + DEADLINE
        while server.ask(f"{NAMESPACES}/default", who=ROOT).status_code != 200:
            assert time.monotonic() < deadline, "there is no namespace default"
            time.sleep(0.2)
        yield server


def test_who_is_not_known_reaches_health_checks_and_what_joining_hosts_read(server: ApiServer) -> None:
    for path in ("/livez", "/readyz", "/healthz"):
        assert server.ask(path).status_code == 200
    # Whether they may read it is up to rights, which kubeadm gives.
    assert server.ask(JOIN_PATH).status_code == 403
    for path in ("/version", "/api", f"{NAMESPACES}/kube-public/configmaps", "/openid/v1/jwks"):
        assert server.ask(path).status_code == 401


def test_a_service_claims_no_addresses_outside(server: ApiServer) -> None:
    spec = {"ports": [{"port": 80}], "externalIPs": ["192.0.2.1"]}
    refused = server.ask(f"{NAMESPACES}/default/services", who=ROOT, body={"metadata": {"name": "thief"}, "spec": spec})
    assert refused.status_code == 403
    assert "external IPs is denied by admission control" in refused.text


def test_a_flood_of_events_is_refused_and_the_rest_goes_on(server: ApiServer) -> None:
    made = server.ask(NAMESPACES, who=ROOT, body={"metadata": {"name": "flooded"}})
    assert made.status_code == 201
    about = {"kind": "Namespace", "name": "flooded", "namespace": "flooded"}
    with server.client(ROOT) as client, ThreadPoolExecutor(16) as pool:

        def tell(number: int) -> int:
            event = {"metadata": {"name": f"e{number}"}, "involvedObject": about, "reason": "Flood"}
            return client.post(f"{NAMESPACES}/flooded/events", json=event).status_code

        # Far more than the burst of one namespace; this machine's pace decides how many of them are refused.
        statuses = Counter(pool.map(tell, range(3000)))
    assert statuses.keys() == {201, 429}
    assert statuses[201] >= 500
    assert server.ask(f"{NAMESPACES}/flooded", who=ROOT).status_code == 200


def test_the_audit_log_says_who_did_what_and_no_secret(server: ApiServer, settings: ManagementSettings) -> None:
    secret = {"metadata": {"name": "password"}, "stringData": {"password": "very secret words"}}
    assert server.ask(f"{NAMESPACES}/default/secrets", who=ROOT, body=secret).status_code == 201
    assert server.ask(f"{NAMESPACES}/default/secrets/password", who=ROOT).status_code == 200
    log = (settings.audit_log / "audit.log").read_text()
    entries = [json.loads(line) for line in log.splitlines()]
    about = [entry for entry in entries if entry["requestURI"].startswith(f"{NAMESPACES}/default/secrets")]
    assert [(entry["verb"], entry["user"]["username"]) for entry in about] == [("create", "root"), ("get", "root")]
    assert all(entry["level"] == "Metadata" and "requestObject" not in entry for entry in about)
    assert not [entry for entry in entries if entry["requestURI"].startswith(("/livez", "/readyz"))]
    assert not [entry for entry in entries if "/events" in entry["requestURI"]]
    assert "very secret words" not in log


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
