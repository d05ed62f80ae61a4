"""Both minors as they are built, with the flags and files that DKOS renders: one etcd, the older before the newer.

etcd and the masters run as plain processes on this machine's loopback. Ports and folders are put in place of those of
pods; everything else is what a cluster gets.
"""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from haneul.app.images import cluster_images
from haneul.app.installation import component_store
from haneul.components.table import KUBERNETES, KUBERNETES_BEFORE, variants
from haneul.dkos import control_plane
from haneul.dkos.confinement import POLICIES_FILE
from haneul.dkos.credentials import Endpoints, component_data, component_profiles, operator_access
from haneul.dkos.keyring import Keyring, new_authorities
from haneul.dkos.model import Cluster, ClusterSpec, Network, NodePool, NodeProviderName, Settings
from haneul.dkos.node_files import node_files
from haneul.dkos.rotation import Record
from haneul.kernel.errors import HaneulError
from tests.ports import ports
from tests.processes import end_all

DEADLINE = 180.0
#: The component of each version's programs.
COMPONENTS = {KUBERNETES: "kubernetes", KUBERNETES_BEFORE: "kubernetes-1.36"}
COMPONENT_PORTS = ("kube-controller-manager", "kube-scheduler")


def program(name: str, version: str = "") -> str:
    wanted = f"{COMPONENTS[version]}/{name}" if version else name
    try:
        return str(component_store().program(wanted))
    except HaneulError as error:
        pytest.skip(f"{error.detail}: {error.hint}")


@dataclass
class Masters:
    """One cluster's masters as processes, each of a version of its own."""

    folder: Path
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    #: By version: two API servers run at once while one takes over from the other.
    api_ports: dict[str, int] = field(default_factory=dict)
    etcd_ports: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.etcd_ports = tuple(ports(3))
        self.api_ports = dict(zip(COMPONENTS, ports(len(COMPONENTS)), strict=True))
        # With machines, the API server does not announce its own address, which on a loopback it may not.
        pool = NodePool(name="default", provider=NodeProviderName.SSH, machines=("rack1",), count=1)
        network = Network(pods="10.0.64.0/18", services="10.128.16.0/20")
        settings = Settings(feature_gates={"AllAlpha": False})
        self.cluster = Cluster(
            project="shop",
            name="web",
            uid="uid-of-web",
            generation=1,
            created=self.now,
            spec=ClusterSpec(network=network, node_pools=(pool,), settings=settings),
        )
        self.endpoints = Endpoints(("127.0.0.1",), "127.0.0.1", "10.128.16.1", "127.0.0.1", 1)
        self.keyring = Keyring(new_authorities("shop/web", self.now), record=Record(revision=0))
        profiles = component_profiles(self.endpoints, cilium=False)
        for component, leaves in profiles.items():
            data = component_data(component, leaves, self.keyring, self.endpoints, self.now)
            self._write(f"{component}/pki", data)
        for component, manifest in control_plane.configurations(self.cluster).items():
            files = {
                name: text.replace("/etc/haneul/policies", f"{self.folder}/policies").encode()
                for name, text in manifest["data"].items()
            }
            self._write(f"{component}/config", files)
            if POLICIES_FILE in files:
                self._write("policies", {POLICIES_FILE: files[POLICIES_FILE]})
        access = operator_access(self.keyring, self.endpoints, self.now)
        self._write("operator", {"ca.crt": access.authority, "pair.pem": access.client_certificate + access.client_key})

    def _write(self, name: str, files: Mapping[str, bytes]) -> None:
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (self.folder / name / file).write_bytes(content)

    def arguments(self, component: str) -> list[str]:
        """Return the arguments that a component's pod has."""
        digests = dict.fromkeys(("etcd", "kube-apiserver", *COMPONENT_PORTS), "digest")
        images, endpoints = cluster_images(), self.endpoints
        manifest = {
            "etcd": lambda: control_plane.etcd(self.cluster, endpoints, images, digests),
            "kube-apiserver": lambda: control_plane.apiserver(self.cluster, endpoints, images, digests),
            "kube-controller-manager": lambda: control_plane.controller_manager(self.cluster, images, digests),
            "kube-scheduler": lambda: control_plane.scheduler(self.cluster, images, digests),
        }[component]()
        arguments: list[str] = manifest["spec"]["template"]["spec"]["containers"][0]["args"]
        return arguments

    def command(self, component: str, version: str = "") -> list[str]:
        """Return the command of a component with this test's ports and folders."""
        place = self.folder / component
        client, peer, metrics = self.etcd_ports
        replaced = {
            "/etc/haneul/pki": f"{place}/pki",
            "/etc/haneul/config": f"{place}/config",
            "/var/log/audit/": f"{place}/",
            "/data/member-data": f"{place}/data",
            "0.0.0.0:": "127.0.0.1:",
            ":2379": f":{client}",
            ":2380": f":{peer}",
            ":2381": f":{metrics}",
            "=6443": f"={self.api_ports.get(version, 0)}",
        }
        result = [program(component, version)]
        for argument in self.arguments(component):
            for old, new in replaced.items():
                argument = argument.replace(old, new)  # noqa: PLW2901 - the same argument, here
            result.append(argument)
        if component in COMPONENT_PORTS:
            # Nobody asks them here, and a port that is free now may be another test's in a moment.
            result.append("--secure-port=0")
            for file in [*(place / "pki").glob("kubeconfig"), *place.glob("config/*.yaml")]:
                text = self.folder / "originals" / component / file.name
                text.parent.mkdir(parents=True, exist_ok=True)
                if not text.exists():
                    text.write_bytes(file.read_bytes())
                content = text.read_text().replace(":6443", f":{self.api_ports[self.serving]}")
                file.write_text(content.replace("/etc/haneul/pki", f"{place}/pki"))
        elif component == "kube-apiserver":
            result.append("--bind-address=127.0.0.1")
        else:
            # What was written survives the end of the process, which is all that happens to it here.
            result.append("--unsafe-no-fsync")
        return result

    #: The version of the API server that controllers speak to.
    serving: str = KUBERNETES_BEFORE

    def ask(self, version: str, method: str, path: str, body: Any = None) -> httpx2.Response:
        """Ask the API server of a version as the operator does."""
        context = ssl.create_default_context(cafile=str(self.folder / "operator/ca.crt"))
        context.load_cert_chain(self.folder / "operator/pair.pem")
        with httpx2.Client(verify=context, timeout=30) as http:
            return http.request(method, f"https://127.0.0.1:{self.api_ports[version]}{path}", json=body)


