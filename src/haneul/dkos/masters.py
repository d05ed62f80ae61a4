"""Making a cluster's masters so: applies what :mod:`control_plane` renders, in the order in which it is needed.

Level-triggered: every call makes what is missing and changes what differs. What this process has applied before and
has not changed since is skipped; for a few seconds after it looked, what it saw still counts.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from haneul.dkos import control_plane, isolation
from haneul.dkos.authentication import IssuerTrust
from haneul.dkos.control_plane import CLUSTER_LABEL, CREDENTIALS_ANNOTATION, ROLE_LABEL, Images, Placement, labels
from haneul.dkos.credentials import (
    Endpoints,
    component_data,
    component_profiles,
    content_digest,
    decode,
    needs_issuing,
    profile_digest,
    secret_manifest,
)
from haneul.dkos.hibernation import Level
from haneul.dkos.keyring import Keyring, keyring_from, new_authorities
from haneul.dkos.model import Cluster, NetworkPlugin
from haneul.dkos.rotation import Record, Step
from haneul.dkos.states import MasterState
from haneul.kernel.clock import Clock
from haneul.kernel.kube import (
    DEPLOYMENTS,
    NODES,
    PERSISTENT_VOLUMES,
    PODS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    KubeApiError,
    KubeClient,
    Manifest,
    resource_of,
)
from haneul.kernel.kube_manifests import account, rights_in_namespace, rule

_AUTHORITIES = "authorities"
#: For how long after a look nothing is read again, unless what is wanted changed.
_FRESH_SECONDS = 15.0
#: The secret from which the platform's API signs people's short-lived certificates.
CLIENT_AUTHORITY = "client-authority"
#: The ConfigMap, beside the masters, of what was found when the cluster was examined last.
EXAMINATION = "examination"


@dataclass(frozen=True)
class MadeMasters:
    """What later steps need of the masters: where they are reached, what signs for them, what they are made from."""

    endpoints: Endpoints
    keyring: Keyring
    #: By component, as its pods carry it.
    digests: Mapping[str, str] = field(default_factory=dict)
    #: The components that got fresh certificates in place of kept ones.
    renewed: tuple[str, ...] = ()


class Masters:
    """The masters of one cluster in the management cluster."""

    def __init__(
        self,
        client: KubeClient,
        *,
        images: Images,
        outside_address: str,
        data: str,
        clock: Clock,
        trust: IssuerTrust | None = None,
    ) -> None:
        self._client = client
        self._trust = trust
        self._images = images
        self._outside_address = outside_address
        self._data = data
        self._clock = clock
        self._applied: dict[tuple[str, str, str], int] = {}
        self._made: MadeMasters | None = None
        self._made_for: tuple[object, ...] = ()
        self._fresh_until = 0.0
        self._rendered_for: tuple[object, ...] = ()
        self._digests: dict[str, str] = {}

    def forget(self) -> None:
        """Apply everything again at the next call, in case somebody else changed it."""
        self._applied.clear()
        self._made, self._made_for, self._rendered_for = None, (), ()

    async def ensure(self, cluster: Cluster, level: Level = Level.ALL, *, rest: bool = True) -> MadeMasters:
        """Make the masters be as the spec says; does not wait until they run, or until they ended.

        What a lower ``level`` than all leaves out has no replicas. Without ``rest``, only etcd and the API server are
        made so, and the rest is left as it is, made or not: on a machine with few cores, what everything else waits for
        should not compete with what waits for it.
        """
        # All that rendering takes from the cluster.
        wanted = (cluster.uid, cluster.spec, "ready" in cluster.status.milestones, level, rest)
        now = self._clock.monotonic()
        if self._made is not None and self._made_for == wanted and now < self._fresh_until:
            return self._made
        await self._apply(control_plane.namespaces(cluster))
        endpoints, keyring, _ = await asyncio.gather(
            self._endpoints(cluster), self._keyring(cluster), self._volume(cluster)
        )
        digests, renewed = await self._credentials(cluster, endpoints, keyring)
        inputs = (*wanted, endpoints, digests)
        if inputs != self._rendered_for:
            self._digests = await self._programs(cluster, endpoints, digests, level, rest=rest)
            self._rendered_for = inputs
        self._made, self._made_for = MadeMasters(endpoints, keyring, self._digests), wanted
        self._fresh_until = now + _FRESH_SECONDS
        return replace(self._made, renewed=renewed)

    async def _programs(
        self, cluster: Cluster, endpoints: Endpoints, credentials: dict[str, str], level: Level, *, rest: bool
    ) -> dict[str, str]:
        """Apply what runs, and what bounds it; return what the pods are made from, by component."""
        configurations = control_plane.configurations(cluster, self._trust)
        role, binding = _signing_rights(cluster)
        await self._apply([*configurations.values(), *isolation.network_policies(cluster, self._trust), role])
        # A role is bound only once it is there.
        await self._apply([binding])
        digests = dict(credentials)
        for component, configuration in configurations.items():
            digests[component] += content_digest(configuration)
        images = self._images
        programs = [
            control_plane.etcd(cluster, endpoints, images, digests, replicas=int(level >= Level.ETCD)),
            control_plane.apiserver(cluster, endpoints, images, digests, replicas=int(level >= Level.API)),
        ]
        if rest:
            replicas = int(level is Level.ALL)
            programs += [
                control_plane.controller_manager(cluster, images, digests, replicas=replicas),
                control_plane.scheduler(cluster, images, digests, replicas=replicas),
            ]
            if cluster.spec.network.plugin is NetworkPlugin.CILIUM:
                programs.append(control_plane.cilium_operator(cluster, endpoints, images, digests, replicas=replicas))
        await self._apply(programs)
        return digests

    async def begin(self, cluster: Cluster, made: MadeMasters, step: Step) -> None:
        """Begin a step of the authorities' replacement, unless somebody else went on from the same state already."""
        kept = await self._client.get(SECRETS, _AUTHORITIES, cluster.masters_namespace)
        data = decode(kept or {})
        if kept is None or keyring_from(data).record != made.keyring.record:
            return
        after = made.keyring.at(
            step,
            cluster=_full_name(cluster),
            requested=cluster.spec.authorities.revision,
            now=self._clock.now(),
        )
        written: dict[str, str | None] = {name: base64.b64encode(v).decode() for name, v in after.data().items()}
        patch = {
            "metadata": {"resourceVersion": kept["metadata"]["resourceVersion"]},
            # In a merge patch, what is left out stays; what shall go must be named.
            "data": dict.fromkeys(data) | written,
        }
        await self._client.patch(SECRETS, _AUTHORITIES, patch, cluster.masters_namespace)
        # What was made last is made from the step before.
        self._made = None

    async def unfinished(self, cluster: Cluster, made: MadeMasters) -> list[str]:
        """Return the components of which not exactly the pods of the last :meth:`ensure` run."""
        selector = f"{CLUSTER_LABEL}={cluster.uid}"
        found = [
            workload
            for kind in (STATEFUL_SETS, DEPLOYMENTS)
            for workload in await self._client.list(kind, cluster.masters_namespace, labels=selector)
        ]
        return unfinished_rollouts(found, made.digests)

    async def observe(self, cluster: Cluster) -> tuple[MasterState, ...]:
        """Return each master component's state, from its pods."""
        pods = await self._client.list(PODS, cluster.masters_namespace, labels=f"{CLUSTER_LABEL}={cluster.uid}")
        roles = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
        if cluster.spec.network.plugin is NetworkPlugin.CILIUM:
            roles.append("cilium-operator")
        return tuple(
            _master_state(role, [pod for pod in pods if pod["metadata"]["labels"].get(ROLE_LABEL) == role])
            for role in roles
        )

    async def api_port(self, cluster: Cluster) -> int | None:
        """Return the port at which the API server is reached from outside; None if it has no service yet."""
        service = await self._client.get(SERVICES, "kube-apiserver", cluster.masters_namespace)
        return int(service["spec"]["ports"][0]["nodePort"]) if service else None

    async def _endpoints(self, cluster: Cluster) -> Endpoints:
        etcd, api = await asyncio.gather(
            *(self._client.apply(SERVICES, manifest) for manifest in control_plane.services(cluster))
        )
        return Endpoints(
            etcd_addresses=(etcd["spec"]["clusterIP"],),
            service_address=api["spec"]["clusterIP"],
            kubernetes_service_address=control_plane.kubernetes_service_address(str(cluster.spec.network.services)),
            outside_address=self._outside_address,
            outside_port=api["spec"]["ports"][0]["nodePort"],
        )

    async def _volume(self, cluster: Cluster) -> None:
        """Put etcd's data on the host that has it already, else on the host with the fewest volumes."""
        name = f"etcd-{cluster.uid}-0"
        if (PERSISTENT_VOLUMES.kind, "", name) in self._applied:
            return
        kept = await self._client.get(PERSISTENT_VOLUMES, name)
        if kept is None:
            volumes, nodes = await asyncio.gather(
                self._client.list(PERSISTENT_VOLUMES, labels="app.kubernetes.io/managed-by=haneul"),
                self._client.list(NODES),
            )
            host = choose_host([node["metadata"]["name"] for node in nodes], volumes)
            # One after the other: a claim is bound at once only if its volume is there.
            for manifest in control_plane.volume(cluster, Placement(host, self._data)):
                await self._apply([manifest])
        else:
            # A volume's place never changes, but its claim may be missing: the process that made both ended between.
            _, claim = control_plane.volume(cluster, Placement(control_plane.hosts_of(kept)[0], self._data))
            await self._apply([claim])
        self._applied[(PERSISTENT_VOLUMES.kind, "", name)] = 0

    async def _keyring(self, cluster: Cluster) -> Keyring:
        namespace = cluster.masters_namespace
        kept = await self._client.get(SECRETS, _AUTHORITIES, namespace)
        if kept is None:
            record = Record(revision=cluster.spec.authorities.revision)
            fresh = Keyring(new_authorities(_full_name(cluster), self._clock.now()), record=record)
            manifest = secret_manifest(namespace, _AUTHORITIES, fresh.data(), labels(cluster))
            try:
                kept = await self._client.create(SECRETS, manifest)
            except KubeApiError as error:
                if error.reason != "AlreadyExists":
                    raise
                # Another process was first: its authorities are the cluster's.
                kept = await self._client.get(SECRETS, _AUTHORITIES, namespace)
        return keyring_from(decode(kept or {}))

    async def _credentials(
        self, cluster: Cluster, endpoints: Endpoints, keyring: Keyring
    ) -> tuple[dict[str, str], tuple[str, ...]]:
        """Make each component's secret; return the digests of their contents, and whose were renewed."""
        now = self._clock.now()
        namespace = cluster.masters_namespace
        cilium = cluster.spec.network.plugin is NetworkPlugin.CILIUM
        wanted = component_profiles(endpoints, cilium=cilium)
        kept = {
            secret["metadata"]["name"]: secret
            for secret in await self._client.list(SECRETS, namespace, labels=f"{CLUSTER_LABEL}={cluster.uid}")
        }
        digests: dict[str, str] = {}
        fresh: list[Manifest] = []
        renewed: list[str] = []
        for component, profiles in wanted.items():
            secret = kept.get(component)
            made_from = endpoints.inside + keyring.mark(component)
            if secret is None or needs_issuing(secret, profiles, made_from, now):
                data = component_data(component, profiles, keyring, endpoints, now)
                issued_for = profile_digest(profiles, made_from)
                secret = secret_manifest(namespace, component, data, labels(cluster), issued_for=issued_for)
                fresh.append(secret)
                if component in kept:
                    renewed.append(component)
            digests[component] = content_digest(secret)
        signer = {
            "ca.crt": keyring.request_signer.certificate,
            "ca.key": keyring.request_signer.key,
            "bundle.crt": keyring.trusted("cluster"),
            "server": endpoints.outside.encode(),
        }
        fresh.append(secret_manifest(namespace, CLIENT_AUTHORITY, signer, labels(cluster)))
        await self._apply(fresh)
        return digests, tuple(renewed)

    async def _apply(self, manifests: Iterable[Manifest]) -> None:
        """Apply what this process has not applied in just this form; in parallel, none depends on another."""

        async def apply(manifest: Manifest) -> None:
            metadata = manifest["metadata"]
            key = (manifest["kind"], metadata.get("namespace", ""), metadata["name"])
            fingerprint = hash(repr(manifest))
            if self._applied.get(key) != fingerprint:
                await self._client.apply(resource_of(manifest), manifest)
                self._applied[key] = fingerprint

        async with asyncio.TaskGroup() as group:
            for manifest in manifests:
                group.create_task(apply(manifest))


