"""Accounts of a platform: what is remembered for how long, and what the hub's own tokens are worth meanwhile."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from haneul.d2hub.adapters.memory_platform import MemoryPlatform
from haneul.d2hub.exchange import Reply, Request
from haneul.d2hub.http_auth import ChallengeError, Doorkeeper
from haneul.d2hub.model import Account, Action, Grant, ProjectRole, Standing
from haneul.d2hub.platform_accounts import REMEMBER_SECONDS, PlatformAccounts
from haneul.d2hub.rules import ProjectRules
from haneul.d2hub.sealing import Seal
from haneul.d2hub.tokens import Tokens
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import ForbiddenError, UnauthenticatedError, UnavailableError

BASIC = {"alice": "Basic YWxpY2U6c2VjcmV0"}


class OpenProject:
    """Rules by which everybody may pull from one project."""

    def rules(self, project: str) -> ProjectRules:
        return ProjectRules(public=project == "open")


class NoBody:
    def parts(self) -> AsyncIterator[bytes]:
        raise AssertionError("nothing reads it")


class Hub:
    """A hub's door on a platform in memory."""

    def __init__(self) -> None:
        self.clock = VirtualClock(datetime(2026, 11, 27, tzinfo=UTC))
        self.platform = MemoryPlatform()
        self.platform.tokens["secret"] = Standing("alice", roles={"shop": ProjectRole.DEVELOPER})
        self.accounts = self.process()
        self.tokens = Tokens(b"k" * 32, service="d2hub", clock=self.clock)
        self.door = Doorkeeper(self.tokens, self.accounts, OpenProject())

    def process(self) -> PlatformAccounts:
        """Return the accounts of another process of the same hub."""
        return PlatformAccounts(self.platform, OpenProject(), Seal(b"k" * 32), clock=self.clock)

    async def token(self, *scopes: str, header: str = BASIC["alice"]) -> str:
        query = "&".join(f"scope={scope}" for scope in scopes)
        reply = await self.door.answer(_request("/token", query, {"authorization": header}))
        return str(_document(reply)["token"])

    async def asked(self, token: str, repository: str, *actions: Action) -> Grant | None:
        request = _request(f"/v2/{repository}/tags/list", "", {"authorization": f"Bearer {token}"})
        await self.door.admit(request)
        return self.door.check(request, repository, *actions)


def _request(path: str, query: str, headers: dict[str, str]) -> Request:
    return Request("GET", path, query, headers, NoBody(), client="192.0.2.1:1234")


def _document(reply: Reply) -> Any:
    assert isinstance(reply.content, bytes)
    return json.loads(reply.content)


@pytest.fixture
def hub() -> Hub:
    return Hub()


async def test_an_answer_holds_for_its_time(hub: Hub) -> None:
    for _ in range(3):
        assert await hub.accounts.sign_in("alice", "secret") == Account("alice")
    assert hub.platform.asked == 1
    await hub.clock.sleep(REMEMBER_SECONDS)
    await hub.accounts.sign_in("alice", "secret")
    assert hub.platform.asked == 2


async def test_many_who_ask_at_once_ask_once(hub: Hub) -> None:
    found = await asyncio.gather(*(hub.accounts.sign_in("alice", "secret", client=f"{n}") for n in range(50)))
    assert found == [Account("alice")] * 50
    assert hub.platform.asked == 1


async def test_a_wrong_token_is_not_asked_for_again_at_once(hub: Hub) -> None:
    for _ in range(3):
        assert await hub.accounts.sign_in("alice", "wrong") is None
    assert hub.platform.asked == 1
    hub.platform.tokens["wrong"] = Standing("alice")
    await hub.clock.sleep(5)
    assert await hub.accounts.sign_in("alice", "wrong") == Account("alice")


async def test_while_the_platform_is_away_known_answers_hold_and_then_nobody_gets_in(hub: Hub) -> None:
    alice = await hub.accounts.sign_in("alice", "secret")
    assert alice is not None
    hub.platform.away = True
    await hub.clock.sleep(REMEMBER_SECONDS - 1)
    assert await hub.accounts.sign_in("alice", "secret") == alice
    assert await hub.accounts.again("alice", alice.proof) == alice
    with pytest.raises(UnavailableError):
        await hub.accounts.sign_in("bob", "of bob")
    await hub.clock.sleep(1)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await hub.accounts.sign_in("alice", "secret")
        with pytest.raises(UnavailableError):
            await hub.accounts.again("alice", alice.proof)
    assert await hub.accounts.allowed(None, "open") == {Action.PULL}
    hub.platform.away = False
    assert await hub.accounts.sign_in("alice", "secret") == alice


