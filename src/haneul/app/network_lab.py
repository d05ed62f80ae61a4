"""``haneul bench network`` put together: clusters of this host's platform, and the network namespaces of their pods.

Client and server are processes of this host in the network namespaces of two pods, so what is measured is the network
and neither an image nor a node's limits. Where the way is a link of the nodes' own, the two node pods get a veth pair
and a route to each other's pod over it: what two machines on one switch have, and what no sandbox node has.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from haneul.app.bench_lab import PlatformLab, versions
from haneul.app.installation import this_host
from haneul.app.reserved import reserved_ranges
from haneul.bench.machine import machine_facts
from haneul.bench.network_figures import LINK, NetworkFigures, NetworkPlan, Sample, Setup, Way
from haneul.bench.network_peer import ECHO, SHUT, SINK
from haneul.bench.networks import NetworkBench
from haneul.bench.process_usage import HostProcesses
from haneul.cli.progress import TerminalProgress
from haneul.dkos.model import ClusterSpec, Network, NetworkPlugin, NodePool, Tunnel
from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.errors import DeadlineExceededError, UnavailableError
from haneul.kernel.kube import NETWORK_POLICIES, PODS, KubeClient, Manifest
from haneul.kernel.process import run
from haneul.kernel.waiting import wait_for

_POLICY: Final = "bench"
_CLIENT, _SERVER = "client", "server"
#: Each pod's node; the pool is the default one.
_NODES: Final = {_CLIENT: "default-0", _SERVER: "default-1"}
#: For measurements of networks, RFC 2544 appendix C.2.2; only the two ends of a pair ever see them.
_ADDRESSES: Final = ("198.18.0.0", "198.18.0.1")
_DEVICE: Final = "eth0"
_WAIT_SECONDS: Final = 60.0
_REACH_SECONDS: Final = 1.0
_END_SECONDS: Final = 10.0
#: What a segment may have of packets by default (linux/netdevice.h, GSO_MAX_SEGS).
_WHOLE, _SPLIT = 65535, 1


@dataclass(frozen=True)
class Namespace:
    """A network namespace, by a process in it."""

    pid: int

    def inside(self, *command: str) -> list[str]:
        """Return the command that runs another one in it."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command]

    async def ip(self, *arguments: str) -> str:
        """Run iproute2 in it."""
        return (await run(self.inside("ip", *arguments), timeout=_WAIT_SECONDS)).stdout

    async def sent(self, device: str) -> int:
        """Return how many bytes have left by a device of it."""
        (shown,) = json.loads(await self.ip("-json", "-stats", "link", "show", "dev", device))
        return int(shown["stats64"]["tx"]["bytes"])


class NamespacePair:
    """A client and a server in their namespaces; ``by`` is where packets from one to the other must pass."""

    def __init__(self, client: Namespace, address: str, by: tuple[Namespace, str] | None = None) -> None:
        self.client = client
        self._address = address
        self._by = by

    async def measure(self, plan: NetworkPlan) -> Sample:
        """Measure all figures of one round."""
        before = await self._passed()
        whole = await self._run("stream", str(plan.seconds), seconds=plan.seconds)
        split = await self._split(plan)
        passed = await self._passed() - before
        if self._by is not None and passed < whole["bytes"] + split["bytes"]:
            raise UnavailableError(f"packets to {self._address} did not leave by {self._by[1]}")
        many = await self._run("ask", str(plan.askers), str(plan.seconds), seconds=plan.seconds)
        one = await self._run("ask", "1", str(plan.seconds), seconds=plan.seconds)
        return Sample.of(whole, split, many, one)

    async def reaches(self, port: int) -> bool:
        """Say whether the client gets a connection to a port of the server."""
        said = await self._run("reach", str(port), str(_REACH_SECONDS), seconds=_REACH_SECONDS)
        return bool(said["reached"])

    async def _split(self, plan: NetworkPlan) -> dict[str, Any]:
        """Stream with one packet a segment: the client's device hands down none of more."""
        await self.client.ip("link", "set", "dev", _DEVICE, "gso_max_segs", str(_SPLIT))
        try:
            return await self._run("stream", str(plan.seconds), seconds=plan.seconds)
        finally:
            await self.client.ip("link", "set", "dev", _DEVICE, "gso_max_segs", str(_WHOLE))

    async def _passed(self) -> int:
        return 0 if self._by is None else await self._by[0].sent(self._by[1])

    async def _run(self, command: str, *operands: str, seconds: float) -> dict[str, Any]:
        argv = self.client.inside(*_peer(command, self._address, *operands))
        said: dict[str, Any] = json.loads((await run(argv, timeout=seconds + _WAIT_SECONDS)).stdout)
        return said


