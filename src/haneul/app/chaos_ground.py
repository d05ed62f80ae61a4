"""The ground of ``haneul bench chaos`` on this host's platform: two clusters of a project of their own.

They are made as any user makes them, and asked where users ask. The victim's etcd gets a small disk of its own, so that
it can be full. Nothing that belongs to other projects is touched; what all clusters share is broken for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp

from haneul.app.demo import deploy_workload
from haneul.app.installation import Installation
from haneul.app.platform import API_PORT
from haneul.chaos.adapters.journal import Journal
from haneul.chaos.adapters.volumes import SmallDisk
from haneul.chaos.faults import CLUSTERS, Asked
from haneul.chaos.ports import Question
from haneul.chaos.prober import NodesInTurn, any_of, at, reads
from haneul.cli.client import ApiClient
from haneul.cli.waiting import describe, is_settled
from haneul.dkos.adapters.kube_authorities import KubeAuthorities
from haneul.dkos.adapters.kube_clusters import KubeClusters
from haneul.dkos.etcd_slots import FOUNDERS_FOLDER, member_name
from haneul.dkos.model import Cluster, Phase
from haneul.dkos.states import waits_on
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError, HaneulError, NotFoundError, UnavailableError
from haneul.kernel.kube import CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, NODES, PODS, KubeAccess, Manifest, is_ready
from haneul.kernel.kube_http import HttpKubeClient
from haneul.kernel.pki import LeafProfile, issue_leaf
from haneul.kernel.waiting import wait_for

PROJECT: Final = "chaos"
VICTIM, NEIGHBOUR = CLUSTERS
NODE_MEMORY: Final = 1024
NODES_OF: Final = {VICTIM: 2, NEIGHBOUR: 1}
REPLICAS: Final = 3
_MARK: Final = "made by 'haneul bench chaos'"
_LABEL: Final = "haneul-chaos"
_CREDENTIAL_LIFE: Final = timedelta(hours=12)
_SECONDS: Final = 240.0
_DISK: Final = "disk"
_TRIES: Final = 3


@dataclass(frozen=True)
class LifeStep:
    """One step of a cluster's life. ``state`` says whether it is over, and in words on what it waits."""

    what: str
    begin: Callable[[], Awaitable[None]]
    state: Callable[[], Awaitable[tuple[bool, str]]]


