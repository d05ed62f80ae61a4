"""Making a cluster's masters so: applies what :mod:`control_plane` renders, in the order in which it is needed.

Level-triggered: every call makes what is missing and changes what differs. What this process has applied before and
has not changed since is skipped; for a few seconds after it looked, what it saw still counts.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from haneul.dkos import control_plane, etcd_members, high_availability, isolation
from haneul.dkos.authentication import IssuerTrust
from haneul.dkos.control_plane import CLUSTER_LABEL, CREDENTIALS_ANNOTATION, ROLE_LABEL, Images, labels
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
from haneul.dkos.etcd_rolling import next_changes
from haneul.dkos.etcd_slots import (
    MOST_MEMBERS,
    Slot,
    SlotState,
    component_name,
    in_play,
    is_spread,
    member_name,
    serving,
)
from haneul.dkos.etcd_volumes import EtcdVolumes
from haneul.dkos.hibernation import Level
from haneul.dkos.image_hub import ImageHub
from haneul.dkos.keyring import Keyring, keyring_from, new_authorities
from haneul.dkos.model import Cluster, MasterStatus, NetworkPlugin
from haneul.dkos.naming import Naming
from haneul.dkos.releases import parse
from haneul.dkos.rotation import Record, Step
from haneul.dkos.states import MasterState
from haneul.dkos.upgrade import Part, Plan, Recorded, Stage, Verdict, Versions, next_versions
from haneul.kernel.clock import Clock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import (
    DEPLOYMENTS,
    PODS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    KubeApiError,
    KubeClient,
    Manifest,
    is_ready,
    is_rolled_out,
    resource_of,
)
from haneul.kernel.kube_manifests import account, rights_in_namespace, rule

_AUTHORITIES = "authorities"
#: The roles of which a majority, or what it takes to answer everybody, stays while hosts are emptied.
BUDGETED = ("etcd", "kube-apiserver")
#: For how long after a look nothing is read again, unless what is wanted changed.
_FRESH_SECONDS = 15.0
#: Characters of what a program said that people are shown.
_LONGEST_WORDS = 300
#: What klog writes before each message: severity, moment, thread, place; it differs each time.
_LOG_HEADER = re.compile(r"^[IWEF]\d{4} [\d:.]+ +\d+ [^\]]*\] ")
#: On the controller manager's Deployment: the version that nodes are made from, as they have no workload of their own.
NODES_VERSION = "dkos.haneul.dev/nodes-version"
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
    #: The places of etcd members that have a volume.
    slots: tuple[Slot, ...] = (Slot(0),)
    #: What the etcd members are made from, by their places; of a member that is alone nobody asks.
    templates: Mapping[int, str] = field(default_factory=dict)
    #: Whether one of several etcd members is changed, or waits for that.
    rolling: bool = False
    #: What nodes are to be made from, and how far the masters are on their way to what is asked for.
    nodes_version: str = ""
    upgrade: Verdict = field(default_factory=Verdict)


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
        naming: Naming | None = None,
        hub: ImageHub | None = None,
    ) -> None:
        self._client = client
        self._trust = trust
        self._hub = hub
        self._naming = naming
        self._images = images
        self._outside_address = outside_address
        self._clock = clock
        self.volumes = EtcdVolumes(client, data)
        self._applied: dict[tuple[str, str, str], int] = {}
        self._made: MadeMasters | None = None
        self._made_for: tuple[object, ...] = ()
        self._fresh_until = 0.0
        self._rendered_for: tuple[object, ...] = ()
        self._digests: dict[str, str] = {}
        self._templates: dict[int, str] = {}
        #: Whether an etcd member is not yet what it should be, so that the next call has to look again.
        self._rolling = False
        self._plan: Plan | None = None

    def forget(self) -> None:
        """Apply everything again at the next call, in case somebody else changed it."""
        self._applied.clear()
        self.volumes.forget()
        self._made, self._made_for, self._rendered_for = None, (), ()
        self._plan = None

    def look_again(self) -> None:
        """Read and render everything at the next call: an etcd member is not what it was."""
        self.volumes.forget()
        self._made, self._rendered_for = None, ()

    async def ensure(self, cluster: Cluster, level: Level = Level.ALL, *, rest: bool = True) -> MadeMasters:
        """Make the masters be as the spec says; does not wait until they run, or until they ended.

        What a lower ``level`` than all leaves out has no replicas. Without ``rest``, only etcd and the API server are
        made so, and the rest is left as it is, made or not: on a machine with few cores, what everything else waits for
        should not compete with what waits for it.
        """
        # All that rendering takes from the cluster.
        wanted = (cluster.uid, cluster.spec, control_plane.publishes_early(cluster), level, rest)
        now = self._clock.monotonic()
        settled = self._plan is not None and self._plan.verdict.stage is Stage.DONE
        if settled and self._made is not None and self._made_for == wanted and now < self._fresh_until:
            return self._made
        await self._apply(control_plane.namespaces(cluster))
        slots = await self.volumes.look(cluster)
        endpoints, keyring, _ = await asyncio.gather(
            self._endpoints(cluster, slots), self._keyring(cluster), self.volumes.keep(cluster)
        )
        slots = await self.volumes.look(cluster)
        digests, renewed = await self._credentials(cluster, endpoints, keyring)
        plan = self._plan = await self._versions(cluster, level)
        inputs = (*wanted, endpoints, digests, slots, plan.versions)
        if inputs != self._rendered_for or self._rolling:
            self._digests = await self._programs(cluster, endpoints, digests, level, slots, plan.versions, rest=rest)
            self._rendered_for = inputs
        made = MadeMasters(
            endpoints,
            keyring,
            self._digests,
            slots=slots,
            templates=self._templates,
            rolling=self._rolling,
            nodes_version=plan.versions.nodes,
            upgrade=plan.verdict,
        )
        self._made, self._made_for = None if self._rolling else made, wanted
        self._fresh_until = now + _FRESH_SECONDS
        return replace(made, renewed=renewed)

    async def _versions(self, cluster: Cluster, level: Level) -> Plan:
        """Return what each part is to be made from. What was settled needs no look until something else is asked for.

        While masters end, or come back only in part, all stays as it is.
        """
        known = self._plan
        if known is not None and known.verdict.stage is Stage.DONE:
            settled = Recorded(Part(known.versions.api, runs=True), Part(known.versions.controllers, runs=True))
            if known == next_versions(cluster.spec, replace(settled, nodes=known.versions.nodes)):
                return known
        selector = f"{CLUSTER_LABEL}={cluster.uid}"
        made = recorded(await self._client.list(DEPLOYMENTS, cluster.masters_namespace, labels=selector))
        if level < Level.ALL and made.api.version:
            return Plan(made.versions)
        return next_versions(cluster.spec, made)

    async def _programs(
        self,
        cluster: Cluster,
        endpoints: Endpoints,
        credentials: dict[str, str],
        level: Level,
        slots: Sequence[Slot],
        versions: Versions,
        *,
        rest: bool,
    ) -> dict[str, str]:
        """Apply what runs, and what bounds it; return what the pods are made from, by component."""
        configurations = control_plane.configurations(cluster, self._trust)
        role, binding = _signing_rights(cluster)
        several = in_play(cluster.spec.masters, slots) > 1
        policies = isolation.network_policies(cluster, self._trust, several=several, naming=self._naming, hub=self._hub)
        await self._apply([*configurations.values(), *policies, role])
        # A role is bound only once it is there.
        await self._apply([binding])
        digests = dict(credentials)
        for component, configuration in configurations.items():
            digests[component] += content_digest(configuration)
        images = self._images.of(versions.api)
        spread = is_spread(cluster.spec.masters, slots)
        etcd = await self._etcd(cluster, endpoints, digests, slots, replicas=int(level >= Level.ETCD))
        servers = cluster.spec.masters if spread else 1
        programs = [
            *etcd,
            *(_disruption_budgets(cluster) if spread else ()),
            control_plane.apiserver(cluster, endpoints, images, digests, replicas=servers * (level >= Level.API)),
        ]
        if rest:
            replicas = (high_availability.CONTROLLERS if spread else 1) * (level is Level.ALL)
            images = self._images.of(versions.controllers)
            manager = control_plane.controller_manager(cluster, images, digests, replicas=replicas)
            manager["metadata"]["annotations"] = {NODES_VERSION: versions.nodes}
            programs += [manager, control_plane.scheduler(cluster, images, digests, replicas=replicas)]
            if cluster.spec.network.plugin is NetworkPlugin.CILIUM:
                programs.append(control_plane.cilium_operator(cluster, endpoints, images, digests, replicas=replicas))
        await self._apply(programs)
        running = {component_name(slot.index) for slot in slots if slot.member}
        idle = {component_name(index) for index in range(MOST_MEMBERS)} - running
        return {component: digest for component, digest in digests.items() if component not in idle}

    async def _etcd(
        self, cluster: Cluster, endpoints: Endpoints, digests: dict[str, str], slots: Sequence[Slot], *, replicas: int
    ) -> list[Manifest]:
        """Return the etcd members to apply now; of several, not more than one that votes is changed at a time."""
        self._rolling = False
        if in_play(cluster.spec.masters, slots) == 1 and slots[0].state is SlotState.FOUNDER:
            return [control_plane.etcd(cluster, endpoints, self._images, digests, replicas=replicas)]
        found = await self._client.list(STATEFUL_SETS, cluster.masters_namespace, labels=f"{ROLE_LABEL}=etcd")
        by_name = {workload["metadata"]["name"]: workload for workload in found}
        live = {index: by_name[name] for index in range(MOST_MEMBERS) if (name := component_name(index)) in by_name}
        voting = [slot.index for slot in slots if slot.published]
        wanted = {
            slot.index: etcd_members.member(
                cluster, slot, endpoints, self._images, digests, others=voting, replicas=replicas
            )
            for slot in slots
            # Who leaves is not made anew.
            if slot.member and (slot.state is not SlotState.LEAVING or slot.index in live)
        }
        now, self._rolling = next_changes(wanted, live, {slot.index: slot for slot in slots})
        self._templates = {index: etcd_members.template_digest(manifest) for index, manifest in wanted.items()}
        return now

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
        found = await asyncio.gather(
            *(
                self._client.list(kind, cluster.masters_namespace, labels=selector)
                for kind in (STATEFUL_SETS, DEPLOYMENTS)
            )
        )
        return unfinished_rollouts([workload for kind in found for workload in kind], made.digests)

    async def observe(self, cluster: Cluster) -> tuple[MasterState, ...]:
        """Return each master component's state, from its pods."""
        pods = await self._client.list(PODS, cluster.masters_namespace, labels=f"{CLUSTER_LABEL}={cluster.uid}")
        roles = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
        if cluster.spec.network.plugin is NetworkPlugin.CILIUM:
            roles.append("cilium-operator")
        several = {"etcd": cluster.spec.masters, "kube-apiserver": cluster.spec.masters}
        others = high_availability.CONTROLLERS if cluster.spec.highly_available else 1
        return tuple(
            _master_state(
                role,
                [pod for pod in pods if pod["metadata"]["labels"].get(ROLE_LABEL) == role],
                wanted=several.get(role, others),
            )
            for role in roles
        )

    async def api_port(self, cluster: Cluster) -> int | None:
        """Return the port at which the API server is reached from outside; None if it has no service yet."""
        service = await self._client.get(SERVICES, "kube-apiserver", cluster.masters_namespace)
        return int(service["spec"]["ports"][0]["nodePort"]) if service else None

    async def etcd_address(self, cluster: Cluster) -> str:
        """Return the address of the first etcd member, which outlives its pods. Raises UnavailableError before that."""
        service = await self._client.get(SERVICES, member_name(0), cluster.masters_namespace)
        if service is None:
            raise UnavailableError(f"etcd of {_full_name(cluster)} has no address yet")
        return str(service["spec"]["clusterIP"])

    async def _endpoints(self, cluster: Cluster, slots: Sequence[Slot]) -> Endpoints:
        *etcd, api = await asyncio.gather(
            *(self._client.apply(SERVICES, manifest) for manifest in control_plane.services(cluster, slots))
        )
        places = tuple(str(service["spec"]["clusterIP"]) for service in etcd)
        return Endpoints(
            etcd_addresses=tuple(places[index] for index in serving(cluster.spec.masters, slots)),
            service_address=api["spec"]["clusterIP"],
            kubernetes_service_address=control_plane.kubernetes_service_address(str(cluster.spec.network.services)),
            outside_address=self._outside_address,
            outside_port=api["spec"]["ports"][0]["nodePort"],
            etcd_places=places if len(places) > 1 else (),
        )

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


