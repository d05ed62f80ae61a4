"""Taking away what owners published who are gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from haneul.dns.changes import batches, plan
from haneul.dns.model import Key, Present
from haneul.dns.ports import DnsProvider

_BATCH = 200


async def withdraw(provider: DnsProvider, gone: Callable[[str], bool]) -> int:
    """Take away every record set whose owner is ``gone``; return how many there were.

    Raises what the provider raises; calling it again goes on.
    """
    count = 0
    for zone in provider.zones:
        sets = (await provider.read(zone)).sets
        for owner in _owners(sets):
            if not gone(owner):
                continue
            changes = plan({}, sets, owner).changes
            for batch in batches(changes, _BATCH):
                await provider.apply(zone, owner, batch)
            count += len(changes)
    return count


def _owners(sets: Mapping[Key, Present]) -> list[str]:
    return sorted({there.owner for there in sets.values() if there.owner})
