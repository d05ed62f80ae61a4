"""Zones in memory: for simulations and for the behaviour suite, which it keeps as every server does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from haneul.dns.model import (
    CNAME,
    Acknowledgement,
    Change,
    Key,
    Present,
    RecordSet,
    RecordsRefusedError,
    ZoneChangedError,
    ZoneState,
    absolute,
    is_below,
)
from haneul.kernel.errors import NotFoundError


class MemoryDns:
    """A server that remembers what it is told."""

    def __init__(self, *zones: str) -> None:
        self._zones: dict[str, dict[Key, Present]] = {absolute(zone): {} for zone in zones}
        self._serials = dict.fromkeys(self._zones, 1)

    @property
    def server(self) -> str:
        """Return its name."""
        return "memory"

    @property
    def zones(self) -> Sequence[str]:
        """Return its zones."""
        return list(self._zones)

    async def read(self, zone: str) -> ZoneState:
        """Return what is there."""
        await asyncio.sleep(0)
        if zone not in self._zones:
            raise NotFoundError(f"the server has no zone {zone}", hint="make it there first")
        return ZoneState(zone, self._serials[zone], 5, dict(self._zones[zone]))

    async def apply(self, zone: str, owner: str, changes: Sequence[Change]) -> Acknowledgement:
        """Change a copy, and take it if all of it could be done."""
        await self.read(zone)
        sets = dict(self._zones[zone])
        for change in changes:
            there = sets.pop(change.key, None)
            if there != (Present(change.before, owner) if change.before else None):
                raise ZoneChangedError(f"{change.key.name} {change.key.type} is not as it was")
            if change.after:
                if not is_below(change.after.name, zone):
                    raise RecordsRefusedError(f"{change.after.name} is not in the zone {zone}")
                _beside(sets, change.after)
                sets[change.key] = Present(change.after, owner)
        self._zones[zone] = sets
        self._serials[zone] += 1
        return Acknowledgement(self.server, zone, self._serials[zone])

    async def close(self) -> None:
        """Nothing is open."""

    def put(self, zone: str, records: RecordSet) -> None:
        """Write a set by hand, as a person does who knows of no marks."""
        self._zones[zone][records.key] = Present(records)


def _beside(sets: dict[Key, Present], records: RecordSet) -> None:
    for key in sets:
        if key.name == records.name and CNAME in (key.type, records.type):
            raise ZoneChangedError(f"{records.name} cannot have a {records.type} beside a {key.type}")
