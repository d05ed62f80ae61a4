"""etcd's members come to what is wanted from wherever they are, and a majority with all data is never given up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haneul.dkos.etcd_plan import DONE, Action, Decision, Kind, Member, Membership, Place, Seen, is_settled, plan
from haneul.dkos.etcd_slots import FOUNDER, PUBLISHED, Slot, SlotState, in_play, is_spread, serving, slot_of, written

PLACES = (0, 1, 2)


def address(index: int) -> str:
    return f"10.0.0.{index}"


@dataclass
class Etcd:
    """What there is of a cluster's etcd: places, members, data, programs. Time stands still."""

    wanted: int = 1
    slots: dict[int, Slot] = field(default_factory=lambda: {0: Slot(0, "host")})
    members: list[Member] = field(default_factory=lambda: [Member("f0", address(0))])
    leader: str = "f0"
    #: Ids of members whose data is whole, and of those whose program runs.
    data: set[str] = field(default_factory=lambda: {"f0"})
    running: set[str] = field(default_factory=lambda: {"f0"})
    occupied: set[int] = field(default_factory=lambda: {0})
    lost: dict[int, str] = field(default_factory=dict)
    #: The last that API servers were told of and use.
    served: tuple[int, ...] = (0,)
    made: int = 0

    def id_at(self, index: int) -> str:
        slot = self.slots.get(index)
        return "" if slot is None else ("f0" if slot.member == FOUNDER else slot.member)

    def voters(self) -> list[Member]:
        return [member for member in self.members if not member.learner]

    def working(self) -> list[Member]:
        at_home = {self.id_at(index) for index in self.slots}
        return [one for one in self.voters() if one.id in self.running and one.id in self.data and one.id in at_home]

    def agrees(self) -> bool:
        return len(self.working()) > len(self.voters()) // 2

    def see(self) -> Seen:
        working = {member.id for member in self.working()} if self.agrees() else set()
        places = tuple(
            Place(
                index,
                address(index),
                self.slots.get(index),
                healthy=self.id_at(index) in working,
                runs=self.id_at(index) in self.running,
                occupied=index in self.occupied,
                lost=self.lost.get(index, ""),
            )
            for index in PLACES
        )
        told = serving(self.wanted, self.slots.values())
        if self.agrees() and self.leader not in working:
            self.leader = min(working)
        membership = Membership(tuple(self.members), self.leader) if self.agrees() else None
        return Seen(self.wanted, places, membership, api_current=self.served == told)

    def move(self) -> None:
        """Let programs start that should, and API servers use what they are told of."""
        for index, slot in self.slots.items():
            known = next((member for member in self.members if member.id == self.id_at(index)), None)
            if slot.state is SlotState.EMPTY or slot.state is SlotState.LEAVING or index in self.lost:
                continue
            self.occupied.add(index)
            if known is None:
                continue
            if slot.state is SlotState.LEARNING and self.agrees():
                self.data.add(known.id)
                self.members[self.members.index(known)] = replace(known, started=True)
            if known.id in self.data:
                self.running.add(known.id)
        told = serving(self.wanted, self.slots.values())
        if all(index in self.slots and self.slots[index].state in PUBLISHED for index in told) or len(told) > 1:
            self.served = told

    def lose(self, index: int) -> None:
        """A member's data is gone; it ends, and never works again."""
        if index in self.slots:
            self.running.discard(self.id_at(index))
            self.data.discard(self.id_at(index))
            self.lost[index] = "its data is gone"

    def do(self, action: Action, *, dies: bool) -> None:
        """Do it; who dies has told etcd, and written nothing down."""
        index = action.index
        slot = self.slots.get(index)
        match action.kind:
            case Kind.PREPARE:
                assert slot is None
                self.slots[index] = Slot(index, "host", SlotState.EMPTY, "")
                self.lost.pop(index, None)
            case Kind.ADD:
                assert not any(member.learner for member in self.members), "etcd takes one learner at a time"
                assert not any(member.address == address(index) for member in self.members)
                self.made += 1
                added = Member(f"a{self.made}", address(index), learner=True, started=False)
                self.members.append(added)
                if not dies:
                    self.slots[index] = Slot(index, "host", SlotState.LEARNING, added.id)
            case Kind.ADOPT:
                self.slots[index] = Slot(index, "host", SlotState.LEARNING, action.member)
            case Kind.SETTLE:
                assert slot is not None
                state = SlotState.VOTING if slot.state is SlotState.FOUNDER else SlotState.SETTLED
                self.slots[index] = replace(slot, state=state)
            case Kind.PROMOTE:
                known = next(member for member in self.members if member.id == action.member)
                assert known.started and known.id in self.data, "only who has all data may vote"
                self.members[self.members.index(known)] = replace(known, learner=False)
            case Kind.PUBLISH | Kind.LEAVE:
                assert slot is not None
                state = SlotState.VOTING if action.kind is Kind.PUBLISH else SlotState.LEAVING
                self.slots[index] = replace(slot, state=state)
            case Kind.TRANSFER:
                assert action.member in {member.id for member in self.working()}
                self.leader = action.member
            case Kind.REMOVE:
                assert action.member != self.leader
                self.members = [member for member in self.members if member.id != action.member]
                self.running.discard(action.member)
            case Kind.STOP:
                self.running.discard(self.id_at(index))
                self.occupied.discard(index)
            case Kind.WIPE:
                assert index not in self.occupied
                self.data.discard(self.id_at(index))
                del self.slots[index]
                self.lost.pop(index, None)


