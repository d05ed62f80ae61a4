"""Changing a cluster's etcd members: sees how they stand, asks :mod:`etcd_plan` what is next, and does it.

Called at every look at a cluster that is awake; each call does one small step and waits for nothing. A step is done
only by who can see that it is the next one: the member list comes from a majority of etcd itself, what each place holds
from its volume. So any process can go on after any other was killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from haneul.dkos.control_plane import CLUSTER_LABEL, ROLE_LABEL
from haneul.dkos.credentials import etcd_access
from haneul.dkos.etcd_members import TEMPLATE_ANNOTATION
from haneul.dkos.etcd_plan import DONE, Action, Kind, Membership, Place, Seen, is_settled, plan
from haneul.dkos.etcd_port import ConnectEtcd, EtcdMembers, NotInSyncError
from haneul.dkos.etcd_rolling import is_made
from haneul.dkos.etcd_slots import (
    CLIENT_PORT,
    JOINING,
    MOST_MEMBERS,
    PEER_PORT,
    Slot,
    SlotState,
    component_name,
    member_name,
    pod_name,
)
from haneul.dkos.events import Tell, member_joined, member_left, member_lost
from haneul.dkos.masters import BUDGETED, MadeMasters, Masters
from haneul.dkos.model import Cluster
from haneul.dkos.states import MasterState
from haneul.dkos.teardown import wipe_job
from haneul.kernel.clock import Clock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import (
    DEPLOYMENTS,
    JOBS,
    NODES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    KubeClient,
    Manifest,
    is_ready,
    is_true,
)

_log = structlog.get_logger(__name__)

#: After how long a member that does not work, on a host that does, is given up with its data.
PATIENCE: Final = timedelta(minutes=3)
_ALWAYS: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: The member list is needed soon or not at all: other work of the look waits for it.
_LIST_SECONDS: Final = 10.0
_WRITTEN: Final[Mapping[Kind, SlotState]] = {
    Kind.ADOPT: SlotState.LEARNING,
    Kind.SETTLE: SlotState.VOTING,
    Kind.PUBLISH: SlotState.VOTING,
    Kind.LEAVE: SlotState.LEAVING,
}


class MemberChanger:
    """Changes the etcd members of one cluster, one at a time."""

    def __init__(
        self, client: KubeClient, masters: Masters, *, connect: ConnectEtcd, toolbox: str, data: str, clock: Clock
    ) -> None:
        """``toolbox`` is the image of the jobs that delete data, ``data`` the hosts' folder of all clusters' data."""
        self._client = client
        self._masters = masters
        self._connect = connect
        self._toolbox = toolbox
        self._data = data
        self._clock = clock

    async def look(self, cluster: Cluster, made: MadeMasters, masters: Sequence[MasterState], tell: Tell) -> str:
        """Bring the members one step closer to what is wanted; return in words what is under way, or nothing."""
        wanted = cluster.spec.masters
        etcd = next((master for master in masters if master.role == "etcd"), None)
        works = etcd is not None and etcd.ready
        if is_settled(wanted, made.slots) and (wanted == 1 or works):
            # A member that is alone is not replaced: nobody has its data. It costs no call, nor do three that work.
            return "the etcd members are changed, one after the other" if made.rolling and wanted > 1 else ""
        seen = await self._see(cluster, made)
        if plan(seen) == DONE:
            return ""
        access = etcd_access(made.keyring, gateways(made), self._clock.now())
        async with self._connect(access) as etcd_members:
            seen = replace(seen, membership=await _membership(etcd_members))
            decision = plan(seen)
            if decision.action is None:
                return decision.words
            said = await self._do(cluster, made, seen, decision.action, etcd_members, tell)
        return said or decision.words

    async def _see(self, cluster: Cluster, made: MadeMasters) -> Seen:
        ours = f"{CLUSTER_LABEL}={cluster.uid}"
        namespace = cluster.masters_namespace
        pods, sets, servers, nodes = await asyncio.gather(
            self._client.list(PODS, namespace, labels=ours),
            self._client.list(STATEFUL_SETS, namespace, labels=ours),
            self._client.get(DEPLOYMENTS, "kube-apiserver", namespace),
            self._client.list(NODES),
        )
        by_name = {pod["metadata"]["name"]: pod for pod in pods}
        by_set = {workload["metadata"]["name"]: workload for workload in sets}
        hosts = {node["metadata"]["name"]: (_since(node) or _ALWAYS) if is_ready(node) else None for node in nodes}
        slots = {slot.index: slot for slot in made.slots}
        now = self._clock.now()
        places = []
        for index, address in enumerate(made.endpoints.places):
            pod, workload = by_name.get(pod_name(index)), by_set.get(component_name(index))
            places.append(
                Place(
                    index,
                    address,
                    slots.get(index),
                    healthy=pod is not None and is_ready(pod) and not _ends(pod),
                    runs=_runs(workload, pod, made.templates.get(index, "")),
                    occupied=pod is not None or workload is not None,
                    lost=why_lost(slots.get(index), pod, hosts, now),
                )
            )
        servers_pods = [pod for pod in pods if pod["metadata"]["labels"].get(ROLE_LABEL) == "kube-apiserver"]
        current = servers_are_current(servers, servers_pods, made.endpoints.etcd_addresses)
        return Seen(cluster.spec.masters, tuple(places), None, api_current=current)

    async def _do(
        self, cluster: Cluster, made: MadeMasters, seen: Seen, action: Action, etcd: EtcdMembers, tell: Tell
    ) -> str:
        """Do one step; return what there is to say of it while it goes on."""
        index, member = action.index, action.member
        _log.info("etcd members are changed", cluster=cluster.uid, step=action.kind.value, place=index, member=member)
        volumes = self._masters.volumes
        match action.kind:
            case Kind.PREPARE:
                await volumes.prepare(cluster, index)
            case Kind.ADD:
                added = await etcd.add_learner(f"https://{made.endpoints.places[index]}:{PEER_PORT}")
                await volumes.write(cluster, index, SlotState.LEARNING, added)
            case Kind.PROMOTE:
                try:
                    await etcd.promote(member)
                except NotInSyncError:
                    return ""
            case Kind.TRANSFER:
                await etcd.transfer(_leader_url(made, seen), member)
            case Kind.REMOVE:
                await etcd.remove(member)
            case Kind.STOP:
                await self._client.delete(STATEFUL_SETS, component_name(index), cluster.masters_namespace)
                return f"waiting for {member_name(index)} to end"
            case Kind.WIPE:
                if not await self._wipe(cluster, seen.places[index], made.slots):
                    return f"waiting for the data of {member_name(index)} to be deleted"
                tell(cluster, member_left(index))
            case kind:
                settles = kind is Kind.SETTLE and _joins(seen, index)
                state = SlotState.SETTLED if settles else _WRITTEN[kind]
                await volumes.write(cluster, index, state, member)
                if kind is Kind.PUBLISH and _joins(seen, index):
                    tell(cluster, member_joined(index, sum(1 for slot in made.slots if slot.published) + 1))
                if kind is Kind.LEAVE and seen.places[index].lost:
                    tell(cluster, member_lost(index, seen.places[index].lost))
        self._masters.look_again()
        return ""

    async def _wipe(self, cluster: Cluster, place: Place, slots: Sequence[Slot]) -> bool:
        """Delete a place's data and all that was made for it; say whether that is done."""
        index, slot = place.index, place.slot
        if slot is None:
            return True
        job = wipe_job(cluster, slot.host, toolbox=self._toolbox, data=self._data, place=index)
        name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
        if await self._client.get(NODES, slot.host) is not None:
            found = await self._client.apply(JOBS, job)
            if not found.get("status", {}).get("succeeded"):
                if is_true(found, "Failed"):
                    await self._client.delete(JOBS, name, namespace)
                return False
        await self._client.delete(JOBS, name, namespace)
        if cluster.spec.masters == 1 and not any(slot.index not in (0, index) for slot in slots):
            await self._clear(cluster)
        await self._masters.volumes.release(cluster, index)
        self._masters.forget()
        return True

    async def _clear(self, cluster: Cluster) -> None:
        """Delete what several masters had beside their data; before the last volume, by which they are known."""
        namespace = cluster.masters_namespace
        await asyncio.gather(
            *(self._client.delete(POD_DISRUPTION_BUDGETS, role, namespace) for role in BUDGETED),
            *(self._client.delete(SERVICES, member_name(index), namespace) for index in range(1, MOST_MEMBERS)),
            *(self._client.delete(SECRETS, component_name(index), namespace) for index in range(1, MOST_MEMBERS)),
        )


