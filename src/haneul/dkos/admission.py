"""What a cluster may ask for: every refusal happens here, before anything is made. Pure.

Ranges that a spec leaves out are given from the platform's pools, lowest free first: /18 for pods from 10.0.0.0/9 (64
nodes of 254 pods), /20 for services from 10.128.0.0/10.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from haneul.dkos.confinement import POLICY_FILES_GATE
from haneul.dkos.control_plane import NODE_CIDR_BITS
from haneul.dkos.external_resources import check_external_resources
from haneul.dkos.hibernation import SLEEPING_PROVIDERS
from haneul.dkos.machines import LONGEST_MACHINE_NAME, Machine
from haneul.dkos.model import (
    LONGEST_CLUSTER_NAME,
    MOST_NODES,
    Cluster,
    ClusterSpec,
    ConditionType,
    LoadBalancing,
    NetworkPlugin,
    NodeProviderName,
    Tunnel,
)
from haneul.dkos.states import MASTERS_STARTING, NO_ETCD_MAJORITY
from haneul.dkos.upgrading import check_version
from haneul.kernel.errors import ConflictError, InvalidInputError
from haneul.kernel.names import parse_label

_Range = ipaddress.IPv4Network

_POD_POOL: Final = _Range("10.0.0.0/9")
_SERVICE_POOL: Final = _Range("10.128.0.0/10")
_POD_BITS, _SERVICE_BITS = 18, 20
#: Addresses for private networks, RFC 1918 section 3.
_PRIVATE: Final = (_Range("10.0.0.0/8"), _Range("172.16.0.0/12"), _Range("192.168.0.0/16"))
_GATE: Final = re.compile(r"[A-Z][A-Za-z0-9]{1,80}")


@dataclass(frozen=True)
class TakenRange:
    """A range that is in use, and by whom, in words. ``inside``: no machine that a project registers is in it."""

    network: ipaddress.IPv4Network
    owner: str
    inside: bool = False
    #: Whether it is a cluster's range of services.
    services: bool = False


def admit(
    name: str, spec: ClusterSpec, *, project: str, others: Sequence[Cluster], reserved: Iterable[TakenRange]
) -> ClusterSpec:
    """Return the spec with its ranges given, or raise InvalidInputError or ConflictError.

    ``others`` are all clusters of the platform, ``reserved`` the ranges that no cluster may touch.
    """
    parse_label(name, what="cluster name", longest=LONGEST_CLUSTER_NAME)
    check_shape(spec)
    check_version(spec.version)
    if spec.node_version not in ("", spec.version):
        raise InvalidInputError(
            "the nodes of a new cluster have the version of its masters", hint="leave nodeVersion out"
        )
    if spec.hibernation.asleep:
        raise InvalidInputError(
            "a cluster cannot begin asleep",
            hint="create it, then 'haneul cluster hibernate'; a schedule may stand here",
        )
    for other in others:
        if (other.project, other.name) == (project, name):
            raise ConflictError(f"{project} has a cluster named {name} already", hint="choose another name")
        if f"{other.project}-{other.name}" == f"{project}-{name}":
            raise ConflictError(
                f"cluster {name} of {project} would share its namespace with {other.name} of {other.project}",
                hint="choose another name",
            )
    taken = [*reserved, *_taken_by(others)]
    pods = _given(spec.network.pods, "pods", taken, _POD_POOL, _POD_BITS)
    taken.append(TakenRange(pods, "this cluster's pods"))
    if spec.restore.source:
        # Objects of a restored cluster hold addresses of its services, so it has the range that it had. Only nodes of
        # one cluster ever see these addresses; they lead nowhere else.
        own = str(spec.network.services)
        taken = [entry for entry in taken if not (entry.services and str(entry.network) == own)]
    services = _given(spec.network.services, "services", taken, _SERVICE_POOL, _SERVICE_BITS)
    network = spec.network.model_copy(update={"pods": str(pods), "services": str(services)})
    return spec.model_copy(update={"network": network})


def admit_machines(
    spec: ClusterSpec, *, project: str, name: str, others: Iterable[Cluster], machines: Iterable[Machine]
) -> None:
    """Raise if a machine that the spec names is not registered in the project, or is another cluster's."""
    registered = {machine.name: machine for machine in machines if machine.project == project}
    owners = {
        machine: other.name
        for other in others
        if other.project == project and other.name != name
        for machine in other.spec.machines
    }
    for wanted in spec.machines:
        if wanted not in registered:
            raise InvalidInputError(
                f"{project} has no machine named {wanted}", hint=f"'haneul machine add {wanted} -p {project}'"
            )
        claim = registered[wanted].status.claim
        owner = owners.get(wanted) or (claim.cluster.rpartition("/")[2] if claim else name)
        if owner != name:
            raise ConflictError(
                f"the machine {wanted} is a node of cluster {owner}", hint="take it out there first, or name another"
            )


