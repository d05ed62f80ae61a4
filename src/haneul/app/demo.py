"""The main job, shown: two clusters with masters of their own, a workload on each, and one cluster's masters killed.

Everything goes through what users have: the platform's API, short-lived credentials, each cluster's own API. Only the
killing is done from below, in the management cluster. All the while, both workloads are asked from outside several
times a second, by their names at their load balancers' addresses, and every failure is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final

import aiohttp
import dns.asyncresolver
import dns.exception
from aiohttp.abc import AbstractResolver, ResolveResult

from haneul.app.installation import Installation, this_host
from haneul.chaos.ledger import Ledger
from haneul.chaos.prober import Prober, any_of, at, reads
from haneul.cli import kubeconfig
from haneul.cli.client import ApiClient
from haneul.cli.context import Contexts
from haneul.cli.output import say
from haneul.cli.progress import TerminalProgress
from haneul.cli.waiting import is_settled
from haneul.components.table import image_reference
from haneul.dkos.control_plane import ROLE_LABEL
from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.errors import ConflictError, HaneulError, UnavailableError
from haneul.kernel.kube import DEPLOYMENTS, PODS, SERVICES, KubeAccess, Manifest
from haneul.kernel.kube_http import HttpKubeClient
from haneul.kernel.progress import Progress
from haneul.kernel.waiting import wait_for

PROJECT: Final = "demo"
CLUSTERS: Final = ("one", "two")
_REPLICAS: Final = 3
_NAME_SECONDS: Final = 3.0


async def run_demo() -> None:
    """Run the demo to its end and print what was measured."""
    progress = TerminalProgress()
    clock = SystemClock()
    began = clock.monotonic()
    installation = await this_host(begins=True)
    await installation.up(progress)
    times = {"platform up": clock.monotonic() - began}
    contexts = Contexts.default()
    with contexts.client() as client:
        await asyncio.to_thread(_ensure_project, client)
        for name in CLUSTERS:
            started = clock.monotonic()
            with progress.stage(f"create cluster {name}", expected_seconds=12) as stage:
                await _ensure_cluster(client, name, stage.note, clock)
            times[f"cluster {name} with 2 nodes"] = clock.monotonic() - started
        urls = {}
        resolver = PlatformNames(installation.settings.address)
        for name in CLUSTERS:
            started = clock.monotonic()
            with progress.stage(f"run a workload on {name}", expected_seconds=5):
                await deploy_workload(client, name, clock)
            times[f"{_REPLICAS} replicas answer on {name}"] = clock.monotonic() - started
            started = clock.monotonic()
            with progress.stage(f"give the workload on {name} an address", expected_seconds=3):
                await balance_workload(client, name, clock)
                host = f"web.default.lb.{name}.{PROJECT}.{installation.settings.zone}"
                await _until_named(host, resolver, clock)
            times[f"workload on {name} has an address and a name"] = clock.monotonic() - started
            urls[f"workload on {name}"] = f"http://{host}/hostname"
        ledgers = await _kill_and_watch(installation, client, urls, resolver, progress, clock, times)
    _tell(ledgers, urls, times)
    failed = sum(ledger.tally().failed for ledger in ledgers)
    if failed:
        raise UnavailableError(
            f"{failed} requests failed that should not have noticed",
            hint="'haneul status' and 'haneul doctor' may tell",
        )


def _ensure_project(client: ApiClient) -> None:
    if PROJECT not in [project["name"] for project in client.get("/projects")]:
        client.post("/projects", {"name": PROJECT, "description": "made by 'haneul demo'"})


async def _ensure_cluster(client: ApiClient, name: str, note: Any, clock: Clock) -> None:
    path = f"/projects/{PROJECT}/clusters"
    spec = {"nodePools": [{"name": "default", "count": 2, "memoryMib": 1024}]}
    try:
        await asyncio.to_thread(client.post, path, {"name": name, "spec": spec})
    except ConflictError:
        note("it is there already")

    async def ready() -> bool:
        return is_settled(await asyncio.to_thread(client.get, f"{path}/{name}"))

    hint = f"'haneul cluster get {name} -p {PROJECT}' shows what it waits on"
    await wait_for(ready, what=f"cluster {name}", timeout=180, clock=clock, hint=hint)


async def cluster_access(client: ApiClient, project: str, name: str) -> KubeAccess:
    """Return access to a cluster's own API with a credential as any user gets it."""
    made, key = await asyncio.to_thread(kubeconfig.request_credential, client, project, name)
    return KubeAccess(made["server"], made["certificateAuthority"].encode(), made["certificate"].encode(), key.encode())


async def deploy_workload(client: ApiClient, name: str, clock: Clock, project: str = PROJECT) -> str:
    """Run three replicas and a Service on a cluster; return ``address:port`` at which it answers from outside."""
    async with HttpKubeClient(await cluster_access(client, project, name)) as kube:
        await kube.apply(DEPLOYMENTS, workload())
        service = await kube.apply(SERVICES, workload_service())

        async def available() -> bool:
            seen = await kube.get(DEPLOYMENTS, "web", "default")
            return bool((seen or {}).get("status", {}).get("availableReplicas", 0) >= _REPLICAS)

        await wait_for(available, what=f"the workload on {name}", timeout=120, clock=clock)
    cluster = await asyncio.to_thread(client.get, f"/projects/{project}/clusters/{name}")
    node = next(node for node in cluster["status"]["nodes"] if node["ready"])
    address = f"{node['address']}:{service['spec']['ports'][0]['nodePort']}"

    async def answers() -> bool:
        async with aiohttp.ClientSession() as session:
            return await any_of(session, at(f"http://{address}/hostname"))()

    await wait_for(answers, what=f"the workload on {name} to answer at {address}", timeout=30, clock=clock)
    return address


