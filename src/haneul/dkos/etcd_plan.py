"""What is next until a cluster's etcd has the wanted members, one action at a time. Pure.

What is seen goes in: the places, the member list as a majority of etcd agrees on it, how the pods are. Out comes the
one next action, or what is waited for. Nothing is remembered, so whoever comes after a killed operator goes on; doing
an action twice does no harm.

A place comes to vote through these states (:class:`~haneul.dkos.etcd_slots.SlotState`)::

    (none) --PREPARE--> EMPTY --ADD, ADOPT--> LEARNING --SETTLE--> SETTLED --PROMOTE, PUBLISH--> VOTING

and leaves through ``LEAVE`` (written down first), ``TRANSFER`` if it leads, ``REMOVE``, ``STOP``, ``WIPE``.

Invariants, held by property tests:

- No action leaves etcd without a majority of members that are seen to work.
- The data of a member that votes is deleted only after it was written down that it leaves, and etcd let it go.
- With one master wanted, the first place votes before another one leaves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from haneul.dkos.etcd_slots import FOUNDER, JOINING, MOST_MEMBERS, Slot, SlotState, member_name


@dataclass(frozen=True)
class Member:
    """One entry of etcd's member list; ``address`` is where the others reach it."""

    id: str
    address: str
    learner: bool = False
    started: bool = True


@dataclass(frozen=True)
class Membership:
    """The member list, and who leads; nobody for a moment."""

    members: tuple[Member, ...]
    leader: str = ""


@dataclass(frozen=True)
class Place:
    """One place as it is seen. ``slot`` is None while it has no volume."""

    index: int
    address: str
    slot: Slot | None = None
    #: Its member votes and reaches a majority.
    healthy: bool = False
    #: The program that is wanted now runs, whether or not it votes.
    runs: bool = False
    #: There is something that runs or could run.
    occupied: bool = False
    #: Why its data is given up, in words.
    lost: str = ""


@dataclass(frozen=True)
class Seen:
    """One look at a cluster's etcd. ``membership`` is None if no majority answers."""

    wanted: int
    places: tuple[Place, ...]
    membership: Membership | None
    #: Exactly the API servers run that are wanted now, so none uses a place that it is not told of.
    api_current: bool = True


class Kind(StrEnum):
    """What may be done with a place."""

    PREPARE = "prepare"  # make its volume
    ADD = "add"  # make a member known to the others, which does not vote
    ADOPT = "adopt"  # write down whose place it is
    SETTLE = "settle"  # never let it begin with an empty folder again
    PROMOTE = "promote"  # let it vote
    PUBLISH = "publish"  # let API servers use it
    LEAVE = "leave"  # write down that it leaves
    TRANSFER = "transfer"  # let it lead
    REMOVE = "remove"  # take its member out of the list
    STOP = "stop"  # end its pod
    WIPE = "wipe"  # delete its data, then its volume


@dataclass(frozen=True)
class Action:
    """One thing to do; ``member`` is the id of the member that it is about."""

    kind: Kind
    index: int
    member: str = ""


@dataclass(frozen=True)
class Decision:
    """The next action, if there is one, and what is under way or waited for, in words; nothing if all is as wanted."""

    action: Action | None = None
    words: str = ""


DONE: Final = Decision()
NO_MAJORITY: Final = "waiting for a majority of the etcd members to answer"


def plan(seen: Seen) -> Decision:
    """Return what is next."""
    if is_settled(seen.wanted, [place.slot for place in seen.places if place.slot]) and not _lost(seen):
        return DONE
    membership = seen.membership
    if membership is None:
        return Decision(words=NO_MAJORITY)
    look = _Look(seen, membership)
    for step in (_finish_leaving, _claim_strays, _give_up_lost, _fill, _shrink):
        decision = step(look)
        if decision is not None:
            return decision
    return DONE


