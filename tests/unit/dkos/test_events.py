"""What is told of a cluster: which events two looks amount to, and that telling neither waits nor floods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.dkos.adapters.kube_events import event_manifest
from haneul.dkos.event_log import EventRecord, MemoryEvents
from haneul.dkos.event_recorder import BURST, REFILL_SECONDS, WRITE_SECONDS, EventRecorder
from haneul.dkos.events import (
    LONGEST_MESSAGE,
    MEANINGS,
    Event,
    EventType,
    Look,
    Reason,
    certificate_refused,
    event,
    told,
)
from haneul.dkos.model import Cluster, ClusterSpec, ClusterStatus, NodeStatus
from haneul.dkos.states import MasterState, Observation, status_of
from haneul.kernel.clock import SystemClock, VirtualClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.waiting import wait_for

START = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
ROLES = ("etcd", "kube-apiserver")
STARTING = Observation(masters=tuple(MasterState(role, ready=False, message="starting") for role in ROLES))


def masters(**trouble: MasterState) -> tuple[MasterState, ...]:
    return tuple(trouble.get(role.removeprefix("kube-"), MasterState(role, ready=True)) for role in ROLES)


def seen(*nodes: NodeStatus, api: bool = True, wanted: int | None = None, **trouble: MasterState) -> Observation:
    wanted = len(nodes) if wanted is None else wanted
    return Observation(masters=masters(**trouble), api_answers=api, nodes=nodes, wanted_nodes=wanted)


def node(name: str, message: str = "") -> NodeStatus:
    return NodeStatus(name=name, pool="a", ready=not message, message=message)


READY = seen(node("a-0"))


class Life:
    """A cluster that is looked at again and again."""

    def __init__(self) -> None:
        self.last = Look()
        self.generation = 1
        self.machines: dict[str, str] = {}

    def look(self, observation: Observation, seconds: float = 0) -> list[tuple[str, str]]:
        """Return the reasons and messages that a look at this many seconds of life tells."""
        status, at = self.last.status, START + timedelta(seconds=seconds)
        cluster = Cluster(
            project="shop",
            name="web",
            uid="uid-1",
            generation=self.generation,
            created=START,
            spec=ClusterSpec(),
            status=status,
        )
        look = Look(status_of(cluster, observation, at), observation.masters, dict(self.machines), at)
        events, self.last = told(self.last, look), look
        return [(entry.reason, entry.message) for entry in events]


@pytest.fixture
def life() -> Life:
    return Life()


@pytest.fixture
def ready(life: Life) -> Life:
    life.look(READY)
    return life


def reasons(events: Sequence[tuple[str, str]]) -> list[str]:
    return [reason for reason, _ in events]


def test_a_creation_is_told_step_by_step(life: Life) -> None:
    assert life.look(STARTING) == [("SpecAccepted", "the spec can be carried out; the masters are being made")]
    assert life.look(STARTING, 1) == []
    assert life.look(seen(node("a-0", "joining"), api=False), 2) == [("MastersReady", "all masters are ready")]
    assert life.look(seen(node("a-0", "joining")), 3) == [("ApiAnswers", "the API server answers")]
    assert life.look(READY, 4) == [
        ("NodeReady", "node a-0 is ready"),
        ("ClusterReady", "the cluster is ready for the first time"),
    ]
    assert life.look(READY, 5) == []


def test_a_refused_spec_is_told_once_for_each_reason(life: Life) -> None:
    refused = Observation(problem="version: not built here")
    assert life.look(refused) == [("SpecRefused", "the spec cannot be carried out: version: not built here")]
    assert life.look(refused, 120) == []
    assert reasons(life.look(Observation(problem="something else"), 121)) == ["SpecRefused"]


def test_a_spec_that_becomes_wrong_takes_no_node_and_no_master_away(ready: Life) -> None:
    assert reasons(ready.look(Observation(problem="no"), 5)) == ["SpecRefused"]


def test_masters_that_die_are_told_with_what_happened(ready: Life) -> None:
    dead = MasterState("etcd", ready=False, message="CrashLoopBackOff: back-off 10s", restarts=1, ended="exit code 2")
    assert ready.look(seen(node("a-0"), api=False, etcd=dead), 5) == [
        ("MasterRestarted", "etcd ended (exit code 2) and was started again"),
        ("MasterFailing", "etcd cannot start: CrashLoopBackOff: back-off 10s"),
        ("MastersNotReady", "waiting for etcd (CrashLoopBackOff: back-off 10s)"),
        ("ApiSilent", "waiting for the API server to answer"),
    ]
    longer = MasterState("etcd", ready=False, message="CrashLoopBackOff: back-off 20s", restarts=1)
    assert ready.look(seen(node("a-0"), api=False, etcd=longer), 6) == []
    assert reasons(ready.look(READY, 9)) == ["MastersReady", "ApiAnswers", "ClusterReady"]


def test_a_master_that_needed_too_much_memory_is_told_though_it_is_back(ready: Life) -> None:
    back = MasterState("kube-apiserver", ready=True, restarts=1, ended="OOMKilled")
    assert ready.look(seen(node("a-0"), apiserver=back), 5) == [
        ("MasterOutOfMemory", "kube-apiserver ran out of memory and was started again")
    ]
    assert ready.look(seen(node("a-0"), apiserver=back), 6) == []


def test_a_process_that_looks_for_the_first_time_tells_of_no_old_restarts(ready: Life) -> None:
    ready.last = Look(ready.last.status)
    back = MasterState("kube-apiserver", ready=True, restarts=7, ended="OOMKilled")
    assert ready.look(seen(node("a-0"), apiserver=back), 5) == []


def test_masters_that_find_no_place_are_told(life: Life) -> None:
    full = MasterState("etcd", ready=False, message="0/1 nodes are available: 1 Insufficient memory.")
    assert life.look(seen(api=False, etcd=full))[1] == (
        "MasterFailing",
        "etcd cannot start: 0/1 nodes are available: 1 Insufficient memory.",
    )


def test_a_node_that_dies_and_its_new_machine_are_told(ready: Life) -> None:
    ready.machines = {"a-0": "one"}
    assert ready.look(READY, 5) == []
    assert ready.look(seen(node("a-0", "its machine is being made")), 6) == [
        ("NodeNotReady", "node a-0 is not ready: its machine is being made")
    ]
    ready.machines = {"a-0": "two"}
    assert ready.look(seen(node("a-0", "joining")), 7) == [
        ("NodeReplaced", "node a-0 has a new machine; what was on the old one's disk is gone")
    ]
    assert reasons(ready.look(READY, 8)) == ["NodeReady", "ClusterReady"]


def test_scaling_is_told(ready: Life) -> None:
    ready.generation = 2
    assert reasons(ready.look(seen(node("a-0"), node("a-1", "joining")), 5)) == ["SpecChanged"]
    assert reasons(ready.look(seen(node("a-0"), node("a-1")), 6)) == ["NodeReady", "ClusterReady"]
    ready.generation = 3
    assert ready.look(READY, 7) == [
        ("SpecChanged", "the spec was changed; the cluster is brought to what is asked for now"),
        ("NodeDropped", "node a-1 is taken out: no pool wants it any more"),
        ("ClusterReady", "the cluster is again all that is asked for"),
    ]


def test_who_waits_long_hears_what_for(life: Life) -> None:
    waiting = seen(node("a-0", "joining"))
    life.look(waiting)
    assert life.look(waiting, 59) == []
    words = "0 of 1 nodes ready; waiting for a-0 (joining)"
    first = "waiting for the network of the first node"
    assert life.look(waiting, 61) == [("StillWaiting", f"for more than a minute: {first}")]
    assert life.look(waiting, 62) == []
    assert life.look(waiting, 301) == [("StillWaiting", f"for more than 5 minutes: {first}")]
    assert life.look(waiting, 1801) == [("StillWaiting", f"for more than 30 minutes: {first}")]
    assert life.look(waiting, 9000) == []
    # A new process does not know what was told, and tells the longest alone.
    life.last = Look(life.last.status)
    assert life.look(waiting, 9001) == [("StillWaiting", f"for more than 30 minutes: {first}")]
    assert words not in first


def test_messages_are_one_printable_line_of_bounded_length() -> None:
    name = "\x1b[31mroot\x1b[0m\nfake line " + "ü" * 3000
    refused = certificate_refused("haneul:eve", f"no pool of this cluster announced a node named {name}")
    assert refused.message.isprintable()
    assert len(refused.message.encode()) <= LONGEST_MESSAGE
    assert refused.message.startswith("haneul:eve got no certificate of a node: no pool")
    assert refused.type is EventType.WARNING


@given(st.text())
def test_whatever_is_said_can_be_printed_and_kept(text: str) -> None:
    said = event(Reason.NODE_NOT_READY, text).message
    assert (said.isprintable(), len(said.encode()) <= LONGEST_MESSAGE) == (True, True)


def test_every_reason_has_a_meaning_and_stays_a_word() -> None:
    assert set(MEANINGS) == set(Reason)
    for reason, (kind, when, what_to_do) in MEANINGS.items():
        assert reason.value.isalpha() and reason.value[0].isupper()
        assert when and (kind is EventType.WARNING or not what_to_do)


def test_events_as_kubernetes_gets_them(native: Cluster, golden: Callable[[str, object], None], now: datetime) -> None:
    once = event_manifest(native, event(Reason.NODE_READY, "node default-0 is ready"), times=1, last=now)
    often = event_manifest(native, certificate_refused("haneul:eve", "no"), times=3, last=now)
    golden("events.yaml", [once, often])


# Telling.

CLUSTER = Cluster(project="shop", name="web", uid="uid-1", generation=1, created=START, spec=ClusterSpec())
SILENT = event(Reason.API_SILENT, "waiting for the API server to answer")


class Counting(MemoryEvents):
    """Counts writes, and fails as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.error: Exception | None = None

    async def record(self, cluster: Cluster, event: Event, *, times: int, last: datetime) -> None:
        self.writes += 1
        if self.error:
            raise self.error
        await super().record(cluster, event, times=times, last=last)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START)


