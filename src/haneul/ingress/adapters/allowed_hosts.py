"""The port ``Hosts`` from a list: which hosts a cluster may serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class AllowedHosts:
    """Takes hosts of a list: a host itself, or ``*.DOMAIN`` for every name below it; an empty list is all hosts."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._hosts = frozenset(allowed)
        self._domains = tuple(entry[1:] for entry in allowed if entry.startswith("*."))

    async def refused(self, hosts: Sequence[str]) -> Mapping[str, str]:
        """Return the hosts that are not on the list."""
        why = "this cluster may not serve it"
        return {host: why for host in hosts if self._hosts and not self._is_allowed(host)}

    def _is_allowed(self, host: str) -> bool:
        return host in self._hosts or any(host.removeprefix("*").endswith(domain) for domain in self._domains)