def admit_change(before: ClusterSpec, after: ClusterSpec) -> None:
    """Raise InvalidInputError if a living cluster cannot become ``after``."""
    check_shape(after)
    if before.node_pools and after.node_pools and before.outside != after.outside:
        raise InvalidInputError(
            "a cluster cannot change between sandbox nodes and machines", hint="create another cluster and move there"
        )
    if before.outside and not after.node_pools:
        # Without pools it could get sandbox nodes next, and pods that were allowed on machines only may be waiting.
        raise InvalidInputError(
            "a cluster on machines keeps a pool of them", hint="leave one pool with 'provider: ssh' and no machines"
        )
    if after.network != before.network:
        raise InvalidInputError(
            "the network of a cluster cannot change once it is made", hint="create another cluster and move there"
        )
    if after.restore != before.restore:
        raise InvalidInputError(
            "a restore is not asked for by a change of the spec",
            hint="an owner of the project asks for it: 'haneul cluster restore NAME'",
        )
    if after.authorities != before.authorities:
        raise InvalidInputError(
            "authorities are not replaced by a change of the spec",
            hint="an owner of the project asks for it: 'haneul cluster rotate-authorities NAME'",
        )


def admit_masters(cluster: Cluster, after: ClusterSpec) -> None:
    """Raise ConflictError if a cluster's masters cannot become fewer now, as it was seen last.

    What all etcd members agreed to is handed over by a majority of them, so there has to be one. A cluster that sleeps
    has its data, and changes when it wakes; one that is in the middle of becoming more goes back.
    """
    if after.masters >= cluster.spec.masters:
        return
    condition = next((c for c in cluster.status.conditions if c.type is ConditionType.CONTROL_PLANE_READY), None)
    if condition is None or condition.status == "True":
        return
    working = sum(master.ready for master in cluster.status.masters if master.role == "etcd")
    stands = condition.reason == MASTERS_STARTING and "ready" in cluster.status.milestones
    if condition.reason == NO_ETCD_MAJORITY or (stands and working <= cluster.spec.masters // 2):
        raise ConflictError(
            f"{cluster.name} has no majority of its etcd members: {working} of {cluster.spec.masters} work, and what "
            "they agreed to could be lost",
            hint=f"'haneul cluster get {cluster.name}' shows what they wait for; ask again when two work",
        )


def check_shape(spec: ClusterSpec) -> None:
    """Raise InvalidInputError for what is wrong with a spec by itself."""
    names = [pool.name for pool in spec.node_pools]
    if len(set(names)) != len(names):
        raise InvalidInputError("two pools have the same name", hint="give each pool a name of its own")
    if spec.node_count > MOST_NODES:
        raise InvalidInputError(
            f"{spec.node_count} nodes are more than the {MOST_NODES} of one cluster", hint="ask for fewer nodes"
        )
    _check_providers(spec)
    _check_load_balancing(spec)
    if spec.network.pods is not None:
        room = 2 ** max(0, NODE_CIDR_BITS - _Range(spec.network.pods).prefixlen)
        if spec.node_count > room:
            raise InvalidInputError(
                f"the range {spec.network.pods} for pods has room for {room} nodes, not for {spec.node_count}",
                hint=f"ask for fewer nodes; each takes a /{NODE_CIDR_BITS} of the range, which cannot grow later",
            )
    _check_sleep(spec)
    for pool in spec.node_pools:
        check_external_resources(pool)
    settings = spec.settings
    if settings.node_monitor_grace_seconds < 4 * settings.node_status_update_seconds:
        raise InvalidInputError(
            f"a node that reports every {settings.node_status_update_seconds} s cannot be called silent after "
            f"{settings.node_monitor_grace_seconds} s",
            hint="let nodeMonitorGraceSeconds be four times nodeStatusUpdateSeconds or more",
        )
    if POLICY_FILES_GATE in spec.settings.feature_gates:
        raise InvalidInputError(
            f"the feature gate {POLICY_FILES_GATE} is the platform's: it keeps pods inside their nodes",
            hint="leave it out",
        )
    for gate in spec.settings.feature_gates:
        if not _GATE.fullmatch(gate):
            raise InvalidInputError(
                f"{gate!r} is no name of a feature gate", hint="names look like 'InPlacePodVerticalScaling'"
            )


def _check_providers(spec: ClusterSpec) -> None:
    """Raise InvalidInputError for pools whose machines make no sense, or that could not reach each other."""
    if len({pool.provider for pool in spec.node_pools}) > 1:
        raise InvalidInputError(
            "one cluster cannot mix sandbox nodes and machines: they do not reach each other's addresses",
            hint="give all pools the same provider, and make two clusters if you need both",
        )
    for pool in spec.node_pools:
        if pool.provider is NodeProviderName.SANDBOX and pool.machines:
            raise InvalidInputError(
                f"pool {pool.name} names machines, but its provider is sandbox", hint="say 'provider: ssh'"
            )
        if pool.provider is NodeProviderName.SSH and pool.count != len(pool.machines):
            raise InvalidInputError(
                f"pool {pool.name} asks for {pool.count} nodes and names {len(pool.machines)} machines",
                hint="leave count out; 'haneul cluster scale NAME --machine …' names others",
            )
    if spec.outside and spec.network.plugin is not NetworkPlugin.NATIVE:
        raise InvalidInputError(
            "machines have the network 'native' only, so far", hint="leave the network's plugin out"
        )
    for name in spec.machines:
        parse_label(name, what="machine name", longest=LONGEST_MACHINE_NAME)
    if len(set(spec.machines)) != len(spec.machines):
        raise InvalidInputError("a machine is named twice", hint="a machine is one node of one pool")
    names = [name for pool in spec.node_pools for name in pool.node_names]
    if len(set(names)) != len(names):
        raise InvalidInputError("two nodes would have the same name", hint="give the pools other names")


def _check_load_balancing(spec: ClusterSpec) -> None:
    """Refuse direct server return where answers would not arrive, or nobody would do it."""
    if spec.network.load_balancing is not LoadBalancing.DSR:
        return
    if spec.network.plugin is not NetworkPlugin.CILIUM:
        raise InvalidInputError(
            "direct server return is Cilium's: kube-proxy, which the network 'native' has, cannot do it",
            hint="leave loadBalancing out, or say 'plugin: cilium'",
        )
    if spec.network.tunnel is Tunnel.ALWAYS:
        raise InvalidInputError(
            "direct server return and a tunnel for every packet exclude each other: what is wrapped has no room for "
            "the client's address",
            hint="leave tunnel or loadBalancing out",
        )
    if not spec.outside:
        # The answer has the address of the node that was asked, and the management cluster drops what claims another
        # pod's address.
        raise InvalidInputError(
            "sandbox nodes cannot answer clients in place of the node that was asked: they are pods, and nobody lets "
            "a pod speak with another one's address",
            hint="leave loadBalancing out: 'snat' works everywhere",
        )


def _check_sleep(spec: ClusterSpec) -> None:
    """Refuse sleep to a cluster with machines that would go on running."""
    if not (spec.hibernation.asleep or spec.hibernation.schedule):
        return
    for pool in spec.node_pools:
        if pool.provider not in SLEEPING_PROVIDERS:
            raise InvalidInputError(
                f"a cluster cannot sleep whose pool {pool.name} has nodes of the provider {pool.provider}: "
                "Haneul does not start and end their machines",
                hint="take the pool, or the schedule and the wish to sleep, out",
            )


def _taken_by(clusters: Iterable[Cluster]) -> list[TakenRange]:
    taken = []
    for cluster in clusters:
        network = cluster.spec.network
        for use, text in (("pods", network.pods), ("services", network.services)):
            if text is not None:
                owner = f"the {use} of cluster {cluster.name} of {cluster.project}"
                taken.append(TakenRange(_Range(text), owner, services=use == "services"))
    return taken


def _given(asked: str | None, use: str, taken: Sequence[TakenRange], pool: _Range, bits: int) -> _Range:
    if asked is None:
        return _lowest_free(use, taken, pool, bits)
    network = _Range(asked)
    least, most = (12, 22) if use == "pods" else (12, 24)
    if not any(network.subnet_of(private) for private in _PRIVATE) or not least <= network.prefixlen <= most:
        raise InvalidInputError(
            f"{network} does not fit for {use}",
            hint=f"name a private range between /{least} and /{most}, or leave it out and get a free one",
        )
    for other in taken:
        if network.overlaps(other.network):
            raise InvalidInputError(
                f"the range {network} for {use} overlaps {other.network}, {other.owner}",
                hint="leave the range out and get a free one",
            )
    return network


def _lowest_free(use: str, taken: Sequence[TakenRange], pool: _Range, bits: int) -> _Range:
    inside = sorted((other.network for other in taken if other.network.overlaps(pool)), key=lambda n: n.network_address)
    for candidate in pool.subnets(new_prefix=bits):
        if not any(candidate.overlaps(network) for network in inside):
            return candidate
    raise ConflictError(
        f"no free range is left for {use} in {pool}", hint="delete a cluster, or name a range of your own"
    )