@pytest.fixture
def log() -> Counting:
    return Counting()


@pytest.fixture
def recorder(log: Counting, clock: VirtualClock) -> EventRecorder:
    return EventRecorder(log, clock=clock)


async def test_what_flaps_is_counted_and_seldom_written(
    recorder: EventRecorder, log: Counting, clock: VirtualClock
) -> None:
    for _ in range(600):
        recorder.tell(CLUSTER, SILENT)
        clock.advance(0.1)
        await recorder.write_due()
    clock.advance(WRITE_SECONDS)
    await recorder.write_due()
    (found,) = await log.of(CLUSTER)
    assert (found.count, found.first_seen) == (600, START)
    assert log.writes <= 60 / WRITE_SECONDS + 2


async def test_different_events_of_one_cluster_are_bounded_and_no_other_cluster_s_are(
    recorder: EventRecorder, log: Counting, clock: VirtualClock
) -> None:
    def flood(number: int) -> Event:
        return certificate_refused("eve", f"no pool of this cluster announced a node named n-{number}")

    for number in range(10 * BURST):
        recorder.tell(CLUSTER, flood(number))
    other = CLUSTER.model_copy(update={"uid": "uid-2"})
    recorder.tell(other, SILENT)
    await recorder.write_due()
    assert (len(await log.of(CLUSTER)), len(await log.of(other))) == (BURST, 1)
    # What is known is still counted, and time brings room for something new.
    clock.advance(REFILL_SECONDS)
    recorder.tell(CLUSTER, flood(0))
    recorder.tell(CLUSTER, SILENT)
    await recorder.write_due()
    assert len(await log.of(CLUSTER)) == BURST + 1