def is_settled(wanted: int, slots: Iterable[Slot]) -> bool:
    """Say whether all wanted places vote for good, and there is no other; whether they work is another question."""
    found = {slot.index: slot.state for slot in slots}
    if wanted == 1:
        return found.keys() == {0} and found[0] in (SlotState.FOUNDER, SlotState.VOTING)
    return found == dict.fromkeys(range(wanted), SlotState.VOTING)


def _lost(seen: Seen) -> bool:
    return any(place.lost for place in seen.places)


class _Look:
    """What is seen, with each member of the list at its place."""

    def __init__(self, seen: Seen, membership: Membership) -> None:
        self.seen = seen
        self.membership = membership
        self.wanted = range(seen.wanted)
        self.places = {place.index: place for place in seen.places}
        self.members: dict[int, Member] = {}
        for place in seen.places:
            if member := self._member_of(place):
                self.members[place.index] = member
        owned = {member.id for member in self.members.values()}
        self.strays = [member for member in membership.members if member.id not in owned]

    def _member_of(self, place: Place) -> Member | None:
        if place.slot is None or not place.slot.member:
            return None
        for member in self.membership.members:
            # A founder's id was given by nobody here; its place is where it says it is.
            if member.id == place.slot.member or (
                place.slot.member == FOUNDER and member.address == place.address and not member.learner
            ):
                return member
        return None

    def voters(self) -> list[Member]:
        return [member for member in self.membership.members if not member.learner]

    def works(self, member: Member) -> bool:
        return any(self.members.get(index) == member and place.healthy for index, place in self.places.items())

    def may_lose(self, member: Member) -> bool:
        """Say whether those who stay are a majority of themselves that works."""
        if member.learner:
            return True
        staying = [other for other in self.voters() if other != member]
        return sum(map(self.works, staying)) > len(staying) // 2

    def may_promote(self) -> bool:
        """Say whether one more who works makes a majority of one more."""
        voters = self.voters()
        return sum(map(self.works, voters)) + 1 > (len(voters) + 1) // 2


def _finish_leaving(look: _Look) -> Decision | None:
    for index, place in look.places.items():
        member = look.members.get(index)
        if place.slot is None or place.slot.state is SlotState.EMPTY:
            continue
        if member is None:
            return _clear_away(place, place.slot)
        if place.slot.state is SlotState.LEAVING:
            return _leave(look, place, place.slot, member)
    return None


def _clear_away(place: Place, slot: Slot) -> Decision:
    """What is there of a member that etcd does not know."""
    index, name = place.index, member_name(place.index)
    if slot.state in JOINING:
        return Decision(Action(Kind.LEAVE, index, slot.member), f"{name} begins to join anew")
    if slot.state is not SlotState.LEAVING:
        return Decision(words=f"{name} is not in etcd's member list, though its data is there; look at its log")
    kind = Kind.STOP if place.occupied else Kind.WIPE
    return Decision(Action(kind, index), f"the data of {name} is being deleted")


def _leave(look: _Look, place: Place, slot: Slot, member: Member) -> Decision:
    index, name = place.index, member_name(place.index)
    if not look.may_lose(member):
        if place.healthy and not place.lost:
            return Decision(Action(Kind.PUBLISH, index, slot.member), f"{name} is needed and stays")
        return Decision(words=f"{name} leaves as soon as the others work")
    if member.id == look.membership.leader:
        return _transfer(look, index)
    return Decision(Action(Kind.REMOVE, index, member.id), f"{name} leaves")


def _transfer(look: _Look, away: int) -> Decision:
    """Let somebody else lead first: who asks meanwhile is not kept waiting for an election."""
    words = f"another one leads before {member_name(away)} leaves"
    for index, place in look.places.items():
        if index != away and place.healthy and index in look.members and not look.members[index].learner:
            return Decision(Action(Kind.TRANSFER, index, look.members[index].id), words)
    return Decision(words=words)


