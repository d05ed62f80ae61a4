"""The peer: etcd, kube-apiserver, kube-controller-manager and kube-scheduler as plain processes on loopback.

The programs are those that our masters run; their flags are the least that upstream demands, all else is upstream's
default. etcd and the API server start together. The other two start when the API answers, because without it they end,
and nothing here would start them again. Everything lies in one temporary folder, listens on free ports of loopback, and
is ended by its process id.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from haneul.bench.readiness import INTERVAL, wait_ready
from haneul.kernel.clock import Clock
from haneul.kernel.documents import to_yaml
from haneul.kernel.errors import CommandFailedError
from haneul.kernel.kube import SERVICE_ACCOUNTS, KubeAccess
from haneul.kernel.kube_http import HttpKubeClient
from haneul.kernel.pki import KeyPair, LeafProfile, issue_authority, issue_leaf, new_private_key, private_key_pem
from haneul.kernel.waiting import wait_for

_LOOPBACK = "127.0.0.1"
_WAIT_SECONDS, _END_SECONDS = 120.0, 10.0


class PlainProcesses:
    """One start of the peer. ``program`` finds an executable by its name."""

    def __init__(self, program: Callable[[str], Path], *, clock: Clock) -> None:
        self._program = program
        self._clock = clock
        self._folder = Path()
        self._started: dict[str, asyncio.subprocess.Process] = {}
        self._client: HttpKubeClient | None = None

    async def start(self) -> None:
        """Start etcd and the API server."""
        self._folder = Path(tempfile.mkdtemp(prefix="haneul-plain-"))
        client_port, peer_port, port = _free_ports(3)
        etcd, peer = f"http://{_LOOPBACK}:{client_port}", f"http://{_LOOPBACK}:{peer_port}"
        access = self._write_credentials(port)
        self._client = HttpKubeClient(access, user_agent="haneul-bench")
        await self._spawn(
            "etcd",
            {
                "data-dir": self._path("etcd"),
                "listen-client-urls": etcd,
                "advertise-client-urls": etcd,
                "listen-peer-urls": peer,
                "initial-advertise-peer-urls": peer,
                "initial-cluster": f"default={peer}",
            },
        )
        await self._spawn(
            "kube-apiserver",
            {
                "etcd-servers": etcd,
                "bind-address": _LOOPBACK,
                "secure-port": str(port),
                "tls-cert-file": self._path("server.crt"),
                "tls-private-key-file": self._path("server.key"),
                "client-ca-file": self._path("ca.crt"),
                "service-account-issuer": f"https://{_LOOPBACK}:{port}",
                "service-account-key-file": self._path("account.key"),
                "service-account-signing-key-file": self._path("account.key"),
                "authorization-mode": "Node,RBAC",
            },
        )

    async def wait_api(self) -> None:
        """Wait for the API server."""
        await wait_ready(self._api(), what="the peer's API", timeout=_WAIT_SECONDS, clock=self._clock)

    async def wait_account(self) -> None:
        """Start the controller manager and the scheduler; wait for what the former makes."""
        kubeconfig = {"kubeconfig": self._path("kubeconfig"), "bind-address": _LOOPBACK}
        manager_port, scheduler_port = _free_ports(2)
        manager = {
            "secure-port": str(manager_port),
            "root-ca-file": self._path("ca.crt"),
            "service-account-private-key-file": self._path("account.key"),
        }
        await self._spawn("kube-controller-manager", kubeconfig | manager)
        await self._spawn("kube-scheduler", kubeconfig | {"secure-port": str(scheduler_port)})

        async def there() -> bool:
            self._check_alive()
            return await self._api().get(SERVICE_ACCOUNTS, "default", "default") is not None

        what = "the peer's default service account"
        await wait_for(
            there, what=what, timeout=_WAIT_SECONDS, clock=self._clock, interval=INTERVAL, max_interval=INTERVAL
        )

    async def processes(self) -> Sequence[int]:
        """Return the ids of the processes, all of which must live."""
        self._check_alive()
        return [process.pid for process in self._started.values()]

    async def stop(self) -> None:
        """End the processes, those first that talk to others, and remove the folder."""
        if self._client is not None:
            await self._client.close()
        for process in reversed(self._started.values()):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(_END_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        self._started.clear()
        if self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)

    def _write_credentials(self, port: int) -> KubeAccess:
        now = self._clock.now()
        authority = issue_authority("plain", now=now)
        names = LeafProfile("kube-apiserver", dns_names=("localhost",), addresses=(_LOOPBACK,), server=True)
        server = issue_leaf(authority, names, now=now)
        admin = issue_leaf(authority, LeafProfile("admin", ("system:masters",), client=True), now=now)
        access = KubeAccess(f"https://{_LOOPBACK}:{port}", authority.certificate, admin.certificate, admin.key)
        self._folder.joinpath("ca.crt").write_bytes(authority.certificate)
        self._write_pair("server", server)
        self._write_pair("admin", admin)
        self._folder.joinpath("account.key").write_bytes(private_key_pem(new_private_key()))
        self._folder.joinpath("kubeconfig").write_text(to_yaml(self._kubeconfig(access.server)))
        return access

    def _write_pair(self, name: str, pair: KeyPair) -> None:
        self._folder.joinpath(f"{name}.crt").write_bytes(pair.certificate)
        self._folder.joinpath(f"{name}.key").write_bytes(pair.key)

    def _kubeconfig(self, server: str) -> dict[str, Any]:
        cluster = {"server": server, "certificate-authority": self._path("ca.crt")}
        user = {"client-certificate": self._path("admin.crt"), "client-key": self._path("admin.key")}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "plain",
            "clusters": [{"name": "plain", "cluster": cluster}],
            "users": [{"name": "plain", "user": user}],
            "contexts": [{"name": "plain", "context": {"cluster": "plain", "user": "plain"}}],
        }

    async def _spawn(self, name: str, flags: dict[str, str]) -> None:
        with self._folder.joinpath(f"{name}.log").open("wb") as log:
            self._started[name] = await asyncio.create_subprocess_exec(
                str(self._program(name)),
                *(f"--{flag}={value}" for flag, value in flags.items()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                # An interrupt is for us; the processes are ended in order.
                start_new_session=True,
            )

    def _check_alive(self) -> None:
        for name, process in self._started.items():
            if process.returncode is not None:
                tail = "\n".join(self._folder.joinpath(f"{name}.log").read_text(errors="replace").splitlines()[-10:])
                raise CommandFailedError(f"{name} of the peer ended with status {process.returncode}:\n{tail}")

    def _api(self) -> HttpKubeClient:
        if self._client is None:
            raise CommandFailedError("the peer was not started")
        return self._client

    def _path(self, name: str) -> str:
        return str(self._folder / name)


def _free_ports(count: int) -> list[int]:
    """Return free ports of loopback; they are held open together, so that no two are the same."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((_LOOPBACK, 0))
        return [one.getsockname()[1] for one in sockets]
