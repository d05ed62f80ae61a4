"""``haneul bench dns`` put together: a cluster's API as its users reach it, the DNS server as clients outside do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import dns.message
import dns.rdatatype

from haneul.app.demo import cluster_access
from haneul.app.dns_peer import built, serving
from haneul.app.installation import this_host
from haneul.bench.dns import Load, NamesBench, NamesFigures, NamesPlan
from haneul.bench.dns_load import load
from haneul.bench.dns_load import program as dnsperf
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
_NAMES_ASKED: Final = 1000
_RECURSOR, _KEEPER, _PEER = "recursor, whom pods ask", "keeper of the zones", "CoreDNS, the same names from a file"


class PlatformNames:
    """Services of one namespace in one cluster, whose names lie below ``domain``."""

    def __init__(
        self,
        client: KubeClient,
        *,
        domain: str,
        servers: Mapping[str, tuple[str, int]],
        peer: Path | None,
        clock: Clock,
    ) -> None:
        """``servers`` are asked under load, the first of them for changes too; ``peer`` is CoreDNS's program."""
        self._client = client
        self._domain = domain
        self._servers = servers
        self._server = next(iter(servers.values()))[0]
        self._peer = peer
        self._clock = clock
        #: Addresses by the names of Services that stay.
        self._there: dict[str, str] = {}

    async def fill(self, count: int) -> None:
        """Make what is missing, a few at a time."""
        turn = asyncio.Semaphore(_AT_ONCE)

        async def make(number: int) -> str:
            async with turn:
                return await self.change(f"there-{number}")

        numbers = range(len(self._there), count)
        made = await asyncio.gather(*(make(number) for number in numbers))
        for number, address in zip(numbers, made, strict=True):
            await self._until_answered(f"there-{number}", address)
            self._there[f"there-{number}.{NAMESPACE}.svc.{self._domain}"] = address

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

    async def load(self, seconds: float) -> Mapping[str, Load]:
        """Ask who pods ask, who keeps the zones, and the peer if there is one, for the same names."""
        names = dict(list(self._there.items())[:_NAMES_ASKED])
        found = {}
        for server, (address, port) in self._servers.items():
            found[server] = await load(address, port, list(names), seconds=seconds)
        if self._peer is not None:
            with tempfile.TemporaryDirectory(prefix="haneul-bench-") as folder:
                async with serving(self._peer, Path(folder), self._domain, names, clock=self._clock) as (address, port):
                    found[_PEER] = await load(address, port, list(names), seconds=seconds)
        return found


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
    plan: NamesPlan, project: str, cluster: str, peer: bool, figures: NamesFigures, machine: dict[str, str]
) -> None:
    """Measure the names of a cluster, and with ``peer`` CoreDNS, which is built if it is not there yet."""
    clock, progress = SystemClock(), TerminalProgress()
    dnsperf()
    program = await built(progress) if peer else None
    settings = (await this_host()).settings
    machine |= machine_facts()
    contexts = Contexts.default()
    project = project or contexts.current().project
    with contexts.client() as api:
        access = await cluster_access(api, project, cluster)
    async with HttpKubeClient(access, user_agent="haneul-bench") as client, _own_namespace(client):
        domain = f"{cluster}.{project}.{settings.zone}"
        servers = {_RECURSOR: (settings.address, DNS_PORT), _KEEPER: ("127.0.0.1", settings.zones_port)}
        lab = PlatformNames(client, domain=domain, servers=servers, peer=program, clock=clock)
        await NamesBench(lab, clock=clock, progress=progress).run(plan, figures)


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