def _claim_strays(look: _Look) -> Decision | None:
    """Somebody in the list at a place that does not know it: added a moment before its operator ended, or left over."""
    for member in look.strays:
        place = next((place for place in look.places.values() if place.address == member.address), None)
        if place is None:
            return Decision(words=f"etcd has a member at {member.address or 'no address'} that is not Haneul's")
        name = member_name(place.index)
        empty = place.slot is not None and place.slot.state is SlotState.EMPTY
        if empty and member.learner and not member.started and place.index in look.wanted and not place.lost:
            return Decision(Action(Kind.ADOPT, place.index, member.id), f"{name} joins")
        if not look.may_lose(member):
            return Decision(words=f"a member of etcd at {name} has no data, and too few others work to take it out")
        return Decision(Action(Kind.REMOVE, place.index, member.id), f"a member of etcd without data leaves at {name}")
    return None


def _give_up_lost(look: _Look) -> Decision | None:
    for index, place in look.places.items():
        if not place.lost or place.slot is None or place.slot.state is SlotState.LEAVING:
            continue
        words = f"{member_name(index)} is replaced: {place.lost}"
        member = look.members.get(index)
        if member is None or look.may_lose(member):
            return Decision(Action(Kind.LEAVE, index, place.slot.member), words)
        return Decision(words=f"{member_name(index)} is lost ({place.lost}), and too few others work to replace it")
    return None


def _fill(look: _Look) -> Decision | None:
    """Bring the wanted places, in their order, one step closer to voting."""
    for index in look.wanted:
        place = look.places[index]
        decision = _join(look, place)
        if decision is not None:
            return decision
    first = look.places[0]
    if look.seen.wanted > 1 and first.slot is not None and first.slot.state is SlotState.FOUNDER:
        if all(look.places[index].healthy for index in look.wanted):
            return Decision(Action(Kind.SETTLE, 0, FOUNDER), "etcd-0 gets used to not being alone")
        return Decision(words="waiting for all etcd members to work")
    return None


def _join(look: _Look, place: Place) -> Decision | None:
    index, slot, name = place.index, place.slot, member_name(place.index)
    if slot is None:
        return Decision(Action(Kind.PREPARE, index), f"{name} joins: its volume is made")
    if slot.published:
        return None
    if slot.state is SlotState.EMPTY:
        return Decision(Action(Kind.ADD, index), f"{name} joins")
    return _learn(look, place, slot, look.members[index])


def _learn(look: _Look, place: Place, slot: Slot, member: Member) -> Decision:
    index, name = place.index, member_name(place.index)
    kind, words = None, "waiting for the others to work"
    if slot.state is SlotState.LEARNING:
        kind, words = (Kind.SETTLE, "it has got its data") if member.started else (None, "waiting for it to start")
    elif not place.runs:
        words = "waiting for it to start again"
    elif not member.learner:
        kind, words = Kind.PUBLISH, "it votes"
    elif look.may_promote():
        kind, words = Kind.PROMOTE, "it catches up"
    return Decision(Action(kind, index, slot.member) if kind else None, f"{name} joins: {words}")


def _shrink(look: _Look) -> Decision | None:
    """Take out what is too much, the last first, once nobody uses it and the first place has all data and leads."""
    for index in range(MOST_MEMBERS - 1, look.seen.wanted - 1, -1):
        place = look.places.get(index)
        if place is None or place.slot is None:
            continue
        member, name = look.members.get(index), member_name(index)
        if member is not None and not member.learner:
            if not look.seen.api_current:
                return Decision(words=f"{name} leaves as soon as no API server uses it")
            first = look.members.get(0)
            if first is None or not look.places[0].healthy or not look.may_lose(member):
                return Decision(words=f"{name} leaves as soon as etcd-0 works")
            if look.membership.leader != first.id:
                return Decision(Action(Kind.TRANSFER, 0, first.id), "etcd-0 leads before the others leave")
        return Decision(Action(Kind.LEAVE, index, place.slot.member), f"{name} leaves")
    return None