def gateways(made: MadeMasters) -> tuple[str, ...]:
    """Return where members that vote answer in JSON, those first that joined: they begin no cluster anew."""
    ports = {slot.index: slot.gateway_port for slot in made.slots if slot.published}
    ordered = sorted(ports, key=lambda index: (ports[index] == CLIENT_PORT, index))
    return tuple(f"https://{made.endpoints.places[index]}:{ports[index]}" for index in ordered)


def _joins(seen: Seen, index: int) -> bool:
    """Say whether a place's member is one that joins; a founder does not, nor one that was about to leave."""
    slot = seen.places[index].slot
    return slot is not None and slot.state in JOINING


async def _membership(etcd: EtcdMembers) -> Membership | None:
    try:
        async with asyncio.timeout(_LIST_SECONDS):
            return await etcd.membership()
    except (UnavailableError, TimeoutError) as error:
        _log.info("etcd does not tell of its members", reason=str(error))
        return None


def _leader_url(made: MadeMasters, seen: Seen) -> str:
    """Return where the leader answers; of those that are asked, only it can let another one lead."""
    membership = seen.membership
    for place in seen.places:
        for member in membership.members if membership else ():
            if place.slot and place.address == member.address and membership and member.id == membership.leader:
                return f"https://{place.address}:{place.slot.gateway_port}"
    raise UnavailableError("nobody leads etcd at the moment", hint="it is asked again")