@contextlib.contextmanager
def running(masters: Masters, component: str, version: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Run a component for as long as the block lasts."""
    name = f"{component}-{version}.log"
    with (masters.folder / name).open("ab") as log:
        process = subprocess.Popen(masters.command(component, version), stdout=log, stderr=log)
    try:
        yield process
    finally:
        end_all(process)


def log_of(masters: Masters, component: str, version: str = "") -> str:
    return (masters.folder / f"{component}-{version}.log").read_text()


@contextlib.contextmanager
def api_server(masters: Masters, version: str) -> Iterator[None]:
    """Run the API server of a version, ready."""
    with running(masters, "kube-apiserver", version) as process:
        deadline = time.monotonic() + DEADLINE
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if masters.ask(version, "GET", "/readyz").status_code == 200:
                    break
            said = log_of(masters, "kube-apiserver", version)
            assert process.poll() is None and time.monotonic() < deadline, said[-3000:]
            time.sleep(0.2)
        yield


def until(what: str, wanted: Callable[[], bool], *logs: Path) -> None:
    """Wait for something; when it does not come, tell what the logs' last lines are."""
    deadline = time.monotonic() + DEADLINE
    while not wanted():
        if time.monotonic() >= deadline:
            said = "\n".join(f"{log.name}: {log.read_text()[-3000:]}" for log in logs)
            pytest.fail(f"{what} did not come\n{said}")
        time.sleep(0.3)


def scaled(masters: Masters, version: str, by: str, replicas: int) -> None:
    """Wait until the controllers of a version made a number of pods, by the API server of a version."""
    until(
        f"{replicas} pods made by Kubernetes {by}",
        lambda: pods(masters, version) == replicas,
        *sorted(masters.folder.glob(f"kube-*-{by}.log")),
    )


OBJECTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "kept"}, "data": {"word": "still here"}}),
    ("/api/v1/namespaces/default/secrets", {"metadata": {"name": "password"}, "data": {"password": "aGFuZXVs"}}),
    (
        "/apis/apps/v1/namespaces/default/deployments",
        {
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "web", "image": "haneul.local/agnhost:v1"}]},
                },
            },
        },
    ),
    (
        "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
        {"metadata": {"name": "web"}, "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}},
    ),
    (
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        {
            "metadata": {"name": "things.example.org"},
            "spec": {
                "group": "example.org",
                "scope": "Namespaced",
                "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                    }
                ],
            },
        },
    ),
)
THING = "/apis/example.org/v1/namespaces/default/things"


def read_all(masters: Masters, version: str) -> dict[str, Any]:
    """Return what was written, as the API server of a version reads it."""
    found: dict[str, Any] = {}
    for path, body in OBJECTS:
        answer = masters.ask(version, "GET", f"{path}/{body['metadata']['name']}")
        assert answer.status_code == 200, answer.text
        read = answer.json()
        found[path] = (read["metadata"]["uid"], read.get("data"), read.get("spec"))
    answer = masters.ask(version, "GET", f"{THING}/one")
    assert answer.status_code == 200, answer.text
    found[THING] = (answer.json()["metadata"]["uid"], answer.json()["word"])
    return found