def step(etcd: Etcd, *, dies: bool = False) -> Decision:
    decision = plan(etcd.see())
    if decision.action is not None:
        agreed, kept = etcd.agrees(), {member.id for member in etcd.voters() if member.id in etcd.data}
        etcd.do(decision.action, dies=dies)
        if agreed:
            assert etcd.agrees(), f"{decision.action} gave the majority up"
            voting = {member.id for member in etcd.voters()}
            assert kept & voting <= etcd.data, f"{decision.action} deleted what a member that votes has"
    etcd.move()
    return decision


def settle(etcd: Etcd, *, steps: int = 120) -> None:
    for _ in range(steps):
        if step(etcd) == DONE:
            break
    assert is_settled(etcd.wanted, etcd.slots.values()), (etcd, plan(etcd.see()))


@pytest.mark.parametrize("wanted", [1, 3])
def test_members_become_as_many_as_are_wanted_and_back(wanted: int) -> None:
    etcd = Etcd(wanted=wanted)
    settle(etcd)
    assert len(etcd.voters()) == wanted
    etcd.wanted = 1
    settle(etcd)
    assert [member.id for member in etcd.members] == ["f0"]
    assert etcd.data == {"f0"}


def test_steps_of_the_way_to_three_are_taken_in_order() -> None:
    etcd = Etcd(wanted=3)
    taken = []
    while (decision := step(etcd)) != DONE:
        if decision.action:
            taken.append(f"{decision.action.kind} {decision.action.index}")
    one = ["prepare", "add", "settle", "promote", "publish"]
    assert taken == [f"{kind} {index}" for index in (1, 2) for kind in one] + ["settle 0"]


@pytest.mark.parametrize("index", PLACES)
def test_a_lost_member_is_replaced_by_one_with_another_identity(index: int) -> None:
    etcd = Etcd(wanted=3)
    settle(etcd)
    before = etcd.id_at(index)
    etcd.lose(index)
    settle(etcd)
    assert before not in {member.id for member in etcd.members}
    assert len(etcd.working()) == 3


def test_the_first_place_has_the_data_before_others_leave_even_if_it_was_lost() -> None:
    etcd = Etcd(wanted=3)
    settle(etcd)
    etcd.lose(0)
    etcd.wanted = 1
    settle(etcd)
    assert [member.address for member in etcd.working()] == [address(0)]
    assert etcd.id_at(0) != "f0"


def test_without_a_majority_nothing_is_done() -> None:
    etcd = Etcd(wanted=3)
    settle(etcd)
    etcd.lose(1)
    etcd.lose(2)
    for wanted in (3, 1):
        etcd.wanted = wanted
        decision = plan(etcd.see())
        assert decision.action is None and "majority" in decision.words


