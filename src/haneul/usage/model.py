"""The values of usage: what is seen of a cluster, what is kept of its past, and what that amounts to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

HOUR_SECONDS: Final = 3600.0


@dataclass(frozen=True)
class Shape:
    """What a cluster has provisioned; cores in thousandths."""

    nodes: int
    millicores: int
    memory_mib: int


@dataclass(frozen=True)
class Sighting:
    """A cluster as it is now. ``generation`` grows with every change of what it is asked to be."""

    uid: str
    project: str
    cluster: str
    created: datetime
    generation: int
    shape: Shape


@dataclass(frozen=True)
class Span:
    """A time through which a cluster kept one shape: from ``started`` until it was seen last. Uid and start name it."""

    uid: str
    project: str
    cluster: str
    generation: int
    shape: Shape
    started: datetime
    ended: datetime


@dataclass(frozen=True)
class Amount:
    """Time multiplied by what was there: seconds of the cluster itself, of each node, of each thousandth of a core…"""

    cluster_seconds: float = 0.0
    node_seconds: float = 0.0
    millicore_seconds: float = 0.0
    mib_seconds: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.cluster_seconds + other.cluster_seconds,
            self.node_seconds + other.node_seconds,
            self.millicore_seconds + other.millicore_seconds,
            self.mib_seconds + other.mib_seconds,
        )


@dataclass(frozen=True)
class DayUse:
    """What a cluster had on one day (UTC), for days whose spans are not kept any more."""

    uid: str
    project: str
    cluster: str
    day: date
    amount: Amount


class Usage(BaseModel):
    """What a cluster, or all clusters of a project, had in a time. ``cluster`` and ``uid`` are empty for a project."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    project: str
    cluster: str = ""
    uid: str = Field(default="", description="Tells clusters of one name apart that were there one after the other.")
    cluster_hours: float
    node_hours: float
    cpu_core_hours: float
    memory_gib_hours: float