def choose_host(hosts: list[str], volumes: list[Manifest]) -> str:
    """Return the host that carries the fewest of the given volumes, the first by name among equals."""
    carried = dict.fromkeys(sorted(hosts), 0)
    for volume in volumes:
        for host in control_plane.hosts_of(volume):
            if host in carried:
                carried[host] += 1
    return min(carried, key=lambda host: carried[host])


def unfinished_rollouts(workloads: Sequence[Manifest], digests: Mapping[str, str]) -> list[str]:
    """Return the components among ``digests`` of which pods made from another digest run, or none yet. Pure."""
    by_name = {workload["metadata"]["name"]: workload for workload in workloads}
    return [name for name, digest in sorted(digests.items()) if not _rolled_out(by_name.get(name), digest)]


def _rolled_out(workload: Manifest | None, digest: str) -> bool:
    """Say whether exactly the wanted pods run and are ready, and the controller of their kind knows it."""
    if workload is None:
        return False
    status, wanted = workload.get("status", {}), workload["spec"]["replicas"]
    annotations = workload["spec"]["template"]["metadata"].get("annotations", {})
    return bool(
        annotations.get(CREDENTIALS_ANNOTATION) == digest
        and status.get("observedGeneration") == workload["metadata"]["generation"]
        and status.get("replicas", 0) == wanted
        and status.get("updatedReplicas", 0) == wanted
        and status.get("readyReplicas", 0) == wanted
    )