@asynccontextmanager
async def plain_pair() -> AsyncIterator[NamespacePair]:
    """Make two namespaces that a veth pair joins; they and all in them go with the two processes in them."""
    async with empty_namespace() as client, empty_namespace() as server:
        await _join(client, server, _DEVICE)
        async with _serving(server):
            yield NamespacePair(client, _ADDRESSES[1])


class PlatformNetworks:
    """Clusters of the lab, one after the other."""

    def __init__(self, lab: PlatformLab, *, processes: HostProcesses, clock: Clock) -> None:
        self._lab = lab
        self._processes = processes
        self._clock = clock

    def plain(self) -> contextlib.AbstractAsyncContextManager[NamespacePair]:
        """Return :func:`plain_pair`."""
        return plain_pair()

    @asynccontextmanager
    async def cluster(self, setup: Setup) -> AsyncIterator[TwoNodes]:
        """Make a cluster with a pod on each of two nodes, and delete it."""
        network = Network(plugin=NetworkPlugin(setup.plugin), tunnel=Tunnel(setup.tunnel))
        await self._lab.create_from(setup.name, ClusterSpec(network=network, node_pools=(NodePool(count=2),)))
        try:
            await self._lab.wait_api(setup.name)
            await self._lab.wait_account(setup.name)
            for pod, node in _NODES.items():
                await self._lab.run_pod(setup.name, pod, node)
            yield await self._look(setup.name)
        finally:
            await self._lab.delete(setup.name)

    async def _look(self, name: str) -> TwoNodes:
        """Find the namespaces of pods and nodes among this host's processes."""
        tenant, machines = self._lab.tenant(name), await self._lab.node_pods(name)
        addresses, pods, nodes = {}, {}, {}
        for pod, node in _NODES.items():
            seen = await tenant.get(PODS, pod, "default")
            if seen is None or node not in machines:
                raise UnavailableError(f"the pod {pod} of {name} or its node is gone")
            addresses[pod] = str(seen["status"]["podIP"])
            pods[pod] = Namespace(self._process(seen["metadata"]["uid"]))
            nodes[pod] = Namespace(self._process(machines[node]["metadata"]["uid"], "kubelet"))
        return TwoNodes(tenant, pods=pods, nodes=nodes, addresses=addresses, clock=self._clock)

    def _process(self, uid: str, name: str = "") -> int:
        """Return a process of a pod, of one name if there are more below it: the kubelet is in its node's namespace."""
        for pid, reading in self._processes.read(self._processes.of_pods([uid])).items():
            if name in ("", reading.name):
                return pid
        raise UnavailableError(f"a pod of the measurement has no process {name}".rstrip())


