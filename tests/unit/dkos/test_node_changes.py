"""Which nodes are changed next: the table of the decision, and what holds whatever happens in between."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haneul.dkos.node_changes import (
    BROKEN_DRAIN_LIFE,
    DRAIN_LIFE,
    JOIN_LIFE,
    Change,
    NodeView,
    Step,
    next_changes,
    progress,
    stopped,
)
from haneul.dkos.node_plan import NodeState, node_state
from haneul.dkos.ports import ProvidedNode

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
LATER = NOW + DRAIN_LIFE
WELL = NodeView("a-0", "a", NodeState.READY)
OLD = replace(WELL, current=False)
MARKED = replace(OLD, marked=NOW)
PATIENT = replace(MARKED, patient=True, held="pod default/web-0: its budget")
REPLACED = replace(WELL, state=NodeState.EMPTY, marked=NOW, message="joining again")
BARRED = replace(WELL, state=NodeState.EMPTY, barred=True, joined=False)
LEAVING = NodeView("a-0", "", NodeState.READY)


def named(*views: NodeView) -> tuple[NodeView, ...]:
    return tuple(replace(view, name=f"a-{number}") for number, view in enumerate(views))


@pytest.mark.parametrize(
    ("views", "now", "steps"),
    [
        ((WELL, WELL), NOW, {}),
        ((OLD, OLD, WELL), NOW, {0: Step.MARK}),
        ((OLD, MARKED, WELL), NOW, {1: Step.DRAIN}),
        ((OLD, MARKED, WELL), LATER, {1: Step.REPLACE}),
        ((OLD, replace(MARKED, drain_life=DRAIN_LIFE / 2), WELL), NOW + DRAIN_LIFE / 2, {1: Step.REPLACE}),
        ((OLD, replace(MARKED, drain_life=2 * DRAIN_LIFE), WELL), LATER, {1: Step.DRAIN}),
        # Another version takes the time that it takes.
        ((OLD, PATIENT, WELL), LATER, {1: Step.DRAIN}),
        ((OLD, PATIENT, WELL), LATER + 100 * DRAIN_LIFE, {1: Step.DRAIN}),
        ((OLD, replace(PATIENT, state=NodeState.NOT_READY), WELL), LATER, {1: Step.REPLACE}),
        ((replace(PATIENT, pool=""),), LATER, {0: Step.REMOVE}),
        # What was changed is waited for, then released, and only after that the next one begins.
        ((OLD, REPLACED, WELL), LATER, {}),
        ((OLD, replace(REPLACED, state=NodeState.READY), WELL), NOW, {1: Step.RELEASE}),
        # Another one that is not well stops what is not replaced yet, and what has begun is taken back.
        ((OLD, replace(WELL, state=NodeState.NOT_READY)), NOW, {}),
        ((MARKED, replace(WELL, state=NodeState.EMPTY)), NOW, {0: Step.RELEASE}),
        ((MARKED, MARKED), NOW, {0: Step.RELEASE, 1: Step.RELEASE}),
        # What is broken comes first, whatever the others do.
        ((OLD, replace(OLD, state=NodeState.NOT_READY)), NOW, {1: Step.MARK}),
        ((MARKED, replace(OLD, state=NodeState.EMPTY)), NOW, {0: Step.RELEASE, 1: Step.MARK}),
        ((OLD, replace(MARKED, state=NodeState.EMPTY)), NOW, {1: Step.REPLACE}),
        ((OLD, replace(MARKED, state=NodeState.NOT_READY)), NOW, {1: Step.DRAIN}),
        ((OLD, replace(MARKED, state=NodeState.NOT_READY)), NOW + BROKEN_DRAIN_LIFE, {1: Step.REPLACE}),
        # … one at a time: the next waits until the first one is well.
        ((REPLACED, replace(OLD, state=NodeState.NOT_READY)), LATER, {}),
        # A new node that does not start keeps no broken one from its mend.
        (
            (replace(WELL, state=NodeState.EMPTY, joined=False), replace(OLD, state=NodeState.EMPTY)),
            NOW,
            {1: Step.MARK},
        ),
        # On a node that never joined runs nothing: nothing needs to move.
        ((OLD, replace(OLD, state=NodeState.EMPTY, joined=False)), NOW, {1: Step.REPLACE}),
        # A node that nobody let in yet holds up its own pool, and no other.
        ((OLD, BARRED), NOW, {}),
        ((MARKED, BARRED), NOW, {0: Step.RELEASE}),
        ((OLD, replace(BARRED, pool="b")), NOW, {0: Step.MARK}),
        ((OLD, replace(BARRED, pool="b"), replace(OLD, pool="b")), NOW, {0: Step.MARK}),
        ((replace(OLD, pool="b"), replace(BARRED, pool="b"), OLD), NOW, {2: Step.MARK}),
        ((replace(OLD, state=NodeState.NOT_READY), replace(BARRED, pool="b", marked=NOW)), NOW, {0: Step.MARK}),
        # A change that was taken back before it was carried out.
        ((replace(MARKED, current=True), WELL), NOW, {0: Step.RELEASE}),
        # Out of those that go, no pod moves to the next; they are emptied in turn, and all are gone in time.
        ((LEAVING, LEAVING), NOW, {0: Step.MARK, 1: Step.MARK}),
        ((replace(LEAVING, marked=NOW), replace(LEAVING, marked=NOW)), NOW, {0: Step.DRAIN}),
        ((replace(LEAVING, marked=NOW), replace(LEAVING, marked=NOW)), LATER, {0: Step.REMOVE, 1: Step.REMOVE}),
        ((replace(LEAVING, state=NodeState.EMPTY), OLD), NOW, {0: Step.REMOVE, 1: Step.MARK}),
        ((LEAVING, OLD), NOW, {0: Step.MARK}),
        ((replace(LEAVING, marked=NOW), MARKED), NOW, {0: Step.DRAIN, 1: Step.RELEASE}),
    ],
)
def test_table_of_the_decision(views: tuple[NodeView, ...], now: datetime, steps: dict[int, Step]) -> None:
    expected = tuple(Change(f"a-{number}", step) for number, step in steps.items())
    assert next_changes(named(*views), now) == expected


@pytest.mark.parametrize(
    ("views", "words"),
    [
        ((WELL, WELL), ""),
        ((WELL, replace(MARKED, message="3 pods are still to move"), OLD), "a-1 (3 pods are still to move); 1 of 3"),
        ((WELL, REPLACED, OLD), "changing node a-1 (joining again); 1 of 3 done"),
        ((OLD, replace(WELL, state=NodeState.EMPTY, message="joining")), "waiting for a-1 (joining); 1 of 2 done"),
        ((OLD, OLD), "changing nodes, waiting for their turn; 0 of 2 done"),
        ((LEAVING, WELL), "removing node a-0"),
    ],
)
def test_progress_names_the_node_and_how_far_all_is(views: tuple[NodeView, ...], words: str) -> None:
    assert words in progress(named(*views))
    assert bool(words) == bool(progress(named(*views)))


@pytest.mark.parametrize(
    ("status", "said", "state"),
    [
        ("True", NOW + timedelta(seconds=1), NodeState.READY),
        ("True", NOW, NodeState.EMPTY),
        ("False", NOW - timedelta(seconds=1), NodeState.EMPTY),
        ("False", NOW + timedelta(seconds=1), NodeState.NOT_READY),
        ("Unknown", NOW + timedelta(seconds=1), NodeState.NOT_READY),
    ],
)
def test_what_a_node_said_before_its_machine_started_does_not_count(
    status: str, said: datetime, state: NodeState
) -> None:
    condition = {"type": "Ready", "status": status, "message": "", "lastHeartbeatTime": said.isoformat()}
    machine = ProvidedNode("a-0", "i", running=True, started=NOW)
    assert node_state(machine, {"metadata": {"name": "a-0"}, "status": {"conditions": [condition]}})[0] is state


@dataclass
class Simulation:
    """Machines that do what they are told, or break, and what our own doing has taken down."""

    now: datetime = NOW
    revision: int = 0
    bad: set[int] = field(default_factory=set)
    count: int = 4
    nodes: dict[str, NodeView] = field(default_factory=dict)
    made_from: dict[str, int] = field(default_factory=dict)
    down_by_us: set[str] = field(default_factory=set)

    def views(self) -> tuple[NodeView, ...]:
        wanted = {f"a-{number}" for number in range(self.count)}
        for name in wanted - self.nodes.keys():
            self.nodes[name] = NodeView(name, "a", NodeState.EMPTY, joined=False)
            self.made_from[name] = self.revision
        for name, view in self.nodes.items():
            current = self.made_from[name] == self.revision
            self.nodes[name] = replace(view, pool="a" if name in wanted else "", current=current)
        return tuple(self.nodes.values())

    def look(self, *, drained: bool) -> tuple[Change, ...]:
        views = {view.name: view for view in self.views()}
        changes = next_changes(tuple(views.values()), self.now)
        for change in changes:
            self.carry_out(change, views[change.node], drained=drained)
        return changes

    def carry_out(self, change: Change, view: NodeView, *, drained: bool) -> None:
        match change.step:
            case Step.MARK:
                assert view.joined
                self.nodes[view.name] = replace(view, marked=self.now)
            case Step.RELEASE:
                self.nodes[view.name] = replace(view, marked=None)
            case Step.DRAIN if not drained:
                pass
            case Step.REMOVE | Step.DRAIN if not view.pool:
                del self.nodes[view.name]
                self.down_by_us.discard(view.name)
            case _:
                if view.ready:
                    self.down_by_us.add(view.name)
                self.made_from[view.name] = self.revision
                self.nodes[view.name] = replace(view, state=NodeState.EMPTY)

    def happen(self, event: str, name: str) -> None:
        self.now += timedelta(seconds=20)
        if event in ("good change", "bad change"):
            self.revision += 1
            if event == "bad change":
                self.bad.add(self.revision)
        elif event == "scale":
            self.count = int(name[2:]) + 1
        elif name in self.nodes:
            works = event == "works" and self.made_from[name] not in self.bad
            state = NodeState.READY if works else NodeState.NOT_READY if event == "trouble" else NodeState.EMPTY
            view = self.nodes[name]
            self.nodes[name] = replace(view, state=state, joined=view.joined or state is not NodeState.EMPTY)
            if works:
                self.down_by_us.discard(name)

    def all_work(self) -> None:
        for name in list(self.nodes):
            self.happen("works", name)


_EVENTS = st.tuples(
    st.sampled_from(["works", "works", "works", "dies", "trouble", "good change", "bad change", "scale"]),
    st.sampled_from([f"a-{number}" for number in range(5)]),
    st.booleans(),
)


@settings(max_examples=300)
@given(st.lists(_EVENTS, max_size=60))
def test_never_two_wanted_nodes_are_down_by_our_own_doing_and_all_ends_well(
    events: list[tuple[str, str, bool]],
) -> None:
    world = Simulation()
    world.views()
    world.all_work()
    for event, name, drained in events:
        world.happen(event, name)
        before = {view.name: view for view in world.views()}
        was_down = set(world.down_by_us)
        world.look(drained=drained)
        taken = {name for name in world.down_by_us - was_down if before[name].pool}
        wanted_down = {name for name in world.down_by_us if name in world.nodes and world.nodes[name].pool}
        assert len(wanted_down) <= 1
        if taken:
            assert all(view.ready for view in before.values() if view.pool and view.name not in taken)
    world.happen("good change", "")
    for _ in range(20 * world.count):
        if not world.look(drained=True) and all(view.ready and view.current for view in world.views()):
            break
        world.all_work()
    assert progress(world.views()) == ""
    assert {view.name for view in world.views()} == {f"a-{number}" for number in range(world.count)}


@pytest.mark.parametrize(
    ("view", "now", "words"),
    [
        (PATIENT, LATER - timedelta(seconds=1), ""),
        (PATIENT, LATER, "node a-0 cannot be emptied: pod default/web-0: its budget"),
        (replace(PATIENT, held=""), LATER, "node a-0 cannot be emptied: its pods do not end"),
        # Whoever is not asked to be patient is not held up.
        (MARKED, LATER, ""),
        (replace(PATIENT, state=NodeState.NOT_READY), LATER, ""),
        (replace(PATIENT, pool=""), LATER, ""),
        (REPLACED, LATER, ""),
        (REPLACED, LATER + JOIN_LIFE, "node a-0 does not become ready: joining again"),
        (replace(REPLACED, started=NOW), NOW + JOIN_LIFE, "node a-0 does not become ready: joining again"),
        # What was seen of its machine last is the old one's, which ran for long.
        (replace(REPLACED, started=NOW - 2 * JOIN_LIFE), NOW + timedelta(seconds=1), ""),
        (replace(REPLACED, started=LATER), LATER + JOIN_LIFE - timedelta(seconds=1), ""),
        (replace(REPLACED, marked=None), LATER + JOIN_LIFE, ""),
    ],
)
def test_what_goes_on_only_once_somebody_helps_is_said(view: NodeView, now: datetime, words: str) -> None:
    assert stopped([view, replace(WELL, name="a-1")], now) == words
