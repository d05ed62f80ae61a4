"""The values of DKOS: what a cluster is asked to be (spec) and what is seen of it (status).

A cluster is a custom resource ``clusters.dkos.haneul.dev`` in the management cluster, in the namespace of its
project (``project-<project>``). These models parse it once at the edge; everything behind them trusts its values.
The custom resource's schema is generated from them (:mod:`haneul.dkos.schema`).
"""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from haneul.dkos.releases import VERSIONS
from haneul.kernel.errors import InvalidInputError
from haneul.kernel.kube import Resource
from haneul.kernel.names import LABEL_PATTERN, parse_label

CLUSTERS: Final = Resource("dkos.haneul.dev", "v1alpha1", "clusters", "Cluster")

#: Names become parts of DNS labels and namespaces together with the project's name.
LONGEST_CLUSTER_NAME: Final = 30
LONGEST_POOL_NAME: Final = 20
LONGEST_RESOURCE_NAME: Final = 40
MOST_NODES: Final = 64
MOST_EXTERNAL_RESOURCES: Final = 16
MOST_SLEEP_RULES: Final = 8
#: When nothing was ever asked for by hand.
NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
PORT_PATTERN: Final = "^[0-9]{1,5}(-[0-9]{1,5})?/(tcp|udp)$"
_PORT: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?/(tcp|udp)")


class _Model(BaseModel):
    """Camel case outside, as Kubernetes writes it; unknown fields are errors; values never change."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


def _canonical_network(text: str) -> str:
    return str(ipaddress.IPv4Network(text))


#: An IPv4 network in CIDR notation without host bits, such as ``10.0.0.0/18``.
Cidr = Annotated[str, AfterValidator(_canonical_network)]


def _pool_name(text: str) -> str:
    try:
        return parse_label(text, what="pool name", longest=LONGEST_POOL_NAME)
    except InvalidInputError as error:
        raise ValueError(f"{error.detail}: {error.hint}") from error


#: A DNS label; its nodes, their pods and StatefulSets are named after it. The schema says the same to Kubernetes.
PoolName = Annotated[
    str,
    AfterValidator(_pool_name),
    Field(json_schema_extra={"pattern": LABEL_PATTERN, "maxLength": LONGEST_POOL_NAME}),
]


class NetworkPlugin(StrEnum):
    """How pods are connected. ``native``: ptp and kube-proxy with nftables. ``cilium``: BPF, no kube-proxy."""

    NATIVE = "native"
    CILIUM = "cilium"


class Tunnel(StrEnum):
    """When packets between nodes are wrapped in VXLAN. ``needed``: where their way carries no addresses of pods."""

    NEEDED = "needed"
    ALWAYS = "always"


class LoadBalancing(StrEnum):
    """How Cilium sends on what comes to a service from outside.

    ``snat``: with the node's address, by way of which the answer comes back. ``dsr``: with the client's address, and
    the pod's node answers the client itself (direct server return).
    """

    SNAT = "snat"
    DSR = "dsr"


class NodeProviderName(StrEnum):
    """Where a pool's nodes come from."""

    SANDBOX = "sandbox"
    SSH = "ssh"


def _resource_name(text: str) -> str:
    try:
        return parse_label(text, what="name of an external resource", longest=LONGEST_RESOURCE_NAME)
    except InvalidInputError as error:
        raise ValueError(f"{error.detail}: {error.hint}") from error


def _port(text: str) -> str:
    match = _PORT.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if match is None or not 1 <= first <= last <= 65535:
        raise ValueError(f"{text!r} is no port: write '5432/tcp', '53/udp' or '8000-8010/tcp'")
    return f"{first}/{match[3]}" if first == last else f"{first}-{last}/{match[3]}"


#: A port or a range of ports with its protocol, such as ``5432/tcp`` or ``8000-8010/tcp``.
PortText = Annotated[str, AfterValidator(_port), Field(json_schema_extra={"pattern": PORT_PATTERN})]