def _disruption_budgets(cluster: Cluster) -> list[Manifest]:
    """While a host is emptied, two etcd members and two API servers stay."""
    return [
        high_availability.disruption_budget(role, cluster.masters_namespace, labels(cluster, role), labels(cluster))
        for role in BUDGETED
    ]


def recorded(deployments: Sequence[Manifest]) -> Recorded:
    """Return what the masters' Deployments were made from last, and whether just that runs. Pure."""
    by_name = {deployment["metadata"]["name"]: deployment for deployment in deployments}
    controllers = [by_name[name] for name in ("kube-controller-manager", "kube-scheduler") if name in by_name]
    versions = sorted(map(_version_of, controllers), key=lambda version: (parse(version) or (0, 0, 0), version))
    annotations = by_name.get("kube-controller-manager", {}).get("metadata", {}).get("annotations") or {}
    api = by_name.get("kube-apiserver")
    return Recorded(
        Part(_version_of(api), _runs(api)) if api is not None else Part(),
        # The older one is what has still to be brought along.
        Part(versions[0], all(map(_runs, controllers)) and len(set(versions)) == 1) if versions else Part(),
        annotations.get(NODES_VERSION, ""),
    )


def _version_of(workload: Manifest) -> str:
    image: str = workload["spec"]["template"]["spec"]["containers"][0]["image"]
    return image.rpartition(":")[2].removeprefix("v")


