"""Sessions: how long they last, keys that rotate, and people who leave."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from haneul.app.auth import make_way, rotated_keys
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import ConflictError, ForbiddenError
from haneul.kernel.openid import OpenIdAccess, OpenIdClient
from haneul.signon.adapters.ended_file import EndedFile
from haneul.signon.adapters.key_file import KeyFile, make_keys, read_keys, rotate_keys
from haneul.signon.adapters.memory import MemoryEnded, MemoryKeys
from haneul.signon.claims import who_of
from haneul.signon.keyring import new_key
from haneul.signon.ports import EndedSessions
from haneul.signon.sessions import Lives, Sessions
from haneul.signon.settings import ProviderSettings
from tests.functional.signon.company import Company, running_company
from tests.functional.signon.gate import START, URL, Gate, cookies, header, running_gate, write_settings

SESSION = "__Secure-haneul-session"
HOURS = 3600


async def test_a_session_ends_after_its_life_however_much_it_is_used(gate: Gate) -> None:
    browser = gate.browser()
    await browser.sign_on()
    for _ in range(19):
        gate.clock.advance(HOURS / 2)
        assert (await browser.ask()).status == 200
    gate.clock.advance(HOURS / 2)
    assert (await browser.ask()).status == 401


async def test_the_provider_is_asked_again_and_what_it_says_counts(gate: Gate) -> None:
    browser = gate.browser()
    await browser.sign_on()
    gate.company.person["groups"] = ["ops"]
    assert (await browser.ask("group:devs")).status == 200
    gate.clock.advance(301)
    refused = await browser.ask("group:devs")
    assert refused.status == 403
    # Its new cookie comes with the next answer that passes, and is good by itself.
    passed = await browser.ask("group:ops")
    assert SESSION in cookies(passed)
    again = await browser.ask("group:ops")
    assert (again.status, cookies(again)) == (200, {})


async def test_who_leaves_is_out_when_the_provider_is_asked_again(gate: Gate) -> None:
    browser = gate.browser()
    await browser.sign_on()
    gate.company.gone.add("1")
    assert (await browser.ask()).status == 200
    gate.clock.advance(301)
    assert (await browser.ask()).status == 401
    # For good: that they come back to the company does not bring the session back.
    gate.company.gone.clear()
    assert (await browser.ask()).status == 401


async def test_a_provider_that_speaks_of_somebody_else_ends_the_session(gate: Gate) -> None:
    browser = gate.browser()
    await browser.sign_on()
    token = gate.company.token
    gate.company.token = lambda **claims: token(**{**claims, "sub": "2"})  # type: ignore[method-assign]
    gate.clock.advance(301)
    assert (await browser.ask()).status == 401


async def test_of_many_requests_at_once_one_asks_and_late_ones_with_the_old_cookie_go_on(gate: Gate) -> None:
    browser = gate.browser()
    await browser.sign_on()
    old = f"{SESSION}={browser.session}"
    gate.clock.advance(301)
    before = gate.company.asked.count("/token")
    answers = await asyncio.gather(*(gate.ask(cookie=old) for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert gate.company.asked.count("/token") == before + 1
    late = await gate.ask(cookie=old)
    assert (late.status, SESSION in cookies(late), gate.company.asked.count("/token")) == (200, True, before + 1)


async def test_while_the_provider_is_away_people_stay_for_a_while(gate: Gate) -> None:
    browser = gate.browser()
    await browser.sign_on()
    gate.company.away = True
    gate.clock.advance(301)
    before = len(gate.company.asked)
    for _ in range(5):
        assert (await browser.ask()).status == 200
    # It is not asked for each request.
    assert len(gate.company.asked) - before <= 2
    gate.clock.advance(15 * 60)
    away = await browser.ask()
    assert away.status == 503
    assert "has not answered for too long" in header(away, "x-haneul-problem")
    gate.company.away = False
    gate.clock.advance(21)
    assert (await browser.ask()).status == 200


async def test_without_a_refresh_token_an_hour_is_all_there_is(gate: Gate) -> None:
    gate.company.gives_refresh_tokens = False
    browser = gate.browser()
    await browser.sign_on()
    gate.clock.advance(HOURS - 1)
    assert (await browser.ask()).status == 200
    gate.clock.advance(1)
    assert (await browser.ask()).status == 401


async def test_keys_rotate_and_sessions_stay(gate: Gate, tmp_path: Path) -> None:
    browser = gate.browser()
    await browser.sign_on()
    first = browser.session
    life = timedelta(hours=10)
    for _ in range(3):
        rotate_keys(tmp_path / "keys", life=life, end_sessions=False, clock=gate.clock)
        gate.clock.advance(120)
    assert (await gate.ask(cookie=f"{SESSION}={first}")).status == 200
    gate.clock.advance(200)
    await browser.ask()
    assert browser.session.partition(".")[0] != first.partition(".")[0]
    assert (await browser.ask()).status == 200


async def test_all_sessions_end_when_their_keys_are_taken_away(gate: Gate, tmp_path: Path) -> None:
    browser = gate.browser()
    await browser.sign_on()
    rotate_keys(tmp_path / "keys", life=timedelta(hours=10), end_sessions=True, clock=gate.clock)
    gate.clock.advance(6)
    assert (await browser.ask()).status == 401


async def test_a_cookie_of_another_gate_is_none(tmp_path: Path, company: Company, clock: VirtualClock) -> None:
    """Even with the same key: the domain is sealed in."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    other = {"url": "https://auth.other.test", "domain": "other.test"}
    async with running_gate(tmp_path / "a", company, clock) as gate:
        (tmp_path / "b" / "keys").write_bytes((tmp_path / "a" / "keys").read_bytes())
        (tmp_path / "b" / "keys").chmod(0o600)
        async with running_gate(tmp_path / "b", company, clock, **other) as foreign:
            browser = gate.browser()
            await browser.sign_on()
            assert (await gate.ask(cookie=browser.cookie)).status == 200
            assert (await foreign.ask(cookie=browser.cookie)).status == 401


