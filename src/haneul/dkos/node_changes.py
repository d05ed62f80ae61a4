"""Which nodes are changed or taken out next, so that a workload of several replicas never notices. Pure.

What a look may do, by what it sees; of several rows, each for another node, all are done:

====================================================  ===============================================================
a node that …                                         is …
====================================================  ===============================================================
no pool wants, and that runs no pods                  removed
no pool wants, and that may run pods                  marked; then one after the other drained, at most until the
                                                      deadline of each, and removed
is marked, ready, and as it should be                 released
is outdated and never joined                          replaced
is outdated and not ready                             marked, drained for a short while if pods may run on it, and
                                                      replaced, if no other changed node is still to become ready
is outdated and ready                                 marked, drained and replaced, if all others are ready, none is
                                                      marked and none is on its way out; released if that ends before
                                                      it is replaced
====================================================  ===============================================================

So at most one wanted node is down by our own doing, a changed node that does not become ready stops the rest, and what
is broken is mended first, whatever the others do. A ready node that changes its version of Kubernetes has no deadline:
nobody waits for an upgrade as for a setting that is to help at once, so it stops and says what holds the pods
(:func:`stopped`), and goes on by itself once they may move. A node that may not join until a person lets it in holds up
its own pool, whose nodes would wait one after the other, and no other pool. A mark is an annotation of the Node object,
so whoever looks next sees what was begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from haneul.dkos.node_plan import NodeState

#: How long a node's pods are given to move. What is still there then ends with its machine.
DRAIN_LIFE: Final = timedelta(minutes=5)
#: The same for a node that is not ready: its kubelet may be unable to end any pod.
BROKEN_DRAIN_LIFE: Final = timedelta(seconds=30)
#: How long a changed node may take to be ready again before somebody should look at it.
JOIN_LIFE: Final = timedelta(minutes=5)


@dataclass(frozen=True)
class NodeView:
    """One node as it stands: ``pool`` is empty if none wants it, ``marked`` says since when it is being changed."""

    name: str
    pool: str
    state: NodeState
    #: It has a machine.
    made: bool = True
    #: There is a Node object of its name: it, or a machine before it, has joined.
    joined: bool = True
    #: Its machine is made from what it should be made from.
    current: bool = True
    marked: datetime | None = None
    #: It may not join until a person lets it in.
    barred: bool = False
    #: Its version of Kubernetes changes with its machine, so its pods are given all the time that they need.
    patient: bool = False
    #: How long its pods have to move.
    drain_life: timedelta = DRAIN_LIFE
    #: When its machine started.
    started: datetime | None = None
    #: What it waits for, in words.
    message: str = ""
    #: What keeps its pods from moving, in words that do not change all the time.
    held: str = ""

    @property
    def ready(self) -> bool:
        """Say whether it runs pods."""
        return self.state is NodeState.READY

    @property
    def outdated(self) -> bool:
        """Say whether its machine is to be replaced."""
        return bool(self.pool) and self.made and not self.current

    @property
    def leaving(self) -> bool:
        """Say whether it may run pods and no pool wants it."""
        return not self.pool and self.state is not NodeState.EMPTY

    def deadline(self) -> datetime | None:
        """Return until when its pods may stay."""
        if self.marked is None:
            return None
        return self.marked + (self.drain_life if self.ready else BROKEN_DRAIN_LIFE)


class Step(StrEnum):
    """What is done to one node in one look."""

    #: Take note on its Node object, and let no new pods come.
    MARK = "mark"
    #: Ask its pods to move; once none is left, replace it, or remove it if no pool wants it.
    DRAIN = "drain"
    #: Make its machine anew, whatever still runs on it.
    REPLACE = "replace"
    #: Take it out, whatever still runs on it.
    REMOVE = "remove"
    #: Take the mark away, and our cordon with it.
    RELEASE = "release"


@dataclass(frozen=True, order=True)
class Change:
    """One step for one node."""

    node: str
    step: Step


def next_changes(views: Sequence[NodeView], now: datetime) -> tuple[Change, ...]:
    """Return what to do now, by node; at most one change for each."""
    leaving = [view for view in views if view.leaving]
    changes = [Change(view.name, Step.REMOVE) for view in views if not view.pool and not view.leaving]
    changes += _take_out(leaving, now)
    wanted = [view for view in views if view.pool]
    changes += [
        Change(view.name, Step.RELEASE)
        for view in wanted
        if view.marked is not None and view.ready and not view.outdated
    ]
    changes += [Change(view.name, Step.REPLACE) for view in wanted if view.outdated and not view.joined]
    changes += _mend([view for view in wanted if view.outdated and view.joined and not view.ready], wanted, now)
    changes += _roll([view for view in wanted if view.outdated and view.ready], wanted, now, calm=not leaving)
    return tuple(sorted(changes))


def progress(views: Sequence[NodeView]) -> str:
    """Return in words what is being changed and how far that is; nothing if all nodes are as they should be."""
    leaving = ", ".join(_said(view) for view in views if view.leaving)
    parts = [f"removing node {leaving}"] if leaving else []
    wanted = [view for view in views if view.pool]
    unfinished = [view for view in wanted if view.outdated or view.marked is not None]
    if unfinished:
        begun = [view for view in unfinished if view.marked is not None]
        waited = begun or [view for view in wanted if not view.ready]
        nodes = ", ".join(_said(view) for view in waited)
        what = f"changing node {nodes}" if begun else f"changing nodes, waiting for {nodes or 'their turn'}"
        parts.append(f"{what}; {len(wanted) - len(unfinished)} of {len(wanted)} done")
    return "; ".join(parts)


def stopped(views: Sequence[NodeView], now: datetime) -> str:
    """Return in words what holds up a change of version, or any changed node, so that somebody has to look at it."""
    parts = []
    for view in views:
        if not view.pool or view.marked is None:
            continue
        if view.outdated and view.ready and view.patient and _overdue(view, now):
            parts.append(f"node {view.name} cannot be emptied: {view.held or 'its pods do not end'}")
        # A machine that started before is the one that is being replaced.
        began = view.started if view.started and view.started >= view.marked else view.marked + view.drain_life
        if not view.outdated and not view.ready and now >= began + JOIN_LIFE:
            parts.append(f"node {view.name} does not become ready: {view.message or 'nothing more is known'}")
    return "; ".join(parts)


def _said(view: NodeView) -> str:
    return f"{view.name} ({view.message})" if view.message else view.name


def _take_out(leaving: Sequence[NodeView], now: datetime) -> list[Change]:
    """All are closed to new pods at once, so that none moves from one to the next; then each in its turn is drained."""
    changes = []
    turn_taken = False
    for view in sorted(leaving, key=lambda view: view.name):
        if view.marked is None:
            changes.append(Change(view.name, Step.MARK))
        elif _overdue(view, now):
            changes.append(Change(view.name, Step.REMOVE))
        elif not turn_taken:
            turn_taken = True
            changes.append(Change(view.name, Step.DRAIN))
    return changes


def _mend(broken: Sequence[NodeView], wanted: Sequence[NodeView], now: datetime) -> list[Change]:
    """The marked one goes on; the next is begun when no node that was changed is still to become ready."""
    first = min(broken, key=lambda view: (view.marked is None, view.marked or now, view.name), default=None)
    if first is None:
        return []
    under_way = any(view.marked is not None and not view.ready for view in _beside(first, wanted))
    return [] if first.marked is None and under_way else [_next(first, now)]


def _roll(outdated: Sequence[NodeView], wanted: Sequence[NodeView], now: datetime, *, calm: bool) -> list[Change]:
    """The marked one goes on while all others are well, else it is released; if none is marked, the first is begun."""
    held = {view.pool for view in wanted if view.barred}
    ordered = sorted(
        (view for view in outdated if view.marked is not None or view.pool not in held),
        key=lambda view: (view.marked is None, view.marked or now, view.name),
    )
    if not ordered:
        return []
    first, rest = ordered[0], ordered[1:]
    changes = [Change(view.name, Step.RELEASE) for view in rest if view.marked is not None]
    others = _beside(first, wanted)
    if calm and all(view.ready for view in others) and not any(view.marked for view in others):
        changes.append(_next(first, now))
    elif first.marked is not None:
        changes.append(Change(first.name, Step.RELEASE))
    return changes


def _beside(first: NodeView, wanted: Sequence[NodeView]) -> list[NodeView]:
    """Return the wanted nodes that count when one is to be changed."""
    return [view for view in wanted if view is not first and not (view.barred and view.pool != first.pool)]


def _next(view: NodeView, now: datetime) -> Change:
    if view.marked is None:
        return Change(view.name, Step.MARK)
    over = _overdue(view, now) and not (view.patient and view.ready)
    return Change(view.name, Step.REPLACE if view.state is NodeState.EMPTY or over else Step.DRAIN)


def _overdue(view: NodeView, now: datetime) -> bool:
    deadline = view.deadline()
    return deadline is not None and now >= deadline