class ExternalResource(_Model):
    """Something outside of the platform that lets in only addresses which a person has registered."""

    name: Annotated[str, AfterValidator(_resource_name)] = Field(
        description=f"A DNS label of at most {LONGEST_RESOURCE_NAME} characters, unique in the pool.",
        json_schema_extra={"pattern": LABEL_PATTERN, "maxLength": LONGEST_RESOURCE_NAME},
    )
    addresses: tuple[Cidr, ...] = Field(
        min_length=1, max_length=32, description="Where it is: IPv4 addresses, and networks of at least /16."
    )
    ports: tuple[PortText, ...] = Field(
        min_length=1, max_length=32, description="What is used there, such as `5432/tcp` or `8000-8010/udp`."
    )
    reason: str = Field(
        min_length=1, max_length=500, description="Why the nodes need it; the firewall approver reads this."
    )


class Network(_Model):
    """The cluster's network. Ranges left out are allocated from the platform's pools, without overlap."""

    plugin: NetworkPlugin = Field(default=NetworkPlugin.NATIVE, description="How pods are connected.")
    pods: Cidr | None = Field(
        default=None, description="Range of the pods' addresses, /12 to /22; each node takes a /24."
    )
    services: Cidr | None = Field(default=None, description="Range of the services' addresses, /12 to /24.")
    tunnel: Tunnel | None = Field(
        default=None,
        description="When packets between nodes are wrapped in VXLAN: `needed` is only where their link carries no "
        "addresses of pods, as that of sandbox nodes, or leads through a router. By default `always` with a machine "
        "whose preset is `vm`, else `needed`.",
    )
    load_balancing: LoadBalancing = Field(
        default=LoadBalancing.SNAT,
        description="How `cilium` sends on what comes from outside to a service: with the node's address, or with the "
        "client's, so that the pod's node answers by itself (`dsr`, which sandbox nodes cannot do).",
    )


class NodePool(_Model):
    """Nodes of one kind."""

    name: PoolName = Field(
        default="default",
        description=f"A DNS label of at most {LONGEST_POOL_NAME} characters, unique in the cluster.",
    )
    count: int = Field(
        default=1, ge=0, le=MOST_NODES, description="How many nodes the pool has; with `ssh` as many as `machines`."
    )
    provider: NodeProviderName = Field(default=NodeProviderName.SANDBOX, description="Where the nodes come from.")
    machines: tuple[str, ...] = Field(
        default=(), description="With `ssh`: the registered machines that are the nodes, by name."
    )
    cpu: float = Field(default=2.0, gt=0, le=256, description="Cores of each sandbox node.")
    memory_mib: int = Field(default=2048, ge=256, le=1 << 20, description="Memory of each sandbox node, in MiB.")
    external_resources: tuple[ExternalResource, ...] = Field(
        default=(),
        max_length=MOST_EXTERNAL_RESOURCES,
        description="What its nodes reach behind firewalls; each node joins when a firewall approver let it reach all.",
    )

    @model_validator(mode="before")
    @classmethod
    def _count_of_machines(cls, value: Any) -> Any:
        """Who names machines need not count them."""
        if isinstance(value, dict) and value.get("machines") is not None and "count" not in value:
            return {**value, "count": len(value["machines"])} if value.get("provider") == "ssh" else value
        return value

    @property
    def node_names(self) -> tuple[str, ...]:
        """Return the names of the pool's nodes: numbered, or after their machines, so that each stays whose it is."""
        if self.provider is NodeProviderName.SSH:
            return tuple(f"{self.name}-{machine}" for machine in self.machines)
        return tuple(f"{self.name}-{number}" for number in range(self.count))