async def test_cookies_that_are_none(gate: Gate) -> None:
    browser, other = gate.browser(), gate.browser()
    await browser.sign_on()
    gate.company.person = {**gate.company.person, "sub": "2", "preferred_username": "mallory"}
    await other.sign_on()
    await browser.start()
    good, state = browser.session, next(value for name, value in browser.cookies.items() if "state" in name)
    for value in ("", "x", ".", good[:-4], good + "AAAA", good.replace(".", ".."), "a" * 100_000, state):
        assert (await gate.ask(cookie=f"{SESSION}={value}")).status == 401, value
    # Another host of the domain may add one: somebody shall not work in the name of another unnoticed.
    both = f"{SESSION}={other.session}; {SESSION}={good}"
    assert (await gate.ask(cookie=both)).status == 401
    assert (await gate.ask(cookie=[f"{SESSION}={other.session}", f"{SESSION}={good}"])).status == 401
    # A broken one beside a good one is none.
    assert (await gate.ask(cookie=f"{SESSION}=x; {SESSION}={good}")).status == 200
    assert (await gate.ask(cookie="; ".join([f"{SESSION}=x"] * 50 + [f"{SESSION}={good}"]))).status == 401


async def test_a_gate_that_starts_anew_knows_sessions_and_sign_outs(
    tmp_path: Path, company: Company, clock: VirtualClock
) -> None:
    async with running_gate(tmp_path, company, clock) as gate:
        stays, goes = gate.browser(), gate.browser()
        await stays.sign_on()
        await goes.sign_on()
        gone = goes.session
        await goes.sign_out()
    clock.advance(301)
    async with running_gate(tmp_path, company, clock) as gate:
        assert (await gate.ask(cookie=f"{SESSION}={stays.session}")).status == 200
        assert (await gate.ask(cookie=f"{SESSION}={gone}")).status == 401


async def test_people_of_a_provider_that_is_taken_away_are_out(
    tmp_path: Path, company: Company, clock: VirtualClock
) -> None:
    async with running_gate(tmp_path, company, clock) as gate:
        browser = gate.browser()
        await browser.sign_on()
    async with running_gate(tmp_path, company, clock, provider={"name": "another"}) as gate:
        assert (await gate.ask(cookie=f"{SESSION}={browser.session}")).status == 401


async def test_two_providers_are_chosen_between_and_their_people_told_apart(
    tmp_path: Path, company: Company, clock: VirtualClock
) -> None:
    async with running_company(clock) as partner:
        partner.person = {"sub": "1", "preferred_username": "alice", "groups": ["devs"]}
        write_settings(tmp_path, company.issuer)
        mine: dict[str, Any] = {"name": "company", "issuer": company.issuer, "clientId": "apps"}
        mine |= {"clientSecretFile": "secret", "patienceSeconds": 60}
        theirs = {**mine, "name": "partner", "issuer": partner.issuer, "prefix": "partner:", "title": "The Partner"}
        async with running_gate(tmp_path, company, clock, providers=[mine, theirs]) as gate:
            browser = gate.browser()
            page = await browser.get("/start")
            assert (page.status, "The Partner" in page.body, "provider=company" in page.body) == (200, True, True)
            await browser.get(await browser.start(provider="partner"))
            passed = await browser.ask()
            assert header(passed, "x-haneul-user") == "partner:alice"
            assert (await browser.ask("group:devs person:alice")).status == 403
            assert (await browser.ask("group:partner:devs")).status == 200
            assert (await browser.get("/start?provider=nobody")).status == 422
            # Nobody finishes at one provider what was begun at the other.
            mixed = await gate.browser().start(provider="partner")
            assert (await browser.get(mixed)).status == 401


