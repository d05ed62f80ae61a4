"""The prober and its ledger against a real HTTP server that fails on a schedule."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
from aiohttp import web

from haneul.chaos.ledger import INTERVAL
from haneul.chaos.prober import PATIENCE, NodesInTurn, Prober, any_of, at
from haneul.kernel.clock import SystemClock
from haneul.kernel.waiting import wait_for
from tests.ports import port

CLOCK = SystemClock()


@dataclass
class Server:
    """Answers with the next status of its schedule; 0 stands for an answer that never comes, the last goes on."""

    schedule: list[int]
    #: Seconds before each answer.
    late: float = 0.0
    asked: int = 0
    port: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        status = self.schedule[min(self.asked, len(self.schedule) - 1)]
        self.asked += 1
        await asyncio.sleep(10 * PATIENCE if status == 0 else self.late)
        return web.Response(status=status or 200, text="here")


@contextlib.asynccontextmanager
async def serving(*schedule: int) -> AsyncIterator[Server]:
    server = Server(list(schedule))
    application = web.Application()
    application.router.add_get("/hostname", server.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as made:
        yield made


async def asked(server: Server, times: int) -> None:
    async def enough() -> bool:
        return server.asked >= times

    await wait_for(enough, what=f"{times} questions", timeout=30, clock=CLOCK, interval=0.02, max_interval=0.02)


async def test_every_failure_of_the_schedule_is_counted_and_none_else(session: aiohttp.ClientSession) -> None:
    async with serving(200, 200, 500, 503, 500, 200, 404, 200) as server:
        url = f"http://127.0.0.1:{server.port}/hostname"
        async with Prober(clock=CLOCK) as prober:
            ledger = prober.ask("one", any_of(session, lambda: [url]))
            await asked(server, 12)
        tally = ledger.tally()
        assert tally.asked == server.asked
        assert (tally.failed, tally.outages) == (4, 2)
        # Three questions in a row failed: from the first of them to the next good one are at least three intervals.
        assert tally.longest_gap >= 3 * INTERVAL * 0.5
        assert ledger.unbroken_since() < CLOCK.monotonic()


async def test_questions_keep_their_pace_while_others_wait_for_an_answer(session: aiohttp.ClientSession) -> None:
    """A server that holds one answer back is asked on: a stall is as many failures as it has questions."""
    async with serving(200, 0, 0, 0, 200) as server:
        url = f"http://127.0.0.1:{server.port}/hostname"
        async with Prober(clock=CLOCK) as prober:
            ledger = prober.ask("one", any_of(session, lambda: [url]))
            await asked(server, 8)
            # All were asked while the first that is held back still waits.
            assert ledger.tally().failed == 0
        assert ledger.tally().failed == 3


async def test_a_port_where_nobody_listens_is_a_failure(session: aiohttp.ClientSession) -> None:
    nowhere = f"http://127.0.0.1:{port()}/hostname"
    async with Prober(clock=CLOCK) as prober:
        ledger = prober.ask("one", any_of(session, lambda: [nowhere]))

        async def noted() -> bool:
            return ledger.tally().asked > 3

        await wait_for(noted, what="three answers", timeout=60, clock=CLOCK)
    tally = ledger.tally()
    assert tally.failed == tally.asked
    assert tally.outages == 1


async def test_one_node_of_two_is_enough(session: aiohttp.ClientSession) -> None:
    async with serving(500) as broken, serving(200) as whole:
        urls = [f"http://127.0.0.1:{one.port}/hostname" for one in (broken, whole)]
        async with Prober(clock=CLOCK) as prober:
            ledger = prober.ask("both", any_of(session, lambda: urls))
            await asked(whole, 5)
        assert ledger.tally().failed == 0
        assert broken.asked >= 5


def test_nodes_are_asked_in_turn_and_stay_where_they_were_while_nobody_knows() -> None:
    nodes = NodesInTurn(80, ["10.0.0.1", "10.0.0.2"])
    assert nodes.urls() == ["http://10.0.0.1:80/hostname", "http://10.0.0.2:80/hostname"]
    assert nodes.urls()[0] == "http://10.0.0.2:80/hostname"
    nodes.are_at([])
    assert len(nodes.urls()) == 2
    nodes.are_at(["10.0.0.3"])
    assert nodes.urls() == ["http://10.0.0.3:80/hostname"]


async def test_one_address_has_all_the_time_that_a_question_has(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haneul.chaos.prober.PATIENCE", 4.0)
    async with serving(200) as late, serving(200) as other:
        late.late = 2.5
        late_url, other_url = (f"http://127.0.0.1:{server.port}/hostname" for server in (late, other))
        assert await any_of(session, at(late_url))()
        assert other.asked == 0
        assert await any_of(session, at(late_url, other_url))()
        assert other.asked == 1