class Settings(_Model):
    """What a cluster may set for itself: an allow-list, each field with its bounds.

    The health-check intervals are the reason why many clusters beat one: each team chooses its own.
    """

    node_status_update_seconds: int = Field(
        default=10, ge=1, le=60, description="How often a kubelet reports that it lives, in seconds."
    )
    node_monitor_grace_seconds: int = Field(
        default=50,
        ge=5,
        le=600,
        description="How long a node may be silent before it is NotReady, in seconds; at least four reports' time.",
    )
    pod_eviction_seconds: int = Field(
        default=300,
        ge=0,
        le=3600,
        description="How long pods stay bound to an unreachable node before they are replaced, in seconds.",
    )
    drain_seconds: int = Field(
        default=300,
        ge=10,
        le=3600,
        description="How long the pods of a node that is changed or removed have to move, in seconds; then it goes "
        "without them. A node that changes its version of Kubernetes waits longer, and the upgrade says on what.",
    )
    max_pods_per_node: int = Field(default=110, ge=1, le=250, description="Pods on one node at most.")
    audit_log_days: int = Field(
        default=30,
        ge=1,
        le=90,
        description="Days that the API server keeps audit files; their size is bounded in any case.",
    )
    max_requests_in_flight: int = Field(
        default=400,
        ge=50,
        le=3000,
        description="Requests that the API server works on at once, reading and changing together.",
    )
    feature_gates: dict[str, bool] = Field(
        default_factory=dict, description="Kubernetes feature gates, by name, for all components."
    )


def _cron_line(text: str) -> str:
    """A line of cron(8) with five fields; at most once an hour, so that a rule cannot keep the hosts busy."""
    fields = text.split()
    if len(fields) != 5:
        raise ValueError(f"{text!r} has not five fields: minute, hour, day of the month, month, day of the week")
    if not fields[0].isdecimal():
        raise ValueError(f"the minute in {text!r} must be one number")
    line = " ".join(fields)
    try:
        next(CronSim(line, NEVER))
    except (CronSimError, StopIteration) as error:
        raise ValueError(f"{text!r} is no moment that ever comes: {error or 'no such day'}") from error
    return line


def _zone(text: str) -> str:
    try:
        return ZoneInfo(text).key
    except (ValueError, OSError, LookupError) as error:
        raise ValueError(f"{text!r} is no time zone; names look like 'Europe/Berlin'") from error


CronLine = Annotated[str, AfterValidator(_cron_line)]
ZoneName = Annotated[str, AfterValidator(_zone)]


class SleepRule(_Model):
    """When a cluster falls asleep by itself, and when it wakes."""

    sleep: CronLine = Field(description="When it falls asleep: five fields of cron, such as `0 20 * * 1-5`.")
    wake: Annotated[str, AfterValidator(lambda text: _cron_line(text) if text else "")] = Field(
        default="", description="When it wakes, likewise; if left out, only when somebody asks."
    )
    zone: ZoneName = Field(default="UTC", description="The time zone of both, such as `Europe/Berlin`.")


class Hibernation(_Model):
    """Whether and when a cluster sleeps: what happened last counts, a rule's moment or somebody's word."""

    asleep: bool = Field(
        default=False, description="What was asked for last; `hibernate`, `wake` and the schedule set it."
    )
    asked: AwareDatetime = Field(default=NEVER, description="When that was; the platform sets it.")
    schedule: tuple[SleepRule, ...] = Field(
        default=(), max_length=MOST_SLEEP_RULES, description=f"Rules, at most {MOST_SLEEP_RULES}."
    )
    wake_on_request: bool = Field(default=True, description="Whether a request to its API wakes a sleeping cluster.")


class AuthoritiesRequest(_Model):
    """When the cluster's certificate authorities and keys are replaced, besides in time before they end."""

    revision: int = Field(
        default=0, ge=0, description="A higher number than before asks for new ones; an owner's action raises it."
    )
    grace_seconds: int = Field(
        default=3600,
        ge=0,
        le=30 * 24 * 3600,
        description="How long the old ones stay trusted once the new ones do everything, in seconds.",
    )


class RestoreRequest(_Model):
    """Which state of a backup the cluster is brought to; the platform's action `restore` sets it."""

    number: int = Field(default=0, ge=0, description="A higher number than that of the last restore asks for one.")
    source: str = Field(
        default="", max_length=64, description="The uid of the cluster whose backup it is; by default its own."
    )
    revision: int = Field(default=0, ge=0, description="The revision of its etcd that is wanted.")
    moment: AwareDatetime = Field(
        default=NEVER, description="The last state before this moment; without it and `revision` the newest state."
    )
    least: int = Field(
        default=0, ge=0, description="A revision that the backup had reached by then; with less, a part of it is gone."
    )