def pods(masters: Masters, version: str) -> int:
    return len(masters.ask(version, "GET", "/api/v1/namespaces/default/pods").json()["items"])


@pytest.mark.timeout(900)
def test_newer_masters_take_over_from_older_ones_with_all_that_is_there(tmp_path: Path) -> None:
    old, new = KUBERNETES_BEFORE, KUBERNETES
    for version in (old, new):
        program("kube-apiserver", version)
    masters = Masters(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(running(masters, "etcd"))
        with contextlib.ExitStack() as older:
            older.enter_context(api_server(masters, old))
            assert masters.ask(old, "GET", "/version").json()["gitVersion"] == f"v{old}"
            for path, body in OBJECTS:
                made = masters.ask(old, "POST", path, body)
                assert made.status_code == 201, made.text

            def served() -> bool:
                thing = {"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "one"}, "word": "one"}
                return masters.ask(old, "POST", THING, thing).status_code in (201, 409)

            until("the new kind", served)
            written = read_all(masters, old)
            with running(masters, "kube-controller-manager", old), running(masters, "kube-scheduler", old):
                scaled(masters, old, by=old, replicas=3)
            # While one takes over, both serve from the same data, and each reads what the other writes.
            stack.enter_context(api_server(masters, new))
            assert masters.ask(new, "GET", "/version").json()["gitVersion"] == f"v{new}"
            assert read_all(masters, new) == written
            for one, other in ((old, new), (new, old)):
                body = {"metadata": {"name": f"by-{one}"}, "data": {"by": one}}
                assert masters.ask(one, "POST", OBJECTS[0][0], body).status_code == 201
                assert masters.ask(other, "GET", f"{OBJECTS[0][0]}/by-{one}").json()["data"] == {"by": one}
            assert read_all(masters, old) == written
            # The older controllers go on with the newer API server until their turn comes.
            masters.serving = new
        with running(masters, "kube-controller-manager", old), running(masters, "kube-scheduler", old):
            scale = masters.ask(new, "GET", f"{OBJECTS[2][0]}/web/scale").json()
            scale["spec"]["replicas"] = 4
            assert masters.ask(new, "PUT", f"{OBJECTS[2][0]}/web/scale", scale).status_code == 200
            scaled(masters, new, by=old, replicas=4)
        with (
            running(masters, "kube-controller-manager", new) as manager,
            running(masters, "kube-scheduler", new) as scheduler,
        ):
            scale = masters.ask(new, "GET", f"{OBJECTS[2][0]}/web/scale").json()
            scale["spec"]["replicas"] = 5
            assert masters.ask(new, "PUT", f"{OBJECTS[2][0]}/web/scale", scale).status_code == 200
            scaled(masters, new, by=new, replicas=5)
            assert manager.poll() is None and scheduler.poll() is None, log_of(masters, "kube-scheduler", new)
        secret = masters.ask(new, "GET", f"{OBJECTS[1][0]}/password").json()
        assert secret["data"] == {"password": "aGFuZXVs"}


@pytest.mark.parametrize("version", list(COMPONENTS))
def test_programs_say_the_version_that_they_are(version: str) -> None:
    assert {row.version for row in variants("node")} == set(COMPONENTS)
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"):
        said = subprocess.run(
            [program(name, version), "--version"], capture_output=True, text=True, timeout=60, check=True
        )
        assert said.stdout.strip() == f"Kubernetes v{version}"


@pytest.mark.parametrize("version", list(COMPONENTS))
def test_a_node_s_files_are_understood_by_both_minors(tmp_path: Path, version: str) -> None:
    """kube-proxy reads its file and writes it out; the kubelet gets as far as missing its kubeconfig."""
    masters = Masters(tmp_path / "masters")
    files = node_files(masters.cluster, masters.cluster.spec.node_pools[0], "default-rack1", pause_image="pause")
    proxy, kubelet = tmp_path / "kube-proxy.yaml", tmp_path / "kubelet.yaml"
    proxy.write_text(files["kube-proxy.yaml"])
    kubelet.write_text(files["kubelet.yaml"].replace("RESERVED_MEMORY", "64Mi").replace("RESERVED_CPU", "50m"))
    written = tmp_path / "written.yaml"
    subprocess.run(
        [program("kube-proxy", version), f"--config={proxy}", f"--write-config-to={written}"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert "mode: nftables" in written.read_text()
    said = subprocess.run(
        [
            program("kubelet", version),
            f"--config={kubelet}",
            f"--kubeconfig={tmp_path}/missing",
            f"--root-dir={tmp_path}/kubelet",
            f"--cert-dir={tmp_path}/pki",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode != 0
    assert f"stat {tmp_path}/missing: no such file" in said.stderr or "invalid configuration" in said.stderr, (
        said.stderr
    )
    for trouble in (
        "unknown field",
        "failed to validate",
        "unrecognized feature gate",
        "failed to load kubelet config",
    ):
        assert trouble not in said.stderr
