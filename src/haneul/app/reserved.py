"""The ranges that no tenant's cluster may touch, as `up` tells the API of them: a file in a config map.

The API is a pod and sees none of the host's networks, so `up` gathers them, and the pod reads this file once.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network

from haneul.dkos.admission import TakenRange
from haneul.management.settings import ManagementSettings

FILE = "reserved-ranges.json"


def reserved_ranges(settings: ManagementSettings) -> list[TakenRange]:
    """Return the management cluster's ranges, those of ingress and load balancers, and the host's networks."""
    return [
        TakenRange(IPv4Network(settings.pods), "the management cluster's pods", inside=True),
        TakenRange(IPv4Network(settings.services), "the management cluster's services", inside=True),
        TakenRange(IPv4Network(settings.ingress), "the addresses of clusters' ingress"),
        *(TakenRange(IPv4Network(one), "the load balancers' addresses") for one in settings.balancer_networks),
        *(
            TakenRange(IPv4Network(network), f"a network of the host {settings.host_name} ({device})")
            for network, device in settings.host_networks
        ),
    ]


def dumped(ranges: list[TakenRange]) -> str:
    """Return the file's text; the same ranges give the same text."""
    rows = [{"network": str(entry.network), "owner": entry.owner, "inside": entry.inside} for entry in ranges]
    return json.dumps(rows, indent=1) + "\n"


def loaded(text: str) -> list[TakenRange]:
    """Return what a file's text says."""
    return [TakenRange(IPv4Network(row["network"]), row["owner"], row["inside"]) for row in json.loads(text)]