class PlatformGround:
    """``management`` is the management cluster's API as its administrator, ``client`` the platform's as a person."""

    def __init__(
        self,
        installation: Installation,
        *,
        management: HttpKubeClient,
        client: ApiClient,
        journal: Journal,
        clock: Clock,
    ) -> None:
        self._settings = installation.settings
        self._platform_files = installation.platform.files
        self._management = management
        self._client = client
        self._journal = journal
        self._clock = clock
        self._store = KubeClusters(management, clock=clock)
        self._stack = contextlib.AsyncExitStack()
        self._tenants: dict[str, HttpKubeClient] = {}
        self._access: dict[str, KubeAccess] = {}
        self._nodes: dict[str, NodesInTurn] = {}
        self._uids: list[str] = []
        self.disk: SmallDisk | None = None

    async def close(self) -> None:
        """Close all connections."""
        await self._stack.aclose()

    def tenant(self, name: str) -> HttpKubeClient:
        """Return a cluster's own API as its administrator."""
        return self._tenants[name]

    def access(self, name: str) -> KubeAccess:
        """Return how a cluster's own API is reached."""
        return self._access[name]

    async def cluster(self, name: str) -> Cluster:
        """Return a cluster as the management cluster has it."""
        return await self._store.get(PROJECT, name)

    async def prepare(self) -> None:
        """Make the project and both clusters; what a run that was killed has left is deleted first."""
        await asyncio.to_thread(self._ensure_project)
        await self._delete_clusters()
        await asyncio.gather(self._make_victim(), self._make(NEIGHBOUR))
        for name in CLUSTERS:
            await self._connect(name)
            address = await deploy_workload(self._client, name, self._clock, project=PROJECT)
            host, _, port = address.rpartition(":")
            self._nodes[name] = NodesInTurn(int(port), [host])
        following = asyncio.create_task(self._follow_addresses())
        self._stack.callback(following.cancel)

    def questions(self) -> Mapping[Asked, Question]:
        """Return what is asked: reads at API servers, requests at the workloads' nodes, the platform's readiness."""
        # Each request has a connection of its own, or one pod would answer all of them.
        plain = self._session(aiohttp.TCPConnector(limit=0, force_close=True))
        trusted = ssl.create_default_context(cafile=str(self._platform_files.authority))
        verified = self._session(aiohttp.TCPConnector(limit=0, ssl=trusted))
        ready = f"https://{self._settings.address}:{API_PORT}/readyz"
        return {
            Asked.VICTIM_API: reads(self._tenants[VICTIM]),
            Asked.VICTIM_WORKLOAD: any_of(plain, self._nodes[VICTIM].urls),
            Asked.NEIGHBOUR_API: reads(self._tenants[NEIGHBOUR]),
            Asked.NEIGHBOUR_WORKLOAD: any_of(plain, self._nodes[NEIGHBOUR].urls),
            Asked.PLATFORM_API: any_of(verified, at(ready)),
            Asked.MANAGEMENT_API: reads(self._management),
        }

    async def trouble(self) -> str:
        """Ask everybody who knows of something: services, deployments, clusters, nodes, workloads."""
        for name in CLUSTERS:
            if words := waits_on((await self.cluster(name)).status):
                return f"{name} waits on {words}"
            ready = [node for node in await self._tenants[name].list(NODES) if is_ready(node)]
            if len(ready) != NODES_OF[name]:
                return f"{name} has {len(ready)} of {NODES_OF[name]} nodes ready"
            web = await self._tenants[name].get(DEPLOYMENTS, "web", "default") or {}
            if web.get("status", {}).get("availableReplicas", 0) < REPLICAS:
                return f"the workload on {name} has too few replicas"
        for namespace in self._settings.namespaces:
            for deployment in await self._management.list(DEPLOYMENTS, namespace):
                wanted = deployment["spec"]["replicas"]
                if deployment.get("status", {}).get("availableReplicas", 0) < wanted:
                    return f"{deployment['metadata']['name']} is not available"
            for pod in await self._management.list(PODS, namespace):
                if not is_ready(pod) and pod["status"].get("phase") not in ("Succeeded", "Failed"):
                    return f"the pod {pod['metadata']['name']} is not ready"
        return ""

    async def write(self, cluster: str, number: int) -> None:
        """Make a ConfigMap that holds the number in its name."""
        await self._tenants[cluster].create(CONFIG_MAPS, _record(number))

    async def written(self, cluster: str) -> set[int]:
        """Return the numbers of all ConfigMaps that were made."""
        found = await self._tenants[cluster].list(CONFIG_MAPS, "default", labels=f"app={_LABEL}")
        return {int(entry["metadata"]["name"].rpartition("-")[2]) for entry in found}

    async def change(self, name: str, patch: dict[str, Any]) -> None:
        """Change a cluster's spec and wait until it is so."""
        await asyncio.to_thread(self._client.patch, _path(name), patch)
        await self._settled(name)

    def life_of(self, name: str) -> list[LifeStep]:
        """Return the steps of another cluster's life: it is made, sleeps, wakes, and is deleted."""

        async def settled() -> tuple[bool, str]:
            seen = await asyncio.to_thread(self._client.get, _path(name))
            return is_settled(seen), describe(seen)

        async def asleep() -> tuple[bool, str]:
            seen = await asyncio.to_thread(self._client.get, _path(name))
            return seen["status"]["phase"] == Phase.ASLEEP, describe(seen)

        async def deleted() -> tuple[bool, str]:
            there = await self._management.list(NAMESPACES)
            names = {f"cluster-{PROJECT}-{name}", f"nodes-{PROJECT}-{name}"}
            left = sorted(names & {namespace["metadata"]["name"] for namespace in there})
            clusters = [cluster.name for cluster in await self._store.list(PROJECT)]
            return not left and name not in clusters, ", ".join(left) or "the cluster itself"

        def ask(verb: Callable[..., Any], *arguments: Any) -> Callable[[], Awaitable[Any]]:
            async def asked() -> None:
                # The operator dies all the time; the API may be restarted beside it.
                await wait_for(
                    lambda: self._patiently(verb, *arguments), what=f"{name} to be asked", timeout=60, clock=self._clock
                )

            return asked

        return [
            LifeStep(f"{name} to be made", ask(self._create, name, 1), settled),
            LifeStep(f"{name} to sleep", ask(self._client.post, f"{_path(name)}/hibernate", {}), asleep),
            LifeStep(f"{name} to wake", ask(self._client.post, f"{_path(name)}/wake", {}), settled),
            LifeStep(f"{name} to be deleted", ask(self._client.delete, _path(name)), deleted),
        ]

    async def _patiently(self, verb: Callable[..., Any], *arguments: Any) -> bool:
        try:
            await asyncio.to_thread(verb, *arguments)
        except UnavailableError:
            return False
        except ConflictError:
            return verb == self._create
        return True

    async def leave(self) -> None:
        """Delete the clusters and the project."""
        await self._delete_clusters()
        with contextlib.suppress(NotFoundError):
            await asyncio.to_thread(self._client.delete, f"/projects/{PROJECT}")

    async def leftovers(self) -> list[str]:
        """Return open records, namespaces, folders and mounts of ours."""
        found = [f"fault {name}" for name in self._journal.open()]
        for namespace in await self._management.list(NAMESPACES):
            name = namespace["metadata"]["name"]
            if name.startswith((f"cluster-{PROJECT}-", f"nodes-{PROJECT}-")):
                found.append(f"namespace {name}")
        folders = [self._settings.clusters / uid for uid in self._uids]
        return found + [str(folder) for folder in folders if folder.exists()]

    def _ensure_project(self) -> None:
        kept = {project["name"]: project for project in self._client.get("/projects")}
        if PROJECT not in kept:
            self._client.post("/projects", {"name": PROJECT, "description": _MARK})
        elif kept[PROJECT].get("description") != _MARK:
            raise ConflictError(
                f"the project {PROJECT}, in which clusters are broken, is somebody's own",
                hint="run it on a platform without a project of this name",
            )

    async def _make_victim(self) -> None:
        """Make the victim with its etcd on a disk of its own, which must be there before its pod is."""
        for _ in range(_TRIES):
            disk = SmallDisk(self._journal_image(), self._settings.clusters / "unknown")
            await disk.make()
            uid = await asyncio.to_thread(self._create, VICTIM, NODES_OF[VICTIM])
            disk = SmallDisk(disk.image, self._settings.clusters / uid)
            self._journal.begin(_DISK, {"kind": _DISK, "image": str(disk.image), "folder": str(disk.folder)})
            await disk.mount()
            await self._settled(VICTIM)
            if _lies_on(disk.folder / member_name(0) / FOUNDERS_FOLDER, disk.folder):
                self.disk = disk
                return
            await disk.unmount()
            await self._delete_clusters(VICTIM)
        raise UnavailableError("the victim's etcd was started before its disk was there", hint="try again")

    async def _make(self, name: str) -> None:
        await asyncio.to_thread(self._create, name, NODES_OF[name])
        await self._settled(name)

    def _create(self, name: str, nodes: int) -> str:
        spec = {"nodePools": [node_pool(nodes)]}
        uid = str(self._client.post(f"/projects/{PROJECT}/clusters", {"name": name, "spec": spec})["uid"])
        self._uids.append(uid)
        return uid

    async def _settled(self, name: str) -> None:
        async def settled() -> bool:
            try:
                return is_settled(await asyncio.to_thread(self._client.get, _path(name)))
            except UnavailableError:
                return False

        hint = f"'haneul cluster get {name} -p {PROJECT}' shows what it waits on"
        await wait_for(settled, what=f"cluster {name}", timeout=_SECONDS, clock=self._clock, hint=hint)

    async def _connect(self, name: str) -> None:
        """Connect with a certificate that lasts for the longest run, without the platform's API in between."""
        signer = await KubeAuthorities(self._management).of(await self.cluster(name))
        if signer is None:
            raise UnavailableError(f"{name} has no authority that signs people's certificates")
        profile = LeafProfile("haneul:chaos", ("system:masters",), client=True)
        leaf = issue_leaf(signer.pair, profile, now=self._clock.now(), life=_CREDENTIAL_LIFE)
        self._access[name] = access = KubeAccess(signer.server, signer.trusted, leaf.certificate, leaf.key)
        self._tenants[name] = await self._stack.enter_async_context(HttpKubeClient(access, user_agent="haneul-chaos"))

    async def _follow_addresses(self) -> None:
        """Learn at which addresses the nodes are: a node that is replaced has another."""
        while True:
            with contextlib.suppress(HaneulError):
                for name in CLUSTERS:
                    pods = await self._management.list(PODS, f"nodes-{PROJECT}-{name}")
                    found = [
                        str(pod["status"]["podIP"])
                        for pod in pods
                        if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("podIP")
                    ]
                    self._nodes[name].are_at(found)
            await self._clock.sleep(0.5)

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(connector=connector)
        self._stack.push_async_callback(session.close)
        return session

    async def _delete_clusters(self, *names: str) -> None:
        """Delete clusters of the project, all by default, and wait until nothing of them is there any more."""
        deadline = time.monotonic() + _SECONDS
        while True:
            with contextlib.suppress(UnavailableError):
                there = [cluster for cluster in await self._store.list(PROJECT) if not names or cluster.name in names]
                if not there:
                    return
                for cluster in there:
                    if not cluster.deleting:
                        with contextlib.suppress(NotFoundError):
                            await asyncio.to_thread(self._client.delete, _path(cluster.name))
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"clusters of the project {PROJECT} could not be deleted",
                    hint=f"'haneul cluster list -p {PROJECT}' shows them",
                )
            await self._clock.sleep(0.5)

    def _journal_image(self) -> Path:
        return self._settings.state / "chaos" / "victim-etcd.img"


def node_pool(count: int) -> dict[str, Any]:
    """Return the pool of a cluster's nodes, as the API takes it."""
    return {"name": "default", "count": count, "memoryMib": NODE_MEMORY}


def _path(name: str) -> str:
    return f"/projects/{PROJECT}/clusters/{name}"


def _record(number: int) -> Manifest:
    metadata = {"name": f"written-{number}", "namespace": "default", "labels": {"app": _LABEL}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"number": str(number)}}


def _lies_on(folder: Path, disk: Path) -> bool:
    """Say whether a folder is there and in the disk's own file system."""
    return folder.is_dir() and folder.stat().st_dev == disk.stat().st_dev != disk.parent.stat().st_dev
