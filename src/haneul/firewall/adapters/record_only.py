"""For firewalls that somebody else keeps: writes down what is to be let through, and lets nothing through itself.

One ConfigMap a cluster, with one JSON document. Its team takes the list from ``haneul firewall export``; an approval
then says that the entry is made or will be.
"""

from __future__ import annotations

import json
from typing import Final

from haneul.firewall.model import Rule
from haneul.kernel.kube import CONFIG_MAPS, KubeClient, Manifest

_RULES: Final = "rules.json"
_LABELS: Final = {"app.kubernetes.io/managed-by": "haneul", "firewall.haneul.dev/record": "ways"}


class RecordOnly:
    """What is to be let through, in a namespace of the management cluster."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def apply(self, owner: str, rules: frozenset[Rule], leaving: frozenset[str]) -> None:
        """Write the list, if it is another one."""
        before = await self._rules(owner)
        after = rules | {rule for rule in before if rule.source in leaving}
        if after == before:
            return
        if not after:
            await self._client.delete(CONFIG_MAPS, _name(owner), self._namespace)
            return
        listed = [rule.model_dump(mode="json") for rule in sorted(after, key=lambda rule: rule.key)]
        manifest: Manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": _name(owner), "namespace": self._namespace, "labels": _LABELS},
            "data": {_RULES: json.dumps(listed, indent=1)},
        }
        await self._client.apply(CONFIG_MAPS, manifest)

    async def opened(self, owner: str) -> frozenset[str]:
        """Return what the list has."""
        return frozenset(rule.key for rule in await self._rules(owner))

    async def _rules(self, owner: str) -> frozenset[Rule]:
        found = await self._client.get(CONFIG_MAPS, _name(owner), self._namespace)
        listed = json.loads(found["data"][_RULES]) if found else []
        return frozenset(Rule.model_validate(entry) for entry in listed)


def _name(owner: str) -> str:
    return f"firewall-{owner}"
