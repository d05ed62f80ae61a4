"""The places for a cluster's etcd members, and what is written down of each on its volume. Pure.

A cluster has up to three places, numbered from 0. A place is an address that stays (a Service) and, while a member
is or was there, a volume; the volume's annotations say whose data it holds and how far that member has come, so that
what is known of data is kept and lost with the data's own record. Whoever lost its data comes back as another member:
the folder in the volume is named after the member, and only one that joins may begin with an empty folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from haneul.kernel.kube import Manifest

MOST_MEMBERS: Final = 3
#: Who began the cluster alone. Its folder's name is older than the names after members.
FOUNDER: Final = "founder"
FOUNDERS_FOLDER: Final = "member-data"
MEMBER_ANNOTATION: Final = "dkos.haneul.dev/etcd-member"
STATE_ANNOTATION: Final = "dkos.haneul.dev/etcd-state"

#: Where members answer clients, each other, and programs that speak JSON (only those that joined have a port for it).
CLIENT_PORT: Final = 2379
PEER_PORT: Final = 2380
GATEWAY_PORT: Final = 2382


class SlotState(StrEnum):
    """How far a place's member has come; what is not written down is a founder's."""

    #: It began the cluster, and would begin it anew on an empty disk, as befits a member that is alone.
    FOUNDER = "founder"
    #: There is a volume, and nobody's data yet.
    EMPTY = "empty"
    #: The member is known to the others and may begin with an empty folder; it does not vote.
    LEARNING = "learning"
    #: It has data, and never starts without again; it does not vote.
    SETTLED = "settled"
    #: It votes, and answers the API servers.
    VOTING = "voting"
    #: It is taken out; then its data is deleted.
    LEAVING = "leaving"


#: States whose members answer API servers.
PUBLISHED: Final = frozenset({SlotState.FOUNDER, SlotState.VOTING})
#: States whose members do not vote yet.
JOINING: Final = frozenset({SlotState.LEARNING, SlotState.SETTLED})


@dataclass(frozen=True)
class Slot:
    """One place with a volume: on which host, whose data (``member``: its id in hexadecimal, or the founder)."""

    index: int
    host: str = ""
    state: SlotState = SlotState.FOUNDER
    member: str = FOUNDER

    @property
    def published(self) -> bool:
        """Say whether the member answers API servers."""
        return self.state in PUBLISHED

    @property
    def folder(self) -> str:
        """Return the name of the folder with the member's data."""
        return FOUNDERS_FOLDER if self.member == FOUNDER else self.member

    @property
    def gateway_port(self) -> int:
        """Return the port where the member answers in JSON."""
        return CLIENT_PORT if self.state is SlotState.FOUNDER else GATEWAY_PORT


def member_name(index: int) -> str:
    """Return the name of a place: of its Service, its member, and beyond the first also of its Secret and set."""
    return f"etcd-{index}"


def component_name(index: int) -> str:
    """Return the name of a place's Secret and StatefulSet; the first's are older than the others'."""
    return "etcd" if index == 0 else member_name(index)


def pod_name(index: int) -> str:
    """Return the name of the only pod of a place's StatefulSet."""
    return f"{component_name(index)}-0"


def volume_name(uid: str, index: int) -> str:
    """Return the name of a place's volume."""
    return f"etcd-{uid}-{index}"


def claim_name(index: int) -> str:
    """Return the name of the claim of a place's volume."""
    return f"data-etcd-{index}"


def slot_of(volume: Manifest, host: str) -> Slot:
    """Read a place from its volume, which is bound to ``host``."""
    metadata = volume["metadata"]
    index = int(metadata["name"].rpartition("-")[2])
    kept: Mapping[str, Any] = metadata.get("annotations") or {}
    if STATE_ANNOTATION not in kept:
        return Slot(index, host) if index == 0 else Slot(index, host, SlotState.EMPTY, "")
    return Slot(index, host, SlotState(kept[STATE_ANNOTATION]), kept.get(MEMBER_ANNOTATION, ""))


def written(state: SlotState, member: str) -> dict[str, str]:
    """Return the annotations that say so."""
    return {STATE_ANNOTATION: state.value, MEMBER_ANNOTATION: member}


def in_play(wanted: int, slots: Iterable[Slot]) -> int:
    """Return how many places there are: all as soon as more than one member is wanted, until only the first is left."""
    return MOST_MEMBERS if wanted > 1 or any(slot.index for slot in slots) else 1


def is_spread(wanted: int, slots: Iterable[Slot]) -> bool:
    """Say whether as many API servers run as masters are wanted: from when more than one member answers them."""
    return wanted > 1 and sum(slot.published for slot in slots) > 1


def serving(wanted: int, slots: Iterable[Slot]) -> tuple[int, ...]:
    """Return the places that API servers are told of.

    Of three they know all, also one that is being replaced: its address stays, and nothing answers there until it
    votes. With one master it is the first, as soon as that votes.
    """
    published = [slot.index for slot in slots if slot.published]
    alone = 0 in published and (wanted == 1 or len(published) == 1)
    return (0,) if alone or not published else tuple(range(MOST_MEMBERS))