def _runs(workload: Manifest) -> bool:
    """Say whether pods of its last template run and are ready, as many as wanted, and no others.

    An API server that ends may still serve for a while, and a newer controller shall not find it.
    """
    ending = workload.get("status", {}).get("terminatingReplicas", 0)
    return bool(workload["spec"]["replicas"] and is_rolled_out(workload) and not ending)


def unfinished_rollouts(workloads: Sequence[Manifest], digests: Mapping[str, str]) -> list[str]:
    """Return the components among ``digests`` of which pods made from another digest run, or none yet. Pure."""
    by_name = {workload["metadata"]["name"]: workload for workload in workloads}
    return [name for name, digest in sorted(digests.items()) if not _rolled_out(by_name.get(name), digest)]


def _rolled_out(workload: Manifest | None, digest: str) -> bool:
    """Say whether exactly the wanted pods run and are ready, and the controller of their kind knows it."""
    if workload is None:
        return False
    annotations = workload["spec"]["template"]["metadata"].get("annotations", {})
    return annotations.get(CREDENTIALS_ANNOTATION) == digest and is_rolled_out(workload)


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


def _master_state(role: str, pods: list[Manifest], *, wanted: int = 1) -> MasterState:
    if not pods:
        return MasterState(role, ready=False, message="its pod is being made")
    containers = [entry for pod in pods for entry in pod.get("status", {}).get("containerStatuses", [])]
    restarts = sum(entry.get("restartCount", 0) for entry in containers)
    ended = next((words for entry in containers if (words := _how_it_ended(entry))), "")
    # One that ends serves for a while yet, and is not counted on.
    ready = [pod for pod in pods if is_ready(pod) and (wanted == 1 or "deletionTimestamp" not in pod["metadata"])]
    address = str(ready[0].get("status", {}).get("podIP", "")) if ready else ""
    waiting = [pod for pod in pods if pod not in ready]
    why = "" if len(ready) >= wanted else (_why_not_ready(waiting[-1]) if waiting else "its pod is being made")
    message = f"{len(ready)} of {wanted} ready: {why}" if why and wanted > 1 else why
    coming = [pod for pod in waiting if "deletionTimestamp" not in pod["metadata"]] if not why else []
    return MasterState(
        role,
        ready=len(ready) >= wanted,
        message=message,
        restarts=restarts,
        ended=ended,
        address=address,
        pods=tuple(_pod_status(role, pod) for pod in pods),
        working=len(ready),
        coming=_why_not_ready(coming[0]) if coming else "",
    )


