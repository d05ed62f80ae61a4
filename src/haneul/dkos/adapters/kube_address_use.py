"""What projects have of the load balancers: one ConfigMap beside the balancer's records.

Whoever gives addresses out writes it, and knows better; it is for people to see.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from haneul.dkos.quota import Amounts
from haneul.dkos.readers import BALANCER
from haneul.kernel.kube import CONFIG_MAPS, KubeClient, Manifest

#: Its name, in the balancer's namespace.
ADDRESS_USE: Final = "address-use"
_KEY: Final = "projects"


class KubeAddressUse:
    """DKOS's port for what projects have of the load balancers, and where that is told."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def of(self, project: str) -> Amounts:
        """Return a project's addresses and listeners; none as long as nobody told of some."""
        found = await self._client.get(CONFIG_MAPS, ADDRESS_USE, BALANCER.name)
        addresses, listeners = _told(found).get(project, (0, 0))
        return Amounts(addresses=addresses, listeners=listeners)

    async def tell(self, uses: Mapping[str, Amounts]) -> None:
        """Write down what all projects have."""
        pairs = {project: [use.addresses, use.listeners] for project, use in sorted(uses.items())}
        wanted: Manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": ADDRESS_USE, "namespace": BALANCER.name},
            "data": {_KEY: json.dumps(pairs)},
        }
        found = await self._client.get(CONFIG_MAPS, ADDRESS_USE, BALANCER.name)
        if found is None:
            await self._client.create(CONFIG_MAPS, wanted)
        elif found.get("data") != wanted["data"]:
            await self._client.patch(CONFIG_MAPS, ADDRESS_USE, {"data": wanted["data"]}, BALANCER.name)


def _told(found: Manifest | None) -> dict[str, tuple[int, int]]:
    """Return what stands there; what is none of ours says nothing."""
    try:
        pairs = json.loads(((found or {}).get("data") or {}).get(_KEY, "{}"))
        return {str(project): (int(addresses), int(listeners)) for project, (addresses, listeners) in pairs.items()}
    except (ValueError, TypeError, AttributeError):
        return {}