def why_lost(slot: Slot | None, pod: Manifest | None, hosts: Mapping[str, datetime | None], now: datetime) -> str:
    """Return why a place's data is given up, in words; nothing as long as it is not. Pure.

    ``hosts`` says of each management host since when it is ready, None if it is not. A host that is only down may come
    back with the data; one that is gone does not. From when its host is ready, a member gets its time, for whatever it
    does not work: its pod was not ready all the while that the host was down.
    """
    if slot is None:
        return ""
    if slot.host not in hosts:
        return f"its host {slot.host} is gone"
    host_since = hosts[slot.host]
    if pod is None or _ends(pod) or host_since is None:
        return ""
    votes = slot.state in (SlotState.FOUNDER, SlotState.VOTING)
    if is_ready(pod) if votes else _has_started(pod):
        return ""
    since = _since(pod)
    is_over = since is not None and now - max(since, host_since) > PATIENCE
    return "it has not worked for minutes, though its host does" if is_over else ""


def servers_are_current(deployment: Manifest | None, pods: Sequence[Manifest], etcd: Sequence[str]) -> bool:
    """Say whether exactly the wanted API servers run, and use exactly these etcd members. Pure."""
    if deployment is None:
        return False
    status, wanted = deployment.get("status", {}), deployment["spec"]["replicas"]
    told = f"--etcd-servers={','.join(f'https://{address}:{CLIENT_PORT}' for address in etcd)}"
    return (
        told in deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        and status.get("observedGeneration") == deployment["metadata"]["generation"]
        and status.get("updatedReplicas", 0) == wanted
        and status.get("readyReplicas", 0) == wanted
        # One that ends is not counted there, and still ends what it works on.
        and len(pods) == wanted
    )


def _runs(workload: Manifest | None, pod: Manifest | None, template: str) -> bool:
    if workload is None or pod is None or _ends(pod) or not is_made(workload):
        return False
    made_from = (workload["metadata"].get("annotations") or {}).get(TEMPLATE_ANNOTATION)
    return made_from == template and _has_started(pod)


def _has_started(pod: Manifest) -> bool:
    states = pod.get("status", {}).get("containerStatuses", [])
    return bool(states) and all(entry.get("started") for entry in states)


def _ends(pod: Manifest) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _since(pod: Manifest) -> datetime | None:
    """Return since when a pod or a node is as ready as it is."""
    for entry in pod.get("status", {}).get("conditions", []):
        if entry["type"] == "Ready" and (text := entry.get("lastTransitionTime")):
            return datetime.fromisoformat(text)
    return None
