"""What makes several masters out of one, beside etcd: how they end, where they run, how many may be missing. Pure.

Planned changes lose no request because an API server that is to end serves on until nobody is sent to it any more,
and the next one is ready before that. Neighbours: :mod:`haneul.dkos.control_plane` renders the programs,
:mod:`haneul.dkos.etcd_members` the etcd members.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from haneul.kernel.kube import Manifest

#: Of controller manager, scheduler and Cilium's operator one works and one waits; a third would wait for that one.
CONTROLLERS: Final = 2
#: For how long an API server that is to end serves on as if nothing were: until the address of its pod is taken out
#: everywhere. Then it takes nothing new and ends what it works on, which takes a minute at most.
_DRAIN_SECONDS: Final = 6
_LONGEST_REQUEST_SECONDS: Final = 60
SERVER_GRACE_SECONDS: Final = _DRAIN_SECONDS + _LONGEST_REQUEST_SECONDS + 9

SERVER_ARGUMENTS: Final[Mapping[str, str]] = {
    "shutdown-delay-duration": f"{_DRAIN_SECONDS}s",
    # Clients stay with the API server that they found first; one request in a thousand has one look for another, so
    # that those who fled from a restarted one come back to it.
    "goaway-chance": "0.001",
}


def spread(marks: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the constraint by which pods with these labels run on different hosts as far as there are any."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(marks)},
        }
    ]


def disruption_budget(name: str, namespace: str, marks: Mapping[str, str], own: Mapping[str, str]) -> Manifest:
    """Return the budget by which two of three pods with the labels ``marks`` stay when hosts are emptied."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(own)},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": dict(marks)}},
    }