class TwoNodes:
    """A cluster's two pods and their nodes, each by the pod's name."""

    def __init__(
        self,
        tenant: KubeClient,
        *,
        pods: dict[str, Namespace],
        nodes: dict[str, Namespace],
        addresses: dict[str, str],
        clock: Clock,
    ) -> None:
        self._tenant = tenant
        self._pods = pods
        self.nodes = nodes
        self._addresses = addresses
        self._clock = clock

    @asynccontextmanager
    async def pair(self, way: Way) -> AsyncIterator[NamespacePair]:
        """Serve in one pod, and let the other reach it on this way alone."""
        pair = NamespacePair(self._pods[_CLIENT], self._addresses[_SERVER], (self.nodes[_CLIENT], way.device))
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(_serving(self._pods[_SERVER]))
            if way.linked:
                await stack.enter_async_context(self._linked())
            await self._wait(pair, ECHO, reached=True)
            if way.policy:
                await stack.enter_async_context(self._guarded(pair))
            yield pair

    @asynccontextmanager
    async def _linked(self) -> AsyncIterator[None]:
        """Join the nodes, and lead each one's packets to the other's pod over that, past the routes to all its pods."""
        client, server = self.nodes[_CLIENT], self.nodes[_SERVER]
        await _join(client, server, LINK)
        try:
            await client.ip("route", "add", self._addresses[_SERVER], "via", _ADDRESSES[1], "dev", LINK)
            await server.ip("route", "add", self._addresses[_CLIENT], "via", _ADDRESSES[0], "dev", LINK)
            yield
        finally:
            # Its routes and its other end go with it.
            await client.ip("link", "delete", LINK)

    @asynccontextmanager
    async def _guarded(self, pair: NamespacePair) -> AsyncIterator[None]:
        """Let nobody but the client in, to two ports alone; it is at work once the third is closed."""
        await self._tenant.apply(NETWORK_POLICIES, _policy())
        try:
            await self._wait(pair, SHUT, reached=False)
            yield
        finally:
            await self._tenant.delete(NETWORK_POLICIES, _POLICY, "default")
        await self._wait(pair, SHUT, reached=True)

    async def _wait(self, pair: NamespacePair, port: int, *, reached: bool) -> None:
        async def so() -> bool:
            return await pair.reaches(port) is reached

        what = f"port {port} of the other pod to be {'reached' if reached else 'closed'}"
        await wait_for(so, what=what, timeout=_WAIT_SECONDS, clock=self._clock)


def _policy() -> Manifest:
    peers = [{"podSelector": {"matchLabels": {"app": _CLIENT}}}]
    ports = [{"protocol": "TCP", "port": port} for port in (SINK, ECHO)]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": _POLICY, "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": {"app": _SERVER}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": peers, "ports": ports}],
        },
    }


async def _join(client: Namespace, server: Namespace, device: str) -> None:
    """Join two namespaces by a veth pair whose ends have the same name and the two addresses."""
    ends = ["netns", str(client.pid), "type", "veth", "peer", "name", device, "netns", str(server.pid)]
    await run(["ip", "link", "add", device, *ends], timeout=_WAIT_SECONDS)
    for end, address in zip((client, server), _ADDRESSES, strict=True):
        await end.ip("address", "add", f"{address}/31", "dev", device)
        await end.ip("link", "set", "dev", device, "up")


@asynccontextmanager
async def empty_namespace() -> AsyncIterator[Namespace]:
    """Make a network namespace that ends with this block, and with this process."""
    async with _child(["unshare", "--net", "sh", "-c", "echo ready; exec cat"]) as pid:
        yield Namespace(pid)


@asynccontextmanager
async def _serving(namespace: Namespace) -> AsyncIterator[None]:
    async with _child(namespace.inside(*_peer("serve"))):
        yield


@asynccontextmanager
async def _child(argv: list[str]) -> AsyncIterator[int]:
    """Run a program that says a line when it is ready and ends with its standard input, so also when this one dies."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None and process.stdout is not None  # noqa: S101 - pipes were asked for above
    try:
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                ready = await process.stdout.readline()
        except TimeoutError as error:
            raise DeadlineExceededError(f"waited {_WAIT_SECONDS:.0f} s for '{' '.join(argv)}' to be ready") from error
        if not ready:
            raise UnavailableError(f"'{' '.join(argv)}' did not start")
        yield process.pid
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


def _peer(command: str, *operands: str) -> list[str]:
    return [sys.executable, "-m", "haneul.bench.network_peer", command, *operands]


async def run_network_bench(plan: NetworkPlan, figures: NetworkFigures, machine: dict[str, str]) -> None:
    """Measure networks on this host's platform."""
    clock, processes = SystemClock(), HostProcesses()
    installation = await this_host()
    machine |= machine_facts() | versions("cilium", "flannel")
    async with (
        installation.lifecycle.client() as management,
        PlatformLab(
            management, processes=processes, reserved=reserved_ranges(installation.settings), clock=clock
        ) as lab,
    ):
        await lab.clear()
        networks = PlatformNetworks(lab, processes=processes, clock=clock)
        await NetworkBench(networks, progress=TerminalProgress()).run(plan, figures)
    machine["load after"] = machine_facts()["load before"]