async def test_a_platform_that_hangs_does_not_gather_questions_without_end(hub: Hub) -> None:
    answers = asyncio.Event()

    class Hanging(MemoryPlatform):
        async def standing(self, secret: str) -> Standing | None:
            await answers.wait()
            return await super().standing(secret)

    platform = Hanging()
    accounts = PlatformAccounts(platform, OpenProject(), Seal(b"k" * 32), clock=hub.clock)
    asking = [asyncio.ensure_future(accounts.sign_in("bob", f"{n}", client=f"{n}")) for n in range(300)]
    refused = 0
    async with asyncio.timeout(60):
        while refused < 100:
            await asyncio.sleep(0)
            refused = sum(one.done() for one in asking)
        answers.set()
        done = await asyncio.gather(*asking, return_exceptions=True)
    assert sum(isinstance(one, UnavailableError) for one in done) == 100
    assert platform.asked == 200
    await accounts.end()


async def test_a_robot_signs_in_without_the_colon_of_its_name(hub: Hub) -> None:
    hub.platform.tokens["of ci"] = Standing("robot:shop/ci", roles={"shop": ProjectRole.DEVELOPER})
    ci = await hub.accounts.sign_in("shop/ci", "of ci")
    assert ci == Account("robot:shop/ci")
    assert await hub.accounts.again("robot:shop/ci", ci.proof) == ci
    assert await hub.accounts.sign_in("ci", "of ci") is None


async def test_auditors_read_everything(hub: Hub) -> None:
    hub.platform.tokens["of eve"] = Standing("eve", auditor=True, roles={"shop": ProjectRole.DEVELOPER})
    eve = await hub.accounts.sign_in("eve", "of eve")
    assert await hub.accounts.allowed(eve, "other") == {Action.PULL}
    assert await hub.accounts.allowed(eve, "shop") == {Action.PULL, Action.PUSH}


async def test_another_process_of_the_hub_knows_what_a_token_stands_for(hub: Hub) -> None:
    alice = await hub.accounts.sign_in("alice", "secret")
    assert alice is not None
    assert await hub.process().again("alice", alice.proof) == alice


async def test_a_revoked_token_ends_the_tokens_that_it_got(hub: Hub) -> None:
    token = await hub.token("repository:shop/web:pull,push")
    assert await hub.asked(token, "shop/web", Action.PULL, Action.PUSH)
    del hub.platform.tokens["secret"]
    await hub.clock.sleep(REMEMBER_SECONDS)
    with pytest.raises(ChallengeError) as refused:
        await hub.asked(token, "shop/web", Action.PULL)
    assert (refused.value.problem, refused.value.scope) == ("invalid_token", "repository:shop/web:pull,push")
    with pytest.raises(UnauthenticatedError):
        await hub.token("repository:shop/web:pull")


async def test_who_leaves_a_project_pushes_there_no_more(hub: Hub) -> None:
    token = await hub.token("repository:shop/web:pull,push")
    hub.platform.tokens["secret"] = Standing("alice", roles={"shop": ProjectRole.VIEWER})
    await hub.clock.sleep(REMEMBER_SECONDS)
    with pytest.raises(ChallengeError):
        await hub.asked(token, "shop/web", Action.PULL, Action.PUSH)
    token = await hub.token("repository:shop/web:pull,push")
    assert await hub.asked(token, "shop/web", Action.PULL)
    with pytest.raises(ForbiddenError):
        await hub.asked(token, "shop/web", Action.PUSH)


async def test_who_is_no_administrator_any_more_does_not_maintain(hub: Hub) -> None:
    hub.platform.tokens["secret"] = Standing("alice", admin=True)
    token = await hub.token("registry:maintenance:*")
    assert await hub.asked(token, "open/web", Action.PULL)
    hub.platform.tokens["secret"] = Standing("alice")
    await hub.clock.sleep(REMEMBER_SECONDS)
    with pytest.raises(ChallengeError):
        await hub.asked(token, "open/web", Action.PULL)


async def test_a_token_asks_nobody_while_an_answer_holds(hub: Hub) -> None:
    token = await hub.token("repository:shop/web:pull")
    for _ in range(100):
        await hub.asked(token, "shop/web", Action.PULL)
    assert hub.platform.asked == 1


async def test_a_token_is_not_let_in_while_nobody_can_say(hub: Hub) -> None:
    token = await hub.token("repository:shop/web:pull")
    hub.platform.away = True
    await hub.clock.sleep(REMEMBER_SECONDS)
    with pytest.raises(UnavailableError):
        await hub.asked(token, "shop/web", Action.PULL)


async def test_a_token_does_not_show_the_one_it_was_given_for(hub: Hub) -> None:
    hub.platform.tokens["haneul_abc_very-secret-text"] = Standing("alice")
    header = base64.b64encode(b"alice:haneul_abc_very-secret-text").decode()
    token = await hub.token("repository:shop/web:pull", header=f"Basic {header}")
    said = b"".join(base64.urlsafe_b64decode(part + "==") for part in token.split("."))
    assert b"very-secret" not in said
    assert len(token) < 4096


def test_another_hubs_seal_does_not_open() -> None:
    sealed = Seal(b"one").close("text")
    assert Seal(b"one").open(sealed) == "text"
    assert Seal(b"other").open(sealed) is None
    assert Seal(b"one").open("no seal") is None
