"""What ``haneul bench balancer`` measures on loopback: a real HAProxy, told by a controller what to do, and the kernel.

The cluster is one in memory: what its EndpointSlices say is what members do, as it is in a cluster when pods roll. So
the way of a change is the real one, from the slice over the controller to HAProxy, but for the API's own time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from haneul.balancer.adapters.haproxy import HaproxyBalancer
from haneul.balancer.adapters.haproxy_configuration import Process
from haneul.balancer.adapters.nftables import NftablesBalancer
from haneul.balancer.adapters.nftables_rules import Kernel
from haneul.balancer.changes import plan as planned
from haneul.balancer.controller import ClusterController
from haneul.balancer.decisions import Site
from haneul.balancer.members import Ground, Targets
from haneul.balancer.model import Frontend, Listener, Member, Pool, Protocol
from haneul.bench.balancer_figures import (
    CASES,
    DIRECT,
    KERNEL,
    THROUGH,
    BalancerFigures,
    BalancerPlan,
    Case,
    Change,
    Round,
)
from haneul.bench.balancer_load import BalancerLoad
from haneul.bench.machine import machine_facts
from haneul.bench.statistics import percentile
from haneul.cli.progress import TerminalProgress
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HostNotReadyError, UnavailableError
from haneul.kernel.kube import ENDPOINT_SLICES, NAMESPACES, SERVICES, Manifest
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.kernel.kube_objects import SERVICE_LABEL
from haneul.kernel.process import run
from haneul.kernel.waiting import wait_for

_NAMESPACE: Final = "bench"
_PORT: Final = 8080
_ALL, _ONE = "all", "one"
#: Of this machine's kernel, while it is measured.
_TABLE: Final = "haneul_bench"
_WAIT_SECONDS: Final = 60.0
_LOAD_SECONDS: Final = 3600.0
#: The member that is killed is, a little after the load began.
_BEFORE_KILL_SECONDS: Final = 0.5


async def run_balancer_bench(plan: BalancerPlan, figures: BalancerFigures, machine: dict[str, str]) -> None:
    """Measure, and end everything that was started."""
    if shutil.which("haproxy") is None:
        raise HostNotReadyError("haproxy is not installed", hint="'make system-packages' installs it")
    machine |= machine_facts()
    machine["HAProxy"] = (await run(["haproxy", "-v"], timeout=20)).stdout.split()[2]
    progress = TerminalProgress()
    async with _laboratory(plan) as laboratory:
        with progress.stage("requests while members roll"):
            figures.rolled = await laboratory.rolled()
        with progress.stage("requests while a member is killed"):
            figures.killed = await laboratory.killed()
        with progress.stage("through the balancer and past it", expected_seconds=plan.expected_seconds):
            for _ in range(plan.rounds):
                for case in CASES:
                    await laboratory.compare(case, figures)
    machine["load after"] = machine_facts()["load before"]


class _Member:
    """A process that answers."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    @classmethod
    async def start(cls) -> _Member:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "haneul.bench.balancer_member", stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for above
        async with asyncio.timeout(_WAIT_SECONDS):
            line = await process.stdout.readline()
        if not line:
            raise UnavailableError("a member of the measurement did not start")
        return cls(process, int(line))

    async def end(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            await asyncio.wait_for(self.process.wait(), _WAIT_SECONDS)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class _Laboratory:
    """A cluster in memory, its controller, HAProxy, and members that come and go."""

    def __init__(
        self, plan: BalancerPlan, cluster: MemoryKubeClient, kernel: tuple[NftablesBalancer, str] | None
    ) -> None:
        """``kernel`` is the kernel as a balancer, and the address that it is to have."""
        self._plan = plan
        self._cluster = cluster
        self._kernel = kernel
        self._members: list[_Member] = []
        self._addresses: dict[str, str] = {}

    async def begin(self) -> None:
        """Start the members, and wait until both Services are served: of all members, and of one."""
        self._members = [await _Member.start() for _ in range(self._plan.members)]
        await self._say(self._members)
        for name in (_ALL, _ONE):
            await self._cluster.create(SERVICES, _service(name))
        for name in (_ALL, _ONE):
            self._addresses[name] = await wait_for(
                lambda name=name: self._address(name),  # type: ignore[misc]
                what=f"the Service {name!r} to be served",
                timeout=_WAIT_SECONDS,
                clock=SystemClock(),
            )

    async def end(self) -> None:
        """End the members."""
        for member in self._members:
            await member.end(signal.SIGKILL)

    async def rolled(self) -> Change:
        """Send requests, and meanwhile replace one member after the other, again and again."""
        loading = asyncio.ensure_future(self._through(self._plan.requests))
        changed = 0
        try:
            while not loading.done():
                await self._replace_oldest()
                changed += 1
        finally:
            load = await loading
        return _change(load, changed)

    async def killed(self) -> Change:
        """Send requests, and meanwhile kill a member of which nobody says that it ends."""
        loading = asyncio.ensure_future(self._through(self._plan.killed_requests))
        await asyncio.sleep(_BEFORE_KILL_SECONDS)
        victim = self._members.pop(0)
        await victim.end(signal.SIGKILL)
        load = await loading
        self._members.append(await _Member.start())
        await self._say(self._members)
        return _change(load, 1)

    async def compare(self, case: Case, figures: BalancerFigures) -> None:
        """Measure a round of both sides, of one and the same member."""
        sides = {THROUGH: (self._addresses[_ONE], _PORT), DIRECT: ("127.0.0.1", self._members[-1].port)}
        if self._kernel is not None:
            sides[KERNEL] = await self._through_kernel(*self._kernel)
        for side, (address, port) in sides.items():
            load = await _load(
                address=address, port=port, clients=case.clients, fresh=case.fresh, seconds=self._plan.seconds
            )
            figures.add(case.name, side, Round.of(load.latencies, load.seconds, sum(load.failures.values())))

    async def _through_kernel(self, balancer: NftablesBalancer, address: str) -> tuple[str, int]:
        """Let the kernel give connections to the member that is measured, and return where it does."""
        listener = Listener(address, Protocol.TCP, _PORT)
        frontend = Frontend(listener, f"{_NAMESPACE}/{_ONE}", members=(Member("127.0.0.1", self._members[-1].port),))
        await balancer.apply(_NAMESPACE, planned({listener: frontend}, await balancer.read(), _NAMESPACE))
        return address, _PORT

    async def _through(self, requests: int) -> BalancerLoad:
        clients = self._plan.clients
        return await _load(
            address=self._addresses[_ALL], port=_PORT, clients=clients, fresh=clients // 2, requests=requests
        )

    async def _replace_oldest(self) -> None:
        """Do as a Deployment: the new pod is ready, then the old one ends, and its endpoint says so before it does."""
        fresh = await _Member.start()
        leaving = self._members.pop(0)
        self._members.append(fresh)
        await self._say(self._members, leaving)
        await asyncio.sleep(self._plan.pre_stop)
        await leaving.end(signal.SIGTERM)
        await self._say(self._members)

    async def _say(self, members: Sequence[_Member], *leaving: _Member) -> None:
        ending = [_endpoint(member, ready=False, serving=True, terminating=True) for member in leaving]
        for name, ready in ((_ALL, members), (_ONE, members[-1:])):
            # A slice has one port for all its endpoints, and members here have each their own.
            pieces = [_slice(name, _endpoint(member, ready=True), member.port) for member in ready]
            if name == _ALL:
                pieces += [_slice(name, entry, member.port) for entry, member in zip(ending, leaving, strict=True)]
            wanted = {piece["metadata"]["name"] for piece in pieces}
            for piece in pieces:
                await self._cluster.apply(ENDPOINT_SLICES, piece)
            for standing in await self._cluster.list(ENDPOINT_SLICES, _NAMESPACE, labels=f"{SERVICE_LABEL}={name}"):
                if standing["metadata"]["name"] not in wanted:
                    await self._cluster.delete(ENDPOINT_SLICES, standing["metadata"]["name"], _NAMESPACE)

    async def _address(self, name: str) -> str:
        found = await self._cluster.get(SERVICES, name, _NAMESPACE) or {}
        conditions = found.get("status", {}).get("conditions", [])
        if not any(entry["status"] == "True" for entry in conditions):
            return ""
        return str(found["status"]["loadBalancer"]["ingress"][0]["ip"])


@contextlib.asynccontextmanager
async def _laboratory(plan: BalancerPlan) -> AsyncIterator[_Laboratory]:
    cluster = MemoryKubeClient()
    await cluster.apply(NAMESPACES, {"metadata": {"name": _NAMESPACE}})
    with tempfile.TemporaryDirectory(prefix="haneul-bench-") as folder:
        balancer = HaproxyBalancer(Process(Path(folder) / "b", connections=2000), clock=SystemClock())
        # Loopback has room for several of these at once.
        network = f"127.{32 + os.getpid() % 32}.{os.getpid() // 32 % 250 + 1}"
        site = Site(
            (Pool("bench", ((f"{network}.1", f"{network}.9"),)),),
            Ground(Targets.PODS, (ip_network("127.0.0.0/8"),)),
            balancer.abilities,
        )
        controller = ClusterController(cluster, balancer, "bench", site, clock=SystemClock())
        kernel = NftablesBalancer(Path(folder) / "k", Kernel(table=_TABLE), clock=SystemClock())
        able = os.geteuid() == 0 and shutil.which("nft") is not None
        laboratory = _Laboratory(plan, cluster, (kernel, f"{network}.10") if able else None)
        working = asyncio.ensure_future(controller.run())
        try:
            await laboratory.begin()
            yield laboratory
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await laboratory.end()
            await balancer.end()
            await kernel.close()
            if able:
                await kernel.end()


async def _load(
    *, address: str, port: int, clients: int, fresh: int, requests: int = 0, seconds: float = 0.0
) -> BalancerLoad:
    job = {
        "address": address,
        "port": port,
        "clients": clients,
        "fresh": fresh,
        "requests": requests,
        "seconds": seconds,
    }
    command = [sys.executable, "-m", "haneul.bench.balancer_load"]
    done = await run(command, timeout=_LOAD_SECONDS, stdin=json.dumps(job).encode())
    return BalancerLoad(**json.loads(done.stdout))


def _change(load: BalancerLoad, changed: int) -> Change:
    return Change(
        len(load.latencies) + sum(load.failures.values()),
        load.failures,
        changed,
        load.seconds,
        percentile(load.latencies, 0.99) * 1000,
        max(load.latencies) * 1000,
    )


def _service(name: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": _NAMESPACE},
        "spec": {"type": "LoadBalancer", "ports": [{"name": "http", "protocol": "TCP", "port": _PORT}]},
    }


def _endpoint(member: _Member, **conditions: bool) -> Manifest:
    return {"addresses": ["127.0.0.1"], "conditions": conditions}


def _slice(service: str, endpoint: Manifest, port: int) -> Manifest:
    return {
        "apiVersion": ENDPOINT_SLICES.api_version,
        "kind": ENDPOINT_SLICES.kind,
        "metadata": {"name": f"{service}-{port}", "namespace": _NAMESPACE, "labels": {SERVICE_LABEL: service}},
        "addressType": "IPv4",
        "endpoints": [endpoint],
        "ports": [{"name": "http", "protocol": "TCP", "port": port}],
    }
