"""Members' health where nobody but us asks: when a member turns, who has which slot, and what is noted of members."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.balancer.adapters.health_checking import is_well
from haneul.balancer.adapters.health_verdicts import Standing, judged
from haneul.balancer.adapters.member_notes import Leaving, Notebook, Notes, Target, target_of, targets
from haneul.balancer.adapters.slots import slots
from haneul.balancer.model import Frontend, Frontends, HealthCheck, Listener, Member, Options, Present, Protocol

CHECK = HealthCheck(rise=2, fall=3)


@pytest.mark.parametrize(
    ("answers", "ups"),
    [
        ("+++", "+++"),
        ("--+--+", "++++++"),
        ("---", "++-"),
        ("---+-++", "++----+"),
        ("---++---", "++--+++-"),
    ],
)
def test_when_a_member_turns(answers: str, ups: str) -> None:
    standing, found = Standing(), ""
    for answer in answers:
        standing = judged(standing, answer == "+", CHECK)
        found += "+" if standing.up else "-"
    assert found == ups


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_it_turns_after_just_so_many_answers_in_a_row(answers: list[bool], rise: int, fall: int) -> None:
    standing = Standing()
    for number, good in enumerate(answers):
        before, standing = standing, judged(standing, good, HealthCheck(rise=rise, fall=fall))
        if standing.up is not before.up:
            needed = rise if good else fall
            assert answers[number + 1 - needed : number + 1] == [good] * needed
        assert standing.against < (fall if standing.up else rise)


@given(st.sets(st.integers(1, 60).map(str), min_size=2, max_size=12))
def test_of_slots_only_those_move_that_have_to(names: set[str]) -> None:
    before = sorted(names)
    gone, *after = before
    was, now = slots(before, 128), slots(after, 128)
    for old, new in zip(was, now, strict=True):
        assert before[old] in (gone, after[new])
    assert set(slots(before)) == set(range(len(before)))


WEB, DNS = Listener("192.0.2.1", Protocol.TCP, 80), Listener("192.0.2.1", Protocol.UDP, 53)
ONE, TWO, THREE = (Member(f"10.1.0.{number}", 80) for number in (1, 2, 3))


def there(*frontends: Frontend) -> Frontends:
    return {one.listener: Present(one, "x") for one in frontends}


def test_what_is_noted_of_members() -> None:
    both, less = Frontend(WEB, "a/b", members=(ONE, TWO)), Frontend(WEB, "a/b", members=(TWO, THREE))
    down = frozenset({target_of(both, ONE), target_of(both, TWO)})
    notes = Notes(down).after(there(both), there(less), 7.0)
    assert notes == Notes(frozenset({target_of(both, TWO)}), (Leaving(WEB, ONE, 7.0),))
    assert notes.usable(less) == (THREE,)
    assert notes.after(there(less), there(less), 9.0) == notes, "it has been leaving since it left"
    assert notes.after(there(less), there(both), 9.0).leaving == (Leaving(WEB, THREE, 9.0),)
    assert notes.after(there(less), there(), 9.0) == Notes()
    assert notes.turned({target_of(less, TWO): True, target_of(less, THREE): False}).usable(less) == (TWO,)
    assert notes.without(notes.leaving).leaving == ()


def test_members_of_several_listeners_are_asked_once() -> None:
    other = replace(Frontend(WEB, "a/b", members=(ONE,)), listener=replace(WEB, port=81))
    datagrams = Frontend(DNS, "a/b", members=(ONE,))
    assert len(targets(there(Frontend(WEB, "a/b", members=(ONE, TWO)), other, datagrams))) == 3


def test_notes_outlive_who_wrote_them_and_what_is_none_is_found_out_again(tmp_path: Path) -> None:
    notes = Notes(frozenset({Target(ONE, Protocol.TCP, HealthCheck())}), (Leaving(DNS, TWO, 1.5),))
    Notebook(tmp_path).store(notes)
    assert Notebook(tmp_path).load() == notes
    (tmp_path / "members.json").write_text("{")
    assert Notebook(tmp_path).load() == Notes()


@contextlib.asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[int]:
    """Yield the port of a server that gives everybody this answer, or none, until they go."""
    serving = asyncio.Queue[asyncio.StreamWriter]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        serving.put_nowait(writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        # Whoever asked has gone by now; what served them is to be gone before the loop is.
        async with asyncio.timeout(20):
            await serving.get()
            if answer is None:
                await serving.get()


@pytest.mark.parametrize(
    ("answer", "well"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.0 503 Service Unavailable\r\n\r\n", False),
        (b"SSH-2.0 200\r\n", False),
        (b"x" * 5000, False),
        (b"", False),
    ],
)
async def test_by_http_only_200_is_well(answer: bytes, well: bool) -> None:
    async with answering(answer) as port:
        check = HealthCheck(timeout=20_000, path="/healthz", port=port)
        assert await is_well(Target(Member("127.0.0.1", 1), Protocol.UDP, check)) is well


async def test_whoever_says_nothing_in_time_is_not_well() -> None:
    async with answering(None) as port:
        check = HealthCheck(timeout=100, path="/healthz")
        assert not await is_well(Target(Member("127.0.0.1", port), Protocol.TCP, check))
        assert await is_well(Target(Member("127.0.0.1", port), Protocol.TCP, HealthCheck(timeout=20_000)))


async def test_a_datagram_that_nobody_complains_of_was_taken() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        member = Member("127.0.0.1", silent.getsockname()[1])
        assert await is_well(Target(member, Protocol.UDP, HealthCheck(timeout=200)))
    # Nobody else has this port of this address: it is below those that are given out.
    assert not await is_well(Target(Member("127.99.0.1", 9), Protocol.UDP, HealthCheck(timeout=20_000)))


async def test_nobody_is_there() -> None:
    options = Options(check=HealthCheck(timeout=20_000))
    frontend = Frontend(WEB, "a/b", options, (Member("127.0.0.1", 1),))
    assert not await is_well(target_of(frontend, frontend.members[0]))
