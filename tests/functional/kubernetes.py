"""A real Kubernetes API server for a test: etcd and kube-apiserver as plain processes on the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from haneul.app.installation import component_store
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import KubeClient, Manifest
from haneul.kernel.kube_http import HttpKubeClient, access_from_kubeconfig
from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf, new_private_key, private_key_pem
from tests.ports import ports
from tests.processes import kill_all

DEADLINE = 120.0
#: Who may do everything.
ROOT = "root"


def program(name: str) -> str:
    try:
        return str(component_store().program(name))
    except HaneulError as error:
        pytest.skip(f"{error.detail}: 'haneul components build kubernetes etcd'")


class ApiServer:
    """An API server with people who have certificates, each a name and groups; ``arguments`` come besides the usual."""

    def __init__(
        self,
        folder: Path,
        *,
        arguments: Mapping[str, str],
        files: Mapping[str, str],
        people: Mapping[str, tuple[str, tuple[str, ...]]] | None = None,
        program: str = "kube-apiserver",
    ) -> None:
        self.folder = folder
        self.program = program
        self.arguments = dict(arguments)
        self.client_port, self.peer_port, self.port = ports(3)
        now = datetime.now(UTC)
        authority = issue_authority("cluster authority", now=now)
        profiles = {
            "server": LeafProfile("kube-apiserver", addresses=("127.0.0.1",), server=True),
            ROOT: LeafProfile("root", ("system:masters",), client=True),
            **{key: LeafProfile(name, groups, client=True) for key, (name, groups) in (people or {}).items()},
        }
        for key, profile in profiles.items():
            pair = issue_leaf(authority, profile, now=now, life=timedelta(hours=1))
            (folder / f"{key}.pem").write_bytes(pair.certificate + pair.key)
        (folder / "ca.crt").write_bytes(authority.certificate)
        (folder / "ca.key").write_bytes(authority.key)
        (folder / "sa.key").write_bytes(private_key_pem(new_private_key()))
        self.write(files)

    def write(self, files: Mapping[str, str]) -> None:
        for name, content in files.items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_text(content)

    def kubeconfig(self) -> Path:
        """Write how root reaches it."""
        user = dict.fromkeys(("client-certificate", "client-key"), f"{self.folder}/{ROOT}.pem")
        server = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": f"{self.folder}/ca.crt"}
        document = {
            "current-context": "one",
            "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
            "clusters": [{"name": "one", "cluster": server}],
            "users": [{"name": "one", "user": user}],
        }
        path = self.folder / "kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return path

    def commands(self) -> list[list[str]]:
        etcd, peer, folder = f"http://127.0.0.1:{self.client_port}", f"http://127.0.0.1:{self.peer_port}", self.folder
        arguments = {
            "etcd-servers": etcd,
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "endpoint-reconciler-type": "none",
            "secure-port": str(self.port),
            "client-ca-file": f"{folder}/ca.crt",
            "tls-cert-file": f"{folder}/server.pem",
            "tls-private-key-file": f"{folder}/server.pem",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": f"{folder}/sa.key",
            "service-account-signing-key-file": f"{folder}/sa.key",
            "service-cluster-ip-range": "10.0.0.0/24",
            "authorization-mode": "RBAC",
            **self.arguments,
        }
        return [
            [
                program("etcd"),
                f"--data-dir={folder}/etcd",
                # What was written survives the end of the process, which is all that happens to it here.
                "--unsafe-no-fsync",
                f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
            ],
            [program(self.program), *(f"--{name}={value}" for name, value in arguments.items())],
        ]

    @contextlib.contextmanager
    def client(self, who: str = "") -> Iterator[httpx2.Client]:
        """Yield a client with somebody's certificate, or nobody's, that keeps its connections."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        if who:
            context.load_cert_chain(self.folder / f"{who}.pem")
        with httpx2.Client(verify=context, timeout=30, base_url=f"https://127.0.0.1:{self.port}") as http:
            yield http

    def ask(
        self,
        path: str,
        *,
        token: str = "",
        who: str = "",
        body: Any = None,
        method: str = "",
        kind: str = "application/json",
    ) -> httpx2.Response:
        """Send a request, with a token or with somebody's certificate; one with a body is a POST unless told."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        content = None if body is None else json.dumps(body)
        if content is not None:
            headers["Content-Type"] = kind
        with self.client(who) as http:
            return http.request(
                method or ("POST" if content is not None else "GET"), path, headers=headers, content=content
            )

    def make(self, manifests: Iterable[Manifest], folder: str) -> None:
        """Make objects as root, each in its kind's collection below ``folder``; one that is there already stays."""
        for manifest in manifests:
            made = self.ask(f"{folder}/{manifest['kind'].lower()}s", who=ROOT, body=manifest)
            assert made.status_code in (201, 409), made.text


@contextlib.contextmanager
def running(server: ApiServer) -> Iterator[None]:
    """Run etcd and the API server, from when it is ready until the end; what is in etcd stays for the next time."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        with (server.folder / "log").open("wb") as log:
            for command in server.commands():
                started.append(subprocess.Popen(command, stdout=log, stderr=log))
        deadline = time.monotonic() + DEADLINE
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if server.ask("/readyz", who=ROOT).status_code == 200:
                    break
            alive = all(process.poll() is None for process in started)
            assert alive and time.monotonic() < deadline, (server.folder / "log").read_text()[-3000:]
            time.sleep(0.2)
        yield
    finally:
        # Asked to end, an API server takes ten seconds for it; what it acknowledged is in etcd.
        kill_all(*reversed(started))


@contextlib.asynccontextmanager
async def connected(server: ApiServer) -> AsyncIterator[KubeClient]:
    """Run a server until the block ends, and yield a client of root's."""
    with contextlib.ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, running(server))
        async with HttpKubeClient(access_from_kubeconfig(server.kubeconfig())) as client:
            yield client
