"""Where clusters have their names: below which zone, and who answers for them, outside all clusters. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from haneul.dkos.model import Cluster

DNS_PORT: Final = 53


@dataclass(frozen=True)
class Naming:
    """A DNS server's IPv4 address, which pods ask at port 53, and the zone, without a dot at its end."""

    zone: str
    address: str

    def domain(self, cluster: Cluster) -> str:
        """Return the domain below which a cluster's names lie, without a dot at its end."""
        return f"{cluster.name}.{cluster.project}.{self.zone}"
