"""Mirrors: names, what is remembered of upstreams, and work that is done once for all who wait."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import cast

import pytest

from haneul.d2hub.errors import (
    BlobUnknownError,
    MirrorReadOnlyError,
    NameUnknownError,
    UpstreamError,
    UpstreamLimitedError,
    UpstreamRefusedError,
    UpstreamWrongError,
)
from haneul.d2hub.flights import Flights
from haneul.d2hub.metrics import MirrorCounts
from haneul.d2hub.mirrors import LONGEST_REST, Mirrors, UpstreamMemory, may_pass
from haneul.d2hub.ports import Upstream
from haneul.d2hub.rules import MirrorRules, ProjectRules
from haneul.kernel.clock import VirtualClock

URL = "https://registry.example.com"


class Decided:
    """Rules that a test changes."""

    def __init__(self, **projects: MirrorRules | None) -> None:
        self.projects = projects

    def rules(self, project: str) -> ProjectRules:
        return ProjectRules(mirror=self.projects.get(project))


class Connection:
    """An upstream that is only connected to and closed."""

    closed = False

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(datetime(2026, 11, 24, tzinfo=UTC))


@pytest.mark.parametrize(
    ("namespace", "repository", "name"),
    [
        ("", "far/team/web", "team/web"),
        ("", "far/web", "web"),
        ("library", "far/web", "library/web"),
        ("library", "far/team/web", "team/web"),
        ("library", "far", ""),
    ],
)
def test_names_at_the_upstream(namespace: str, repository: str, name: str) -> None:
    assert MirrorRules(URL, default_namespace=namespace).upstream_name(repository) == name


async def test_a_project_is_a_mirror_by_its_rules(clock: VirtualClock) -> None:
    made: list[Connection] = []

    def connect(_: MirrorRules) -> Upstream:
        made.append(Connection())
        return cast(Upstream, made[-1])

    decided = Decided(far=MirrorRules(URL))
    mirrors = Mirrors(decided, connect, clock=clock)
    assert mirrors.of("shop/web") is None
    mirrors.refuse_push("shop/web")
    mirror = mirrors.of("far/web")
    assert mirror is not None
    assert mirrors.of("far/other") is mirror
    with pytest.raises(NameUnknownError):
        mirror.upstream_name("far")
    with pytest.raises(MirrorReadOnlyError):
        mirrors.refuse_push("far/web")
    decided.projects["far"] = MirrorRules(URL, default_namespace="library")
    assert mirrors.of("far/web") is not mirror
    assert len(made) == 2
    decided.projects["far"] = None
    assert mirrors.of("far/web") is None
    await mirrors.close()
    assert all(connection.closed for connection in made)


def test_what_failed_is_remembered_for_a_while(clock: VirtualClock) -> None:
    memory = UpstreamMemory(clock)
    memory.failed("a", BlobUnknownError("not there"), 30)
    memory.check("b")
    with pytest.raises(BlobUnknownError, match="not there"):
        memory.check("a")
    clock.advance(30)
    memory.check("a")


def test_an_upstream_that_needs_rest_is_asked_for_nothing(clock: VirtualClock) -> None:
    memory = UpstreamMemory(clock)
    memory.failed("a", UpstreamLimitedError("too many", rest=100), 30)
    clock.advance(60)
    with pytest.raises(UpstreamLimitedError) as caught:
        memory.check("b")
    assert caught.value.rest == 40
    clock.advance(40)
    memory.check("b")
    memory.failed("a", UpstreamLimitedError("too many", rest=1e9), 30)
    clock.advance(LONGEST_REST)
    memory.check("a")


def test_what_may_pass() -> None:
    assert may_pass(UpstreamError("500"))
    assert not may_pass(UpstreamError("not reached", rest=5))
    assert may_pass(UpstreamError("not reached", rest=5), begun=True)
    for final in (UpstreamLimitedError("429"), UpstreamRefusedError("401"), UpstreamWrongError("?")):
        assert not may_pass(final, begun=True)
    assert not may_pass(BlobUnknownError("404"), begun=True)


async def test_who_stops_waiting_ends_the_work_for_nobody() -> None:
    flights: Flights[str, int] = Flights()
    begun, go_on, times = asyncio.Event(), asyncio.Event(), 0

    async def work() -> int:
        nonlocal times
        times += 1
        begun.set()
        await go_on.wait()
        return times

    first = asyncio.ensure_future(flights.join("a", work))
    second = asyncio.ensure_future(flights.join("a", work))
    await begun.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go_on.set()
    assert await second == 1
    assert await flights.join("a", work) == 2


async def test_a_failure_is_everybodys_and_not_kept() -> None:
    flights: Flights[str, int] = Flights()

    async def fail() -> int:
        raise UpstreamError("500")

    async def work() -> int:
        return 1

    failed = await asyncio.gather(*(flights.join("a", fail) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in failed] == [UpstreamError] * 3
    assert await flights.join("a", work) == 1


async def test_the_end_breaks_everything_off() -> None:
    flights: Flights[str, None] = Flights()
    waiting = asyncio.ensure_future(flights.join("a", asyncio.Event().wait))  # type: ignore[arg-type]  # never returns
    await asyncio.sleep(0)
    await flights.end()
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_counts_of_mirrors() -> None:
    counts = MirrorCounts()
    assert counts.lines() == []
    counts.count("tags_moved", "far")
    counts.failed("far", "upstream-wrong")
    counts.received("far", 10)
    counts.received("far", 5)
    assert [line for line in counts.lines() if not line.startswith("#")] == [
        'd2hub_mirror_tags_moved_total{project="far"} 1',
        'd2hub_mirror_failures_total{project="far",code="upstream-wrong"} 1',
        'd2hub_mirror_received_bytes_total{project="far"} 15',
    ]