def _pod_status(role: str, pod: Manifest) -> MasterStatus:
    ready = is_ready(pod)
    message = "it ends" if "deletionTimestamp" in pod["metadata"] else ("" if ready else _why_not_ready(pod))
    host = str(pod.get("spec", {}).get("nodeName", ""))
    return MasterStatus(name=pod["metadata"]["name"], role=role, host=host, ready=ready, message=message)


def _how_it_ended(container: Manifest) -> str:
    """Return how a container's last process ended: ``OOMKilled``, or its exit code; nothing if none has."""
    states = (container.get("state", {}), container.get("lastState", {}))
    end: dict[str, Any] = next((state["terminated"] for state in states if state.get("terminated")), {})
    if not end:
        return ""
    return "OOMKilled" if end.get("reason") == "OOMKilled" else f"exit code {end.get('exitCode', 'unknown')}"


def _last_words(container: Manifest) -> str:
    """Return the last line that a container's program wrote before it ended by an error; nothing if none did."""
    said = str((container.get("lastState", {}).get("terminated") or {}).get("message", ""))
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return _LOG_HEADER.sub("", lines[-1])[:_LONGEST_WORDS] if lines else ""


def _why_not_ready(pod: Manifest) -> str:
    status = pod.get("status", {})
    for entry in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = entry.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") not in ("PodInitializing", "ContainerCreating"):
            return f"{waiting.get('reason')}: {_last_words(entry) or waiting.get('message', '')}".rstrip(": ")
    scheduled = next((e for e in status.get("conditions", []) if e["type"] == "PodScheduled"), None)
    if scheduled is not None and scheduled["status"] == "False":
        return str(scheduled.get("message", "not scheduled"))
    return "starting"