class ClusterSpec(_Model):
    """What a cluster is asked to be."""

    version: str = Field(default=VERSIONS[0], description="The version of Kubernetes; it never goes back.")
    node_version: str = Field(
        default="", description="The nodes' version where it is not the same: never newer, at most three minors older."
    )
    masters: Literal[1, 3] = Field(
        default=1, description="How many masters it has; with 3 its API answers through changes and the loss of one."
    )
    network: Network = Field(default=Network(), description="The network; it cannot change later.")
    node_pools: tuple[NodePool, ...] = Field(
        default=(NodePool(),), description=f"The nodes, at most {MOST_NODES} in all pools together."
    )
    settings: Settings = Field(default=Settings(), description="What the cluster sets for itself.")
    hibernation: Hibernation = Field(default=Hibernation(), description="Whether and when the cluster sleeps.")
    authorities: AuthoritiesRequest = Field(
        default=AuthoritiesRequest(), description="Asks for new certificate authorities; `rotate-authorities` sets it."
    )
    restore: RestoreRequest = Field(
        default=RestoreRequest(), description="Asks for a state of a backup; `restore` sets it."
    )

    @property
    def nodes_version(self) -> str:
        """Return the version that is asked for the nodes."""
        return self.node_version or self.version

    @property
    def node_count(self) -> int:
        """Return how many nodes are asked for in all pools."""
        return sum(pool.count for pool in self.node_pools)

    @property
    def machines(self) -> tuple[str, ...]:
        """Return the machines that the pools name."""
        return tuple(name for pool in self.node_pools for name in pool.machines)

    @property
    def outside(self) -> bool:
        """Say whether the nodes are outside the management cluster, and so reach the API server from there."""
        return any(pool.provider is NodeProviderName.SSH for pool in self.node_pools)

    @property
    def highly_available(self) -> bool:
        """Say whether the cluster has more than one master."""
        return self.masters > 1

    @property
    def wraps_all(self) -> bool:
        """Say whether all packets between nodes are wrapped. Older clusters on machines never said it, and do."""
        tunnel = self.network.tunnel
        return tunnel is Tunnel.ALWAYS or (tunnel is None and self.outside)

    @property
    def announces_itself(self) -> bool:
        """Say whether the API server says by itself where pods reach it.

        Several at one address would each take that back when they end.
        """
        return not self.outside and not self.highly_available


class Phase(StrEnum):
    """A cluster's life in one word, for lists."""

    PENDING = "Pending"
    CREATING = "Creating"
    READY = "Ready"
    UPDATING = "Updating"
    DEGRADED = "Degraded"
    HIBERNATING = "Hibernating"
    ASLEEP = "Asleep"
    WAKING = "Waking"
    RESTORING = "Restoring"
    DELETING = "Deleting"


#: Phases from when a cluster begins to fall asleep until it is ready again.
SLEEP_PHASES: Final = frozenset({Phase.HIBERNATING, Phase.ASLEEP, Phase.WAKING})


class ConditionType(StrEnum):
    """The conditions of a cluster, in the order in which they come true; of one that sleeps or is restored two."""

    ACCEPTED = "Accepted"
    HIBERNATED = "Hibernated"
    RESTORED = "Restored"
    CONTROL_PLANE_READY = "ControlPlaneReady"
    API_ANSWERS = "ApiAnswers"
    NETWORK_READY = "NetworkReady"
    NODES_READY = "NodesReady"
    AUTHORITIES_CURRENT = "AuthoritiesCurrent"
    VERSION_CURRENT = "VersionCurrent"
    #: It is there, and False, only while names, balancers or ingress do not follow the cluster; nothing waits on it.
    FOLLOWED = "Followed"


