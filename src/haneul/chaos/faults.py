"""The catalogue: what is broken, how, for how long, and who may notice how much of it. Frozen data.

``allowed`` names, for each address that is asked meanwhile, the longest outage in seconds that keeps the promise; an
address that is not named must answer every single question. The promises are those of the design: a tenant's masters
are back within 30 s, its pods keep serving, and others see nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

#: The two clusters of a run.
CLUSTERS: Final = ("victim", "neighbour")


class Asked(StrEnum):
    """What is asked twenty times a second. Faults strike the victim and what all clusters share."""

    VICTIM_API = "victim's API"
    VICTIM_WORKLOAD = "victim's workload"
    NEIGHBOUR_API = "neighbour's API"
    NEIGHBOUR_WORKLOAD = "neighbour's workload"
    PLATFORM_API = "platform's API"
    MANAGEMENT_API = "management API"


class Way(StrEnum):
    """How something is broken."""

    KILL = "killed"
    FREEZE = "frozen"
    DELETE = "deleted"
    CUT = "cut off"
    FILL = "disk full"
    LOAD = "loaded"
    CHANGE = "changed"
    POWER = "power cut"


class Place(StrEnum):
    """Where what is broken runs."""

    MASTERS = "the victim's masters"
    NODE = "a node of the victim"
    MANAGEMENT = "the management cluster"
    PLATFORM = "the platform"
    HOST = "the host"


@dataclass(frozen=True)
class Fault:
    """One fault. ``part`` is the program, the Deployment, the host service, or what is done; it is kept for ``hold`` s.

    ``recovery`` is how many seconds after its end everything must be as before.
    """

    name: str
    way: Way
    place: Place
    part: str
    title: str
    hold: float = 0.0
    allowed: Mapping[Asked, float] = field(default_factory=lambda: MappingProxyType({}))
    recovery: float = 30.0


#: The promise: a tenant's masters are back within so many seconds.
MASTERS_BACK: Final = 30.0
#: How long it takes until others hear that a node died: its lease has to end first.
_NODE_NOTICED: Final = 50.0


def _upto(seconds: float, *asked: Asked) -> Mapping[Asked, float]:
    return MappingProxyType(dict.fromkeys(asked, seconds))


def _master(part: str, *, serves: bool) -> Fault:
    allowed = _upto(MASTERS_BACK, Asked.VICTIM_API) if serves else _upto(0)
    name = part.removeprefix("kube-")
    return Fault(f"{name}-killed", Way.KILL, Place.MASTERS, part, f"a tenant's {part} is killed", allowed=allowed)


_FROZEN, _CUT, _FULL, _LOADED = 15.0, 20.0, 20.0, 15.0

CATALOGUE: Final[tuple[Fault, ...]] = (
    _master("etcd", serves=True),
    _master("kube-apiserver", serves=True),
    _master("kube-controller-manager", serves=False),
    _master("kube-scheduler", serves=False),
    Fault(
        "etcd-frozen",
        Way.FREEZE,
        Place.MASTERS,
        "etcd",
        "a tenant's etcd gets no processor",
        hold=_FROZEN,
        allowed=_upto(_FROZEN + MASTERS_BACK, Asked.VICTIM_API),
    ),
    Fault(
        "apiserver-frozen",
        Way.FREEZE,
        Place.MASTERS,
        "kube-apiserver",
        "a tenant's API server gets no processor",
        hold=_FROZEN,
        allowed=_upto(_FROZEN + MASTERS_BACK, Asked.VICTIM_API),
    ),
    Fault(
        "etcd-disk-full",
        Way.FILL,
        Place.MASTERS,
        "etcd",
        "the disk of a tenant's etcd is full while it is written to",
        hold=_FULL,
        allowed=_upto(_FULL + MASTERS_BACK, Asked.VICTIM_API),
    ),
    Fault("node-kubelet-killed", Way.KILL, Place.NODE, "kubelet", "a node's kubelet is killed"),
    Fault("node-runtime-killed", Way.KILL, Place.NODE, "containerd", "a node's container runtime is killed"),
    Fault(
        "node-pod-deleted",
        Way.DELETE,
        Place.NODE,
        "node",
        "a node is gone at once, with its pods and its disk",
        allowed=_upto(_NODE_NOTICED, Asked.VICTIM_WORKLOAD),
        recovery=120,
    ),
    Fault(
        "node-cut-off",
        Way.CUT,
        Place.NODE,
        "masters",
        "no packet passes between a node and its masters",
        hold=_CUT,
        recovery=60,
    ),
    Fault(
        "management-api-killed",
        Way.KILL,
        Place.MANAGEMENT,
        "kube-apiserver",
        "the management cluster's API server is killed",
        allowed=_upto(60, Asked.MANAGEMENT_API, Asked.PLATFORM_API),
        recovery=90,
    ),
    Fault(
        "management-etcd-killed",
        Way.KILL,
        Place.MANAGEMENT,
        "etcd",
        "the management cluster's etcd is killed",
        allowed=_upto(60, Asked.MANAGEMENT_API, Asked.PLATFORM_API),
        recovery=90,
    ),
    Fault(
        "network-agent-killed",
        Way.KILL,
        Place.MANAGEMENT,
        "cilium-agent",
        "Cilium's agent of the host is killed",
        recovery=90,
    ),
    Fault("operator-deleted", Way.DELETE, Place.PLATFORM, "haneul-operator", "the operator is gone", recovery=60),
    Fault(
        "operator-deleted-at-each-step",
        Way.CHANGE,
        Place.PLATFORM,
        "operator-at-each-step",
        "a cluster is made, sleeps, wakes and is deleted; the operator dies at each step of it",
        recovery=60,
    ),
    Fault(
        "platform-api-deleted",
        Way.DELETE,
        Place.PLATFORM,
        "haneul-api",
        "the platform's API is gone",
        allowed=_upto(60, Asked.PLATFORM_API),
        recovery=90,
    ),
    Fault("host-runtime-killed", Way.KILL, Place.HOST, "containerd", "the host's container runtime is killed"),
    Fault("host-kubelet-killed", Way.KILL, Place.HOST, "kubelet", "the host's kubelet is killed"),
    Fault(
        "load-processor",
        Way.LOAD,
        Place.NODE,
        "processor",
        "a tenant uses all the processor time that its nodes get",
        hold=_LOADED,
        allowed=_upto(_LOADED + 5, Asked.VICTIM_WORKLOAD),
    ),
    Fault(
        "load-memory",
        Way.LOAD,
        Place.NODE,
        "memory",
        "a tenant asks for more memory than its nodes have",
        hold=_LOADED,
        allowed=_upto(_NODE_NOTICED, Asked.VICTIM_WORKLOAD),
        recovery=120,
    ),
    Fault(
        "load-disk",
        Way.LOAD,
        Place.NODE,
        "disk",
        "a tenant writes to its nodes' disks as fast as it can",
        hold=_LOADED,
        allowed=_upto(_LOADED + 5, Asked.VICTIM_WORKLOAD),
    ),
    Fault(
        "load-api",
        Way.LOAD,
        Place.MASTERS,
        "api",
        "a tenant floods its own API server",
        hold=_LOADED,
        allowed=_upto(_LOADED + MASTERS_BACK, Asked.VICTIM_API),
    ),
    Fault(
        "change-settings",
        Way.CHANGE,
        Place.MASTERS,
        "settings",
        "planned: the API server's settings are changed, and changed back",
        allowed=_upto(5, Asked.VICTIM_API),
        recovery=60,
    ),
    Fault(
        "change-scale",
        Way.CHANGE,
        Place.NODE,
        "scale",
        "planned: a node is added and removed again",
        recovery=60,
    ),
    Fault(
        "power-cut",
        Way.POWER,
        Place.HOST,
        "everything",
        "every process of the platform and of all clusters is killed at once",
        allowed=_upto(240, *Asked),
        recovery=240,
    ),
)

BY_NAME: Final[Mapping[str, Fault]] = MappingProxyType({fault.name: fault for fault in CATALOGUE})