async def balance_workload(client: ApiClient, name: str, clock: Clock, project: str = PROJECT) -> str:
    """Let the workload's Service be one with an address outside of the cluster; return it once it answers there."""
    async with HttpKubeClient(await cluster_access(client, project, name)) as kube:
        await kube.apply(SERVICES, workload_service("LoadBalancer"))

        async def address() -> str:
            seen = await kube.get(SERVICES, "web", "default") or {}
            told = (seen.get("status", {}).get("loadBalancer") or {}).get("ingress") or [{}]
            return str(told[0].get("ip", ""))

        found = await wait_for(address, what=f"the workload on {name} to get an address", timeout=60, clock=clock)

    async def answers() -> bool:
        async with aiohttp.ClientSession() as session:
            return await any_of(session, at(f"http://{found}/hostname"))()

    await wait_for(answers, what=f"the workload on {name} to answer at {found}", timeout=30, clock=clock)
    return found


class PlatformNames(AbstractResolver):
    """Asks the platform's own DNS server, as whoever has it for a resolver does."""

    def __init__(self, address: str) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.nameservers = [address]
        self._resolver.lifetime = _NAME_SECONDS

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name. Raises OSError."""
        try:
            answer = await self._resolver.resolve(host, "A")
        except dns.exception.DNSException as error:
            raise OSError(f"{host} has no address: {error}") from error
        return [
            ResolveResult(
                hostname=host,
                host=record.to_text(),
                port=port,
                family=socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for record in answer
        ]

    async def close(self) -> None:
        """Nothing is open."""


async def _until_named(host: str, resolver: PlatformNames, clock: Clock) -> None:
    async def named() -> bool:
        with contextlib.suppress(OSError):
            return bool(await resolver.resolve(host))
        return False

    await wait_for(named, what=f"the name {host}", timeout=60, clock=clock)


def workload() -> Manifest:
    """Return a Deployment of a web server that says which pod answered."""
    labels = {"app": "web"}
    container = {
        "name": "web",
        "image": image_reference("agnhost"),
        "args": ["netexec", "--http-port=8080"],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1},
        # Nodes learn a moment later that a pod is leaving; until then they go on sending it requests.
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": _REPLICAS,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def workload_service(kind: str = "NodePort") -> Manifest:
    """Return the Service of the workload, reached at a port of every node, and as a LoadBalancer at its own address."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": kind, "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }


async def kill_masters(installation: Installation, project: str, name: str) -> int:
    """Kill all master pods of a cluster at once, without grace; return how many there were."""
    namespace = f"cluster-{project}-{name}"
    async with installation.lifecycle.client() as kube:
        pods = [pod for pod in await kube.list(PODS, namespace) if ROLE_LABEL in pod["metadata"]["labels"]]
        await asyncio.gather(*(kube.delete(PODS, pod["metadata"]["name"], namespace, grace=0) for pod in pods))
    return len(pods)


async def _kill_and_watch(
    installation: Installation,
    client: ApiClient,
    urls: Mapping[str, str],
    resolver: PlatformNames,
    progress: Progress,
    clock: Clock,
    times: dict[str, float],
) -> list[Ledger]:
    victim, other = CLUSTERS
    async with contextlib.AsyncExitStack() as stack:
        kube, untouched = [
            await stack.enter_async_context(HttpKubeClient(await cluster_access(client, PROJECT, name)))
            for name in CLUSTERS
        ]
        # Each question is for the name, too.
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        prober = await stack.enter_async_context(Prober(clock=clock))
        ledgers = [prober.ask(name, any_of(session, at(url))) for name, url in urls.items()]
        ledgers.append(prober.ask(f"API of {other}", reads(untouched)))
        with progress.stage(f"kill the masters of {victim}", expected_seconds=10) as stage:
            killed = await kill_masters(installation, PROJECT, victim)
            started = clock.monotonic()
            stage.note(f"{killed} pods killed; waiting for its API to answer again")

            async def back() -> bool:
                return await _reads(kube)

            async def gone() -> bool:
                return not await _reads(kube)

            await wait_for(gone, what="the killed API to go", timeout=15, clock=clock, interval=0.02)
            await wait_for(back, what=f"the masters of {victim} to be back", timeout=90, clock=clock)
            times[f"masters of {victim} killed, API back"] = clock.monotonic() - started
    return ledgers


async def _reads(kube: HttpKubeClient) -> bool:
    try:
        return await reads(kube)()
    except HaneulError:
        return False


def _tell(ledgers: Sequence[Ledger], urls: Mapping[str, str], times: Mapping[str, float]) -> None:
    say("")
    for title, value in times.items():
        say(f"  {title:<48} {value:.1f} s")
    for ledger in ledgers:
        tally = ledger.tally()
        share = f"{tally.failed} of {tally.asked} failed"
        say(f"  {ledger.name + ', asked 20 times a second':<48} {share}, longest gap {tally.longest_gap:.2f} s")
    say("")
    for name, url in urls.items():
        say(f"  {name}: {url}")
    say(f"""
Try next:
  haneul cluster list -p {PROJECT} -o wide
  haneul cluster kubeconfig {CLUSTERS[0]} -p {PROJECT} && kubectl get pods -o wide
  haneul cluster scale {CLUSTERS[0]} -p {PROJECT} --nodes 3
  haneul cluster create three -p {PROJECT} --network cilium
  haneul down --purge""")
