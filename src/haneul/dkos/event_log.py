"""The port through which events of clusters are kept for a while, and what keeps them in memory."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from haneul.dkos.events import Event, EventType
from haneul.dkos.model import Cluster

#: Events that are kept in memory for one cluster; the oldest go first.
MOST_KEPT: Final = 1000


class EventRecord(BaseModel):
    """An event of a cluster, and how often it happened."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    name: str = Field(description="What tells it from the cluster's other events.")
    type: EventType = Field(description="`Warning` when somebody may have to do something.")
    reason: str = Field(description="Why, in one word for programs.")
    message: str = Field(description="What happened, in words for people.")
    count: int = Field(description="How often it happened.")
    first_seen: datetime = Field(description="When it happened first.")
    last_seen: datetime = Field(description="When it happened last.")


class EventLog(Protocol):
    """Keeps what happened to clusters. What it forgets, and when, is its own business."""

    async def record(self, cluster: Cluster, event: Event, *, times: int, last: datetime) -> None:
        """Note that ``event`` happened ``times`` more, the last time at ``last``. Raises HaneulError."""
        ...

    async def of(self, cluster: Cluster) -> Sequence[EventRecord]:
        """Return what is known of just this cluster, not of an earlier one of its name; newest last."""
        ...


def newest_last(records: Sequence[EventRecord]) -> list[EventRecord]:
    """Return records in the order in which they happened last."""
    return sorted(records, key=lambda record: (record.last_seen, record.first_seen, record.name))


class MemoryEvents:
    """Events in memory."""

    def __init__(self) -> None:
        self._records: dict[str, dict[Event, EventRecord]] = {}
        self._numbers = itertools.count(1)

    async def record(self, cluster: Cluster, event: Event, *, times: int, last: datetime) -> None:
        """Count an event."""
        kept = self._records.setdefault(cluster.uid, {})
        before = kept.pop(event, None)
        kept[event] = EventRecord(
            name=before.name if before else f"event-{next(self._numbers)}",
            type=event.type,
            reason=event.reason,
            message=event.message,
            count=(before.count if before else 0) + times,
            first_seen=before.first_seen if before else last,
            last_seen=last,
        )
        if len(kept) > MOST_KEPT:
            del kept[next(iter(kept))]

    async def of(self, cluster: Cluster) -> Sequence[EventRecord]:
        """Return a cluster's events."""
        return newest_last(list(self._records.get(cluster.uid, {}).values()))
