"""Brings what a cluster wants into a server's zones, in batches, and says what the server acknowledged.

It remembers what it read of the zones and what was acknowledged since, so that a change costs one batch. What bears
other owners' marks it remembers at the names alone that are wanted: many clusters share a zone, and none needs to know
the others' names. What a server did not acknowledge may be done or not; the zone is read again before anything else is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import structlog

from haneul.dns.changes import Conflict, batches, plan
from haneul.dns.metrics import Figures
from haneul.dns.model import (
    Acknowledgement,
    Change,
    Key,
    Present,
    RecordSet,
    RecordsRefusedError,
    ZoneState,
    zone_of,
)
from haneul.dns.picture import Picture
from haneul.dns.ports import DnsProvider
from haneul.dns.receipts import Receipt, acknowledged, in_conflict, not_acknowledged, refused
from haneul.dns.wanted import Wanted
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube_objects import Place
from haneul.kernel.tasks import to_its_end

_log = structlog.get_logger(__name__)
#: Resolvers should not remember for long that a name is not there: it may come any moment.
_LONG_NEGATIVE_TTL = 30


class Publisher:
    """One owner's records on one server."""

    def __init__(
        self,
        provider: DnsProvider,
        owner: str,
        wanted: Wanted,
        *,
        clock: Clock,
        batch: int = 200,
        figures: Figures | None = None,
    ) -> None:
        self._provider = provider
        self._owner = owner
        self._wanted = wanted
        self._clock = clock
        self._batch = batch
        self._figures = figures or Figures()
        self._zones: dict[str, Picture] = {}
        self._words: dict[str, Acknowledgement] = {}
        self._conflicts: dict[Key, Conflict] = {}
        self._refusals: dict[Key, str] = {}
        #: Names with changes that are not acknowledged, and when each was seen first.
        self._pending: dict[str, float] = {}
        self._written: set[str] = set()
        self._warned: set[str] = set()

    async def resync(self) -> dict[Place, Receipt]:
        """Read all zones, write what differs, and return the receipts of all Services."""
        self._note(self._wanted.changed())
        affected = set(self._pending)
        self._conflicts.clear()
        self._refusals.clear()
        try:
            states = [await self._read(zone) for zone in self._provider.zones]
            wanted = self._wanted.records()
            names = {key.name for key in wanted}
            self._zones = {state.zone: self._picture(state, names) for state in states}
            for zone, sets in self._by_zone(wanted).items():
                await self._write(zone, sets, self._zones[zone].sets())
        except HaneulError:
            self._zones.clear()
            raise
        services = {*self._wanted.services(), *self._wanted.services(affected)}
        return self._receipts(services, self._settle())

    async def publish(self) -> dict[Place, Receipt]:
        """Write what changed since the last time, and return the receipts of the Services that it is of.

        Raises what the provider raises; then what is pending stays so, and the next call reads the zones again.
        """
        if set(self._zones) != set(self._provider.zones):
            return await self.resync()
        changed = self._wanted.changed()
        self._note(changed)
        wanted = self._wanted.records(changed)
        names = set(changed)
        services = self._wanted.services(names)
        try:
            for zone, sets in self._by_zone(wanted).items():
                await self._write(zone, sets, self._zones[zone].at(names))
        except HaneulError:
            self._zones.clear()
            raise
        return self._receipts(services, self._settle())

    def held_up(self, error: HaneulError) -> dict[Place, Receipt]:
        """Return the receipts of the Services whose changes a server did not acknowledge."""
        self._figures.failed(error.code)
        return {place: not_acknowledged(error.detail) for place in self._wanted.services(self._pending)}

    def _note(self, changed: Mapping[str, float]) -> None:
        for name, at in changed.items():
            self._pending.setdefault(name, at)
        self._figures.waits_for(self._pending)

    def _settle(self) -> Mapping[str, float]:
        """Return for each pending name that was written how many seconds it took; from now on none is pending."""
        now = self._clock.monotonic()
        settled = {name: now - at for name, at in self._pending.items() if name in self._written}
        self._pending.clear()
        self._written.clear()
        self._figures.waits_for(self._pending)
        self._figures.took(settled.values())
        self._figures.conflicts = len(self._conflicts)
        return settled

    async def _read(self, zone: str) -> ZoneState:
        state = await self._provider.read(zone)
        self._words[zone] = Acknowledgement(self._provider.server, zone, state.serial)
        if state.negative_ttl > _LONG_NEGATIVE_TTL and zone not in self._warned:
            self._warned.add(zone)
            _log.warning(
                "resolvers remember for long that a name of this zone is not there",
                zone=zone,
                seconds=state.negative_ttl,
                hint="lower the last number of its SOA record, or that record's own TTL",
            )
        return state

    def _picture(self, state: ZoneState, names: Collection[str]) -> Picture:
        """Return what matters of a zone: all but other owners' records, and theirs at some names."""
        ours = ("", self._owner)
        return Picture({key: there for key, there in state.sets.items() if there.owner in ours or key.name in names})

    async def _write(self, zone: str, wanted: Mapping[Key, RecordSet], there: Mapping[Key, Present]) -> None:
        """Write what differs between two pictures of a zone, or of a part of it."""
        for key in {*wanted, *there}:
            self._conflicts.pop(key, None)
            self._refusals.pop(key, None)
        decided = plan(wanted, there, self._owner)
        for conflict in decided.conflicts:
            self._conflicts[conflict.key] = conflict
            _log.warning("conflict", owner=self._owner, server=self._provider.server, detail=str(conflict))
        for batch in batches(decided.changes, self._batch):
            await self._apply(zone, batch)

    async def _apply(self, zone: str, batch: Sequence[Change]) -> None:
        """Apply a batch; if the server refuses something in it for good, everything else of it.

        Who is cancelled meanwhile ends when the server has answered: what is withdrawn after that is not written again.
        """
        try:
            word = await to_its_end(self._provider.apply(zone, self._owner, batch))
        except RecordsRefusedError as error:
            parts = batches(batch, max(1, sum(change.size for change in batch) // 2))
            if len(parts) > 1:
                for part in parts:
                    await self._apply(zone, part)
                return
            for change in batch:
                self._refusals[change.key] = error.detail
            _log.warning("refused", owner=self._owner, server=self._provider.server, zone=zone, detail=error.detail)
        else:
            self._words[zone] = word
            self._written.update(change.key.name for change in batch)
            self._zones[zone].take(self._owner, batch)
            self._figures.wrote(len(batch))
            _log.info(
                "published", owner=self._owner, server=word.server, zone=zone, serial=word.serial, sets=len(batch)
            )

    def _by_zone(self, wanted: Mapping[Key, RecordSet]) -> dict[str, dict[Key, RecordSet]]:
        """Return the wanted sets of each zone that is known, the ones without any too."""
        found: dict[str, dict[Key, RecordSet]] = {zone: {} for zone in self._zones}
        for key, records in wanted.items():
            if zone := zone_of(key.name, found):
                found[zone][key] = records
        return found

    def _receipts(self, services: Iterable[Place], took: Mapping[str, float]) -> dict[Place, Receipt]:
        """Return the receipts of Services, but of none that changed while its records were written: it gets its own."""
        keys = {place: self._wanted.keys_of(place) for place in services}
        wanted = self._wanted.records({key.name for asked in keys.values() for key in asked})
        found = {place: self._receipt(keys[place], wanted, took) for place in keys}
        return {place: receipt for place, receipt in found.items() if receipt}

    def _receipt(
        self, keys: Sequence[Key], wanted: Mapping[Key, RecordSet], took: Mapping[str, float]
    ) -> Receipt | None:
        if conflicts := [self._conflicts[key] for key in sorted(keys) if key in self._conflicts]:
            return in_conflict(conflicts)
        if refusals := {self._refusals[key] for key in keys if key in self._refusals}:
            return refused(sorted(refusals))
        places = {key: zone_of(key.name, self._zones) for key in keys}
        inside = [key for key in keys if places[key]]
        if any(self._zones[places[key]].get(key) != Present(wanted[key], self._owner) for key in inside):
            return None
        seconds = max((took[key.name] for key in keys if key.name in took), default=None)
        words = [self._words[zone] for zone in {places[key] for key in inside}]
        return acknowledged(words, len(inside), len(keys) - len(inside), seconds)