@pytest.mark.parametrize("error", [UnavailableError("nobody answers"), TimeoutError(), ValueError("a surprise")])
async def test_what_cannot_be_written_ends_nothing_and_is_given_up(
    recorder: EventRecorder, log: Counting, clock: VirtualClock, error: Exception
) -> None:
    log.error = error
    recorder.tell(CLUSTER, SILENT)
    for _ in range(10):
        await recorder.write_due()
        clock.advance(WRITE_SECONDS)
    assert 1 <= log.writes <= 3
    log.error = None
    recorder.tell(CLUSTER, SILENT)
    await recorder.write_due()
    assert [found.count for found in await log.of(CLUSTER)] == [1]


async def test_a_failed_write_is_made_up_for(recorder: EventRecorder, log: Counting, clock: VirtualClock) -> None:
    log.error = UnavailableError("nobody answers")
    recorder.tell(CLUSTER, SILENT)
    await recorder.write_due()
    log.error = None
    recorder.tell(CLUSTER, SILENT)
    clock.advance(WRITE_SECONDS)
    await recorder.write_due()
    assert [found.count for found in await log.of(CLUSTER)] == [2]


async def test_a_running_recorder_writes_what_is_told_without_being_asked(log: Counting) -> None:
    recorder = EventRecorder(log, clock=SystemClock())
    task = asyncio.create_task(recorder.run())
    found: Sequence[EventRecord] = ()

    async def written() -> bool:
        nonlocal found
        found = await log.of(CLUSTER)
        return len(found) == 2

    recorder.tell(CLUSTER, SILENT)
    await asyncio.sleep(0)
    recorder.tell(CLUSTER, event(Reason.API_ANSWERS, "the API server answers"))
    try:
        await wait_for(written, what="both events", timeout=30, interval=0.01, clock=SystemClock())
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert {entry.reason for entry in found} == {"ApiSilent", "ApiAnswers"}


def test_statuses_of_nobody_tell_nothing() -> None:
    assert told(Look(), Look(ClusterStatus())) == []