async def test_the_file_of_keys_is_its_owners_alone(tmp_path: Path, clock: VirtualClock) -> None:
    path = tmp_path / "keys"
    make_keys(path, clock=clock)
    assert path.stat().st_mode & 0o777 == 0o600
    before = read_keys(path)
    make_keys(path, clock=clock)
    assert read_keys(path) == before
    keys = KeyFile("apps.test", path, clock=clock)
    sealed = keys.current().seal("session", b"x", now=clock.now())
    path.chmod(0o640)
    with pytest.raises(ForbiddenError):
        read_keys(path)
    # A gate that runs goes on with what it read.
    clock.advance(10)
    assert keys.current().open("session", sealed) == b"x"
    path.write_text("nonsense\n")
    clock.advance(10)
    assert keys.seen_anew().open("session", sealed) == b"x"


async def test_rotating_by_hand(tmp_path: Path) -> None:
    file = write_settings(tmp_path, "https://id.test")
    assert rotated_keys(file, end_sessions=False) == 2
    assert rotated_keys(file, end_sessions=False) == 3
    assert rotated_keys(file, end_sessions=True) == 1


@pytest.mark.parametrize("kind", ["file", "memory"])
async def test_what_ended_stays_so(tmp_path: Path, clock: VirtualClock, kind: str) -> None:
    now = int(START.timestamp())
    ended: EndedSessions = EndedFile(tmp_path / "ended", clock=clock) if kind == "file" else MemoryEnded()
    assert not ended.ended("a")
    ended.end("a", now + 100)
    ended.end("b", now + 500)
    assert ended.ended("a") and ended.ended("b") and not ended.ended("c")


async def test_gates_of_one_machine_tell_each_other_what_ended(tmp_path: Path, clock: VirtualClock) -> None:
    now = int(START.timestamp())
    one, other = (EndedFile(tmp_path / "ended", clock=clock) for _ in range(2))
    one.end("a", now + 100)
    other.end("b", now + 500)
    clock.advance(2)
    assert one.ended("b") and other.ended("a")
    clock.advance(200)
    # A third one leaves out what has ended by itself; the others notice that the file was begun anew.
    third = EndedFile(tmp_path / "ended", clock=clock)
    assert (tmp_path / "ended").read_text() == f"{now + 500} b\n"
    third.end("c", now + 900)
    clock.advance(2)
    assert one.ended("c") and other.ended("b") and one.ended("b")
    # Half a line, of a process that was killed, is none.
    with (tmp_path / "ended").open("a") as file:
        file.write(f"{now + 900} half")
    clock.advance(2)
    assert not other.ended("half")


async def test_the_memory_of_sessions_is_not_needed_for_serving(
    tmp_path: Path, company: Company, clock: VirtualClock
) -> None:
    """A session is good at any gate that has the keys."""
    settings = ProviderSettings.model_validate(
        {"name": "company", "issuer": company.issuer, "clientId": "apps", "clientSecretFile": "none"}
    )
    keys = MemoryKeys("apps.test", [new_key(START)])
    access = OpenIdAccess("the company", company.issuer, "apps", tmp_path / "secret", ("openid",))
    providers = {"company": (settings, OpenIdClient(access, f"{URL}/callback", clock=clock))}
    one, other = (Sessions(providers, keys, MemoryEnded(), Lives(3600, 300, 900), clock=clock) for _ in range(2))
    session, cookie = one.begin(who_of(settings, company.claims()), "")
    known = await other.known([cookie])
    assert known is not None and (known.session, known.cookie) == (session, "")


async def test_a_taken_socket_is_named(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with pytest.raises(ConflictError):
            make_way(f"unix:{path}")
    # One that nobody listens on was left by a gate that was killed.
    make_way(f"unix:{path}")
    assert not path.exists()
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConflictError):
        make_way(f"127.0.0.1:{taken.getsockname()[1]}")