class Condition(_Model):
    """One condition, as Kubernetes API conventions define it; ``message`` is a sentence for people."""

    type: ConditionType = Field(description="Which condition.")
    status: str = Field(description="`True` or `False`.")
    reason: str = Field(description="Why, in one word for programs.")
    message: str = Field(default="", description="What is waited for, in words for people.")
    last_transition_time: datetime = Field(description="When `status` changed last.")


class NodeStatus(_Model):
    """One node as the operator sees it."""

    name: str = Field(description="Its pool's name, and a number or its machine's name.")
    pool: str = Field(description="Its pool.")
    address: str = Field(default="", description="Where its provider sees it.")
    version: str = Field(default="", description="The version of Kubernetes that its kubelet said to be last.")
    ready: bool = Field(default=False, description="Whether it runs pods.")
    message: str = Field(default="", description="What it waits for.")
    barred: str = Field(
        default="", description="What has to happen before it may join: a firewall approver's decision."
    )


class MasterStatus(_Model):
    """One pod of the masters as the operator sees it."""

    name: str = Field(description="The pod's name.")
    role: str = Field(description="Which program it runs.")
    host: str = Field(default="", description="The management host that it runs on.")
    ready: bool = Field(default=False, description="Whether it serves.")
    message: str = Field(default="", description="What it waits for.")


class BackupState(StrEnum):
    """A backup in one word."""

    STARTING = "Starting"
    CURRENT = "Current"
    BEHIND = "Behind"
    UNPROVEN = "Unproven"
    PAUSED = "Paused"


class BackupStatus(_Model):
    """How a cluster's backup stands."""

    state: BackupState = Field(
        default=BackupState.STARTING,
        description="`Current`, `Behind` while etcd or the store does not answer, `Unproven` after a failed drill, "
        "`Paused` while the cluster sleeps, `Starting` before the first snapshot.",
    )
    message: str = Field(default="", description="What is wrong.")
    as_of: datetime = Field(default=NEVER, description="When all this was seen.")
    complete_until: datetime = Field(
        default=NEVER, description="What the cluster acknowledged before this moment is in the backup."
    )
    lag_seconds: float = Field(default=0.0, description="The most by which it was behind lately, in seconds.")
    revision: int = Field(default=0, description="The last revision of etcd in it.")
    restorable_since: datetime | None = Field(default=None, description="The first moment that can be restored.")
    snapshots: int = Field(default=0, description="How many snapshots there are.")
    size: int = Field(default=0, description="Its size in bytes.")
    proven_at: datetime | None = Field(default=None, description="When a drill restored it last.")
    drill_seconds: float = Field(default=0.0, description="How long that took.")


class RestoreState(StrEnum):
    """How far a restore is: prepared beside what runs, put in its place, done; or given up, with nothing changed."""

    NONE = "None"
    PREPARED = "Prepared"
    PLACED = "Placed"
    DONE = "Done"
    FAILED = "Failed"


class RestoreStatus(_Model):
    """The restore that was asked for last."""

    number: int = Field(default=0, description="Its number; see `spec.restore`.")
    state: RestoreState = Field(
        default=RestoreState.NONE,
        description="`Prepared` beside what runs, `Placed` where etcd is, `Done`, or `Failed` with nothing changed.",
    )
    began: datetime = Field(default=NEVER, description="When it began.")
    placed: datetime = Field(default=NEVER, description="When restored data was put in place last.")
    revision: int = Field(default=0, description="The revision that was restored.")
    keys: int = Field(default=0, description="How many keys of etcd that state has.")
    prepare_seconds: float = Field(default=0.0, description="How long the data took to make, beside what ran.")
    message: str = Field(default="", description="Why it failed.")