def _full_name(cluster: Cluster) -> str:
    return f"{cluster.project}/{cluster.name}"


def _signing_rights(cluster: Cluster) -> list[Manifest]:
    """The platform's API may read two objects of each cluster: what signs people's certificates, what was examined."""
    rules = [
        rule("", ["secrets"], ["get"], names=[CLIENT_AUTHORITY]),
        rule("", ["configmaps"], ["get"], names=[EXAMINATION]),
    ]
    api = account("haneul-api", "haneul-system")
    return rights_in_namespace("credential-signer", cluster.masters_namespace, rules, api, labels(cluster))


def _master_state(role: str, pods: list[Manifest]) -> MasterState:
    if not pods:
        return MasterState(role, ready=False, message="its pod is being made")
    containers = [entry for pod in pods for entry in pod.get("status", {}).get("containerStatuses", [])]
    restarts = sum(entry.get("restartCount", 0) for entry in containers)
    ended = next((words for entry in containers if (words := _how_it_ended(entry))), "")
    for pod in pods:
        conditions = pod.get("status", {}).get("conditions", [])
        if any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions):
            address = str(pod.get("status", {}).get("podIP", ""))
            return MasterState(role, ready=True, restarts=restarts, ended=ended, address=address)
    return MasterState(role, ready=False, message=_why_not_ready(pods[-1]), restarts=restarts, ended=ended)


def _how_it_ended(container: Manifest) -> str:
    """Return how a container's last process ended: ``OOMKilled``, or its exit code; nothing if none has."""
    states = (container.get("state", {}), container.get("lastState", {}))
    end: dict[str, Any] = next((state["terminated"] for state in states if state.get("terminated")), {})
    if not end:
        return ""
    return "OOMKilled" if end.get("reason") == "OOMKilled" else f"exit code {end.get('exitCode', 'unknown')}"


def _why_not_ready(pod: Manifest) -> str:
    status = pod.get("status", {})
    for entry in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = entry.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") not in ("PodInitializing", "ContainerCreating"):
            return f"{waiting.get('reason')}: {waiting.get('message', '')}".rstrip(": ")
    scheduled = next((e for e in status.get("conditions", []) if e["type"] == "PodScheduled"), None)
    if scheduled is not None and scheduled["status"] == "False":
        return str(scheduled.get("message", "not scheduled"))
    return "starting"
