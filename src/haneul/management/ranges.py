"""The management cluster's own ranges of addresses: chosen once, beside the networks of the host, and then kept.

They cannot change while the cluster lives, since every pod and service has its address from them. A host that came
into a network of the same addresses later is refused by `up` until one of the two has moved.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from haneul.kernel.errors import HostNotReadyError
from haneul.kernel.files import write_atomically
from haneul.management.settings import ManagementSettings


@dataclass(frozen=True)
class Ranges:
    """Where pods and services of the management cluster have their addresses, in CIDR notation."""

    pods: str
    services: str


#: Tried in this order. All lie outside of the pools for tenants' clusters.
CANDIDATES: Final = (
    Ranges(ManagementSettings.pods, ManagementSettings.services),
    Ranges("10.194.0.0/16", "10.195.0.0/16"),
    Ranges("172.28.0.0/16", "172.29.0.0/16"),
    Ranges("172.22.0.0/16", "172.23.0.0/16"),
)


def ranges_of(state: Path, host: Iterable[tuple[str, str]]) -> Ranges:
    """Return the ranges that are kept in ``state``; before the first `up`, those that fit beside the host's networks.

    ``host`` are networks with their interfaces. When no candidate fits the first is returned, and
    :func:`check` says why it cannot be used.
    """
    try:
        if _file(state).exists():
            return Ranges(**json.loads(_file(state).read_text()))
        if (state / "kubeadm.yaml").exists():
            return CANDIDATES[0]
    except PermissionError:
        # `doctor` may be asked by anybody; who cannot look is told what a fresh installation would take.
        pass
    networks = tuple(host)
    return next((ranges for ranges in CANDIDATES if not _collisions(ranges, networks)), CANDIDATES[0])


def check(settings: ManagementSettings) -> None:
    """Raise HostNotReadyError if the settings' ranges overlap a network of the host. Changes nothing."""
    if found := _collisions(Ranges(settings.pods, settings.services), settings.host_networks):
        ours, network, device = found[0]
        raise HostNotReadyError(
            f"the management cluster's range {ours} overlaps {network} ({device}), a network of this host",
            hint="take the host out of that network ('ip route' shows it), or purge and install where a range is free",
        )


def keep(settings: ManagementSettings) -> None:
    """Keep the settings' ranges for every later command."""
    text = json.dumps({"pods": settings.pods, "services": settings.services})
    write_atomically(_file(settings.state), text + "\n", mode=0o600)


def _file(state: Path) -> Path:
    return state / "ranges.json"


def _collisions(ranges: Ranges, host: Iterable[tuple[str, str]]) -> list[tuple[str, str, str]]:
    return [
        (ours, network, device)
        for network, device in host
        for ours in (ranges.pods, ranges.services)
        if IPv4Network(ours).overlaps(IPv4Network(network))
    ]
