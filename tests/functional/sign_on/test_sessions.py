"""Sessions: how they go on, how they end, and how stolen tokens are noticed."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.functional.api.application import Api
from tests.functional.sign_on.browser import Person, Program, bearer, let_in


async def status(api: Api, tokens: Any) -> int:
    async with api.browser() as http:
        return (await http.get("/api/v1/whoami", headers=bearer(tokens))).status_code


async def test_a_session_goes_on_by_refresh_tokens_that_are_good_once(api: Api, alice: Person, cli: Program) -> None:
    tokens = await let_in(alice, cli)
    api.clock.advance(301)
    assert await status(api, tokens) == 401
    renewed = await cli.refresh(tokens["refresh_token"])
    assert await status(api, renewed) == 200
    assert renewed["refresh_token"] != tokens["refresh_token"]


async def test_a_refresh_token_that_comes_twice_ends_its_session(api: Api, alice: Person, cli: Program) -> None:
    tokens = await let_in(alice, cli)
    other = await let_in(alice, cli)
    renewed = await cli.refresh(tokens["refresh_token"])
    assert (await cli.refresh(tokens["refresh_token"], 400))["error"] == "invalid_grant"
    # Neither the thief nor the owner goes on; the person's other session does.
    assert await status(api, renewed) == 401
    assert (await cli.refresh(renewed["refresh_token"], 400))["error"] == "invalid_grant"
    assert await status(api, other) == 200
    record = (await api.call("admin", "GET", "/audit?limit=1"))["items"][0]
    assert (record["action"], "refresh token came twice" in record["object"]) == ("session.end", True)


async def test_of_two_refreshes_at_once_one_counts(api: Api, alice: Person, cli: Program) -> None:
    tokens = await let_in(alice, cli)
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "client_id": "haneul-cli"}
    async with api.browser() as http:
        answers = await asyncio.gather(*(http.post("/oidc/token", data=form) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400]


async def test_sessions_end_by_themselves(api: Api, alice: Person, cli: Program) -> None:
    idle = await let_in(alice, cli)
    api.clock.advance(24 * 3600 + 1)
    assert (await cli.refresh(idle["refresh_token"], 400))["error"] == "invalid_grant"
    tokens = await let_in(alice, cli)
    for _ in range(7 * 24 // 20):
        api.clock.advance(20 * 3600)
        tokens = await cli.refresh(tokens["refresh_token"])
    api.clock.advance(20 * 3600)
    assert (await cli.refresh(tokens["refresh_token"], 400))["error"] == "invalid_grant"


async def test_a_person_who_is_disabled_loses_everything_at_once_and_for_good(
    api: Api, alice: Person, cli: Program
) -> None:
    tokens = await let_in(alice, cli)
    await api.call("admin", "PATCH", "/people/alice", {"disabled": True})
    assert await status(api, tokens) == 401
    assert (await cli.refresh(tokens["refresh_token"], 400))["error"] == "invalid_grant"
    await api.call("alice", "GET", "/whoami", status=401)
    assert "<h1>Sign on" in (await alice.browser.get(cli.request())).text
    await api.call("admin", "PATCH", "/people/alice", {"disabled": False})
    # What was open stays closed; they sign on anew.
    assert await status(api, tokens) == 401
    assert "<h1>Sign on" in (await alice.browser.get(cli.request())).text
    assert await status(api, await let_in(alice, cli)) == 200


async def test_a_program_gives_its_session_back(api: Api, alice: Person, cli: Program, wiki: Program) -> None:
    tokens = await let_in(alice, cli)
    async with api.browser() as http:
        # Not somebody else's, and no error for what is none.
        foreign = {"token": tokens["refresh_token"], "client_id": "wiki", "client_secret": wiki.secret}
        assert (await http.post("/oidc/revoke", data=foreign)).status_code == 200
        assert await status(api, tokens) == 200
        own = {"token": tokens["refresh_token"], "client_id": "haneul-cli"}
        for _ in range(2):
            assert (await http.post("/oidc/revoke", data=own)).status_code == 200
        assert (await http.post("/oidc/revoke", data={"client_id": "haneul-cli"})).status_code == 400
    assert await status(api, tokens) == 401


async def test_people_see_and_end_their_sessions(api: Api, alice: Person, cli: Program) -> None:
    tokens = await let_in(alice, cli)
    [session] = await api.call("alice", "GET", "/people/alice/sessions")
    await api.call("bob", "GET", "/people/alice/sessions", status=403)
    await api.call("bob", "DELETE", f"/people/alice/sessions/{session['id']}", status=403)
    await api.call("alice", "DELETE", f"/people/alice/sessions/{session['id']}", status=204)
    assert await status(api, tokens) == 401
    assert await api.call("alice", "GET", "/people/alice/sessions") == []
    await api.call("alice", "DELETE", f"/people/alice/sessions/{session['id']}", status=404)


async def test_tokens_that_were_made_up_or_changed_get_nobody_in(api: Api, alice: Person, cli: Program) -> None:
    token = (await let_in(alice, cli))["access_token"]
    header, payload, signature = token.split(".")
    other = (await let_in(alice, cli))["access_token"].split(".")
    none = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0"
    for made in (
        f"{header}.{other[1]}.{signature}",
        f"{none}.{payload}.",
        f"{header}.{payload}.",
        "a.b.c",
        "..",
        "é.é.é",
        f"{'A' * 5000}.b.c",
    ):
        async with api.browser() as http:
            answer = await http.get("/api/v1/whoami", headers=[(b"Authorization", f"Bearer {made}".encode())])
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), made[:40]


async def test_a_program_that_is_removed_has_no_sessions_any_more(api: Api, alice: Person, wiki: Program) -> None:
    tokens = await let_in(alice, wiki)
    async with api.browser() as http:
        assert (await http.get("/oidc/userinfo", headers=bearer(tokens))).status_code == 200
        await api.call("admin", "DELETE", "/clients/wiki", status=204)
        assert (await http.get("/oidc/userinfo", headers=bearer(tokens))).status_code == 401
    # Another program of the name has nothing of the old one's.
    body = {"id": "wiki", "redirectUris": [wiki.redirect]}
    wiki.secret = (await api.call("admin", "POST", "/clients", body, status=201))["secret"]
    assert (await wiki.refresh(tokens["refresh_token"], 400))["error"] == "invalid_grant"