def test_a_member_that_leads_gives_that_up_before_it_leaves() -> None:
    etcd = Etcd(wanted=3)
    settle(etcd)
    etcd.leader = etcd.id_at(2)
    etcd.wanted = 1
    etcd.move()
    first = step(etcd)
    assert first.action == Action(Kind.TRANSFER, 0, "f0")
    settle(etcd)


def test_nobody_leaves_while_an_api_server_uses_it() -> None:
    etcd = Etcd(wanted=3)
    settle(etcd)
    etcd.wanted = 1
    decision = plan(etcd.see())
    assert decision.action is None and "no API server uses it" in decision.words


def test_data_of_a_voting_member_that_etcd_does_not_know_is_never_deleted() -> None:
    etcd = Etcd(wanted=3)
    settle(etcd)
    # What answers is an etcd that began anew: it knows nobody but itself.
    etcd.members = [member for member in etcd.members if member.address == address(0)]
    for wanted in (3, 1):
        etcd.wanted = wanted
        etcd.lost = {1: "it does not work"}
        decision = plan(etcd.see())
        assert decision.action is None and "not in etcd's member list" in decision.words


_CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["want 1", "want 3", "lose 0", "lose 1", "lose 2", "lead 0", "lead 1", "lead 2", "go on"]),
        st.integers(0, 12),
        st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(changes=_CHANGES, last=st.sampled_from([1, 3]))
def test_whatever_happens_the_wanted_members_are_there_in_the_end(
    changes: list[tuple[str, int, bool]], last: int
) -> None:
    etcd = Etcd()
    for change, steps, dies in changes:
        verb, _, number = change.partition(" ")
        match verb:
            case "want":
                etcd.wanted = int(number)
            case "lead" if etcd.id_at(int(number)) in {member.id for member in etcd.working()}:
                etcd.leader = etcd.id_at(int(number))
            case "lose" if int(number) in etcd.slots:
                # What a majority cannot get over, nobody can: no more is lost than that.
                mine = etcd.id_at(int(number))
                staying = [member for member in etcd.working() if member.id != mine]
                votes = any(member.id == mine for member in etcd.voters())
                if not votes or len(staying) > len(etcd.voters()) // 2:
                    etcd.lose(int(number))
        for _ in range(steps):
            step(etcd, dies=dies)
    etcd.wanted = last
    settle(etcd)
    assert etcd.agrees() and len(etcd.voters()) == last
    assert {member.address for member in etcd.voters()} == {address(index) for index in range(last)}


def test_what_is_written_on_a_volume_is_read_from_it() -> None:
    for state in SlotState:
        volume = {"metadata": {"name": "etcd-uid-2", "annotations": written(state, "abc")}}
        assert slot_of(volume, "host") == Slot(2, "host", state, "abc")
    assert slot_of({"metadata": {"name": "etcd-uid-0"}}, "host") == Slot(0, "host")
    assert slot_of({"metadata": {"name": "etcd-uid-1"}}, "host") == Slot(1, "host", SlotState.EMPTY, "")


def test_api_servers_are_told_of_who_votes() -> None:
    voting = [Slot(index, "host", SlotState.VOTING, str(index)) for index in PLACES]
    joining = Slot(1, "host", SlotState.SETTLED, "1")
    assert serving(1, [Slot(0)]) == (0,)
    assert serving(3, [Slot(0), joining]) == (0,)
    assert serving(3, [Slot(0), voting[1]]) == PLACES
    assert serving(3, [voting[1], voting[2]]) == PLACES
    assert serving(1, voting) == (0,)
    # Nobody is left alone with a place that has no data.
    assert serving(1, voting[1:]) == PLACES
    assert (in_play(1, [Slot(0)]), in_play(3, [Slot(0)]), in_play(1, [Slot(0), joining])) == (1, 3, 3)
    assert not is_spread(3, [Slot(0), joining]) and is_spread(3, voting[:2]) and not is_spread(1, voting)
