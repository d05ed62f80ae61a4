"""``haneul bench dns`` put together: a cluster's API as its users reach it, the DNS server as clients outside do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final

import dns.message
import dns.rdatatype

from haneul.app.demo import cluster_access
from haneul.app.installation import this_host
from haneul.bench.dns import NamesBench, NamesFigures, NamesPlan
from haneul.bench.machine import machine_facts
from haneul.cli.context import Contexts
from haneul.cli.progress import TerminalProgress
from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.errors import InvalidInputError
from haneul.kernel.kube import NAMESPACES, SERVICES, KubeClient, Manifest
from haneul.kernel.kube_http import HttpKubeClient
from haneul.kernel.waiting import wait_for
from haneul.management.name_server import DNS_PORT

NAMESPACE: Final = "bench-dns"
_ASK_SECONDS, _PAUSE_SECONDS, _WAIT_SECONDS = 0.5, 0.005, 300.0
_AT_ONCE: Final = 8
_NAMES_ASKED, _UNDER_WAY = 10, 64


class PlatformNames:
    """Services of one namespace in one cluster, whose names lie below ``domain``."""

    def __init__(self, client: KubeClient, *, domain: str, server: str, clock: Clock) -> None:
        self._client = client
        self._domain = domain
        self._server = server
        self._clock = clock
        self._count = 0

    async def fill(self, count: int) -> None:
        """Make what is missing, a few at a time."""
        turn = asyncio.Semaphore(_AT_ONCE)

        async def make(number: int) -> str:
            async with turn:
                return await self.change(f"there-{number}")

        made = await asyncio.gather(*(make(number) for number in range(self._count, count)))
        self._count = max(count, self._count)
        for number in range(count - len(made), count):
            await self._until_answered(f"there-{number}", made[number - count])

    async def _until_answered(self, name: str, address: str) -> None:
        async def answered() -> bool:
            return await self.answers(name, address)

        await wait_for(answered, what=f"the name {name}", timeout=_WAIT_SECONDS, clock=self._clock)

    async def change(self, name: str) -> str:
        """Make a Service."""
        made = await self._client.create(SERVICES, _service(name))
        return str(made["spec"]["clusterIP"])

    async def answers(self, name: str, address: str) -> bool:
        """Ask by UDP."""
        values = await asyncio.to_thread(_ask, self._server, f"{name}.{NAMESPACE}.svc.{self._domain}")
        if address in values:
            return True
        await asyncio.sleep(_PAUSE_SECONDS)
        return False

    async def take_back(self, name: str) -> None:
        """Delete it."""
        await self._client.delete(SERVICES, name, NAMESPACE)

    async def load(self, seconds: float) -> Sequence[float]:
        """Have one process for each core ask."""
        names = [f"there-{number}.{NAMESPACE}.svc.{self._domain}" for number in range(min(self._count, _NAMES_ASKED))]
        command = [sys.executable, "-m", "haneul.app.dns_lab", self._server, str(seconds), *names]
        askers = [
            await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            for _ in range(len(os.sched_getaffinity(0)))
        ]
        try:
            async with asyncio.timeout(seconds + 60):
                said = [await asker.communicate() for asker in askers]
        finally:
            for asker in askers:
                with contextlib.suppress(ProcessLookupError):
                    asker.kill()
        return [float(out.decode()) for out, _ in said]


@contextlib.asynccontextmanager
async def _own_namespace(client: KubeClient) -> AsyncIterator[None]:
    if await client.get(NAMESPACES, NAMESPACE) is not None:
        raise InvalidInputError(
            f"the cluster has a namespace {NAMESPACE}", hint="delete it if it is of an earlier run, and try again"
        )
    await client.apply(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    try:
        yield
    finally:
        await client.delete(NAMESPACES, NAMESPACE)


async def run_names_bench(
    plan: NamesPlan, project: str, cluster: str, figures: NamesFigures, machine: dict[str, str]
) -> None:
    """Measure the names of a cluster."""
    clock = SystemClock()
    settings = (await this_host()).settings
    machine |= machine_facts()
    contexts = Contexts.default()
    project = project or contexts.current().project
    with contexts.client() as api:
        access = await cluster_access(api, project, cluster)
    async with HttpKubeClient(access, user_agent="haneul-bench") as client, _own_namespace(client):
        domain = f"{cluster}.{project}.{settings.zone}"
        lab = PlatformNames(client, domain=domain, server=settings.address, clock=clock)
        await NamesBench(lab, clock=clock, progress=TerminalProgress()).run(plan, figures)


def _service(name: str) -> Manifest:
    metadata = {"name": name, "namespace": NAMESPACE}
    ports = [{"name": "http", "port": 80}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}}


def _ask(server: str, name: str) -> list[str]:
    """Ask once; what is lost or late is no answer."""
    question = dns.message.make_query(name, dns.rdatatype.A)
    with socket.socket(type=socket.SOCK_DGRAM) as asking:
        asking.settimeout(_ASK_SECONDS)
        asking.connect((server, DNS_PORT))
        try:
            asking.send(question.to_wire())
            said = dns.message.from_wire(asking.recv(4096))
        except OSError:
            return []
    return [record.to_text() for found in said.answer for record in found] if said.id == question.id else []


def _rate(server: str, seconds: float, names: Sequence[str]) -> float:
    """Return how many answers a second come, with as many questions under way as keep the server busy."""
    packets = [dns.message.make_query(name, dns.rdatatype.A).to_wire() for name in names]
    answers, began = 0, time.monotonic()
    with socket.socket(type=socket.SOCK_DGRAM) as asking:
        asking.settimeout(_ASK_SECONDS)
        asking.connect((server, DNS_PORT))
        while (passed := time.monotonic() - began) < seconds:
            for number in range(_UNDER_WAY):
                asking.send(packets[number % len(packets)])
            with contextlib.suppress(TimeoutError):
                for _ in range(_UNDER_WAY):
                    asking.recv(4096)
                    answers += 1
    return answers / passed


if __name__ == "__main__":
    print(_rate(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))  # noqa: T201 - read by who started it