class ClusterStatus(_Model):
    """What is seen of a cluster."""

    phase: Phase = Field(default=Phase.PENDING, description="The cluster's life in one word.")
    observed_generation: int = Field(default=0, description="The generation of the spec that this status is about.")
    look_answered: str = Field(
        default="", description="The request for a look after which this status was seen; see `lookRequested`."
    )
    endpoint: str = Field(default="", description="The API server's URL for people.")
    version: str = Field(default="", description="The version of Kubernetes that all masters run, or ran last.")
    pods: str = Field(default="", description="The range of the pods' addresses.")
    services: str = Field(default="", description="The range of the services' addresses.")
    masters: tuple[MasterStatus, ...] = Field(
        default=(), description="Every pod of the masters; empty while the cluster sleeps."
    )
    nodes: tuple[NodeStatus, ...] = Field(default=(), description="Every node that a pool wants.")
    conditions: tuple[Condition, ...] = Field(default=(), description="How far the cluster has come.")
    authorities_expire: datetime | None = Field(
        default=None, description="When the first of the cluster's authorities ends; new ones are made a year before."
    )
    backup: BackupStatus | None = Field(default=None, description="How its backup stands.")
    restore: RestoreStatus = Field(default=RestoreStatus(), description="The restore that was asked for last.")
    milestones: dict[str, float] = Field(
        default_factory=dict, description="Seconds from creation until first reached: `api`, `node`, `ready`."
    )


class Cluster(_Model):
    """A cluster: its identity, spec and status."""

    project: str
    name: str
    uid: str
    generation: int
    created: datetime
    deleting: bool = False
    #: When somebody last asked that the cluster be looked at again; answered once the status names it.
    look_requested: str = ""
    spec: ClusterSpec
    #: Why the stored spec cannot be carried out; the spec is then the default one, which nobody asked for.
    spec_problem: str = ""
    status: ClusterStatus = ClusterStatus()

    @property
    def examination_requested(self) -> bool:
        """Say whether somebody waits for the cluster to be examined."""
        waiting = self.look_requested != self.status.look_answered
        return waiting and self.look_requested.endswith(EXAMINATION_MARK)

    @property
    def masters_namespace(self) -> str:
        """Return the management namespace of the cluster's masters."""
        return f"cluster-{self.project}-{self.name}"

    @property
    def nodes_namespace(self) -> str:
        """Return the management namespace of the cluster's sandbox nodes."""
        return f"nodes-{self.project}-{self.name}"

    @property
    def restore_is_due(self) -> bool:
        """Say whether a restore that was asked for comes before everything else: its data is not in place yet."""
        request, seen = self.spec.restore, self.status.restore
        if not request.number:
            return False
        if seen.number != request.number:
            return True
        # A new cluster without its data is none; one that was there goes on with what it had.
        return seen.state in (RestoreState.NONE, RestoreState.PREPARED) or (
            seen.state is RestoreState.FAILED and bool(request.source)
        )

    @property
    def is_restoring(self) -> bool:
        """Say whether a restore is not over yet."""
        return self.restore_is_due or self.status.restore.state is RestoreState.PLACED


#: How a request for a look ends that asks for an examination too.
EXAMINATION_MARK: Final = " with examination"

#: The annotation in which a look is asked for.
LOOK_ANNOTATION: Final = f"{CLUSTERS.group}/look-requested"


def project_namespace(project: str) -> str:
    """Return the management namespace that holds a project's custom resources."""
    return f"project-{project}"


def cluster_from_resource(resource: dict[str, Any]) -> Cluster:
    """Parse a custom resource; a spec that is none becomes a ``spec_problem``, so that it can be shown and deleted."""
    metadata = resource["metadata"]
    spec, problem = ClusterSpec(), ""
    try:
        spec = ClusterSpec.model_validate(resource.get("spec") or {})
    except ValidationError as error:
        problem = "; ".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors())
    try:
        status = ClusterStatus.model_validate(resource.get("status") or {})
    except ValidationError:
        # It is written anew at the next look; until then nothing is known.
        status = ClusterStatus()
    return Cluster(
        project=metadata["namespace"].removeprefix("project-"),
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata["generation"],
        created=metadata["creationTimestamp"],
        deleting="deletionTimestamp" in metadata,
        look_requested=metadata.get("annotations", {}).get(LOOK_ANNOTATION, ""),
        spec=spec,
        spec_problem=problem,
        status=status,
    )
