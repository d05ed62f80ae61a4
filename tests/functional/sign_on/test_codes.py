"""The authorization code flow: from the browser to tokens, and all that is refused on the way."""

from __future__ import annotations

from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.functional.api.application import ORIGIN, START, Api
from tests.functional.sign_on.browser import LOOPBACK, Person, Program, bearer, hidden, let_in, query_of


async def claims_of(api: Api, token: str) -> Any:
    keys = KeySet.import_key_set((await api.browser().get("/oidc/keys")).json())
    return jwt.decode(token, keys, algorithms=["ES256", "RS256"])


async def test_the_command_line_acts_for_whom_let_it_in(api: Api, alice: Person, cli: Program) -> None:
    tokens = await let_in(alice, cli)
    async with api.browser() as http:
        caller = (await http.get("/api/v1/whoami", headers=bearer(tokens))).json()
    assert (caller["person"], caller["kind"], bool(caller["session"])) == ("alice", "person", True)
    claims = (await claims_of(api, tokens["id_token"])).claims
    now = int(START.timestamp())
    said = {name: claims[name] for name in ("iss", "sub", "aud", "nonce", "iat", "exp", "preferred_username", "groups")}
    assert said == {
        "iss": f"{ORIGIN}/oidc",
        "sub": "alice",
        "aud": "haneul-cli",
        "nonce": "n-1",
        "iat": now,
        "exp": now + 300,
        "preferred_username": "alice",
        "groups": [],
    }
    [session] = await api.call("alice", "GET", "/people/alice/sessions")
    assert (session["client"], session["source"]) == ("haneul-cli", "127.0.0.1")


async def test_a_registered_program_learns_who_it_is_and_does_not_reach_the_api(
    api: Api, alice: Person, wiki: Program
) -> None:
    await api.call("admin", "POST", "/groups", {"name": "writers"}, status=201)
    await api.call("admin", "PUT", "/groups/writers/members/alice", status=204)
    tokens = await let_in(alice, wiki)
    async with api.browser() as http:
        who = (await http.get("/oidc/userinfo", headers=bearer(tokens))).json()
        assert who == {"sub": "alice", "preferred_username": "alice", "name": "alice", "groups": ["writers"]}
        for token in (tokens["access_token"], tokens["id_token"]):
            refused = await http.get("/api/v1/whoami", headers={"Authorization": f"Bearer {token}"})
            assert refused.status_code == 401
        # An ID token is no access token.
        refused = await http.get("/oidc/userinfo", headers={"Authorization": f"Bearer {tokens['id_token']}"})
        assert refused.status_code == 401


async def test_a_program_that_wants_rs256_gets_it(api: Api, alice: Person) -> None:
    body = {"id": "old", "redirectUris": ["https://old.test/cb"], "algorithm": "RS256"}
    made = await api.call("admin", "POST", "/clients", body, status=201)
    tokens = await let_in(alice, Program(api, "old", made["secret"], "https://old.test/cb"))
    assert (await claims_of(api, tokens["id_token"])).header["alg"] == "RS256"
    assert {key["alg"] for key in (await api.browser().get("/oidc/keys")).json()["keys"]} == {"ES256", "RS256"}


async def test_scopes_decide_what_is_told(api: Api, alice: Person, wiki: Program) -> None:
    tokens = await let_in(alice, wiki, scope="openid everything")
    assert tokens["scope"] == "openid"
    who = (await api.browser().get("/oidc/userinfo", headers=bearer(tokens))).json()
    assert who == {"sub": "alice"}


async def test_a_program_may_learn_of_projects(api: Api, alice: Person, wiki: Program) -> None:
    await api.call("bob", "POST", "/projects", {"name": "lab"}, status=201)
    await api.call("admin", "POST", "/groups", {"name": "helpers"}, status=201)
    await api.call("admin", "PUT", "/groups/helpers/members/alice", status=204)
    await api.call("bob", "PUT", "/projects/lab/groups/helpers", {"role": "viewer"})
    tokens = await let_in(alice, wiki, scope="openid projects")
    assert (await claims_of(api, tokens["id_token"])).claims["projects"] == ["lab", "shop"]
    who = (await api.browser().get("/oidc/userinfo", headers=bearer(tokens))).json()
    assert who == {"sub": "alice", "projects": ["lab", "shop"]}
    assert (await api.call("alice", "GET", "/whoami"))["projects"] == ["lab", "shop"]
    # To own every project is to be a member of none.
    assert (await api.call("admin", "GET", "/whoami"))["projects"] == []


async def test_discovery_names_what_there_is(api: Api) -> None:
    async with api.browser() as http:
        found = (await http.get("/oidc/.well-known/openid-configuration")).json()
        assert found["issuer"] == f"{ORIGIN}/oidc"
        for name in ("authorization", "token", "userinfo", "revocation", "device_authorization"):
            path = found[f"{name}_endpoint"].removeprefix(ORIGIN)
            answers = {(await http.request(method, path)).status_code for method in ("GET", "POST")}
            assert 404 not in answers
        [key] = (await http.get(found["jwks_uri"].removeprefix(ORIGIN))).json()["keys"]
        assert (key["kty"], key["alg"], key["use"], "d" in key) == ("EC", "ES256", "sig", False)


BAD_CLIENTS: list[dict[str, str]] = [
    {"client_id": "nobody"},
    {"redirect_uri": "https://evil.test/callback"},
    {"redirect_uri": "http://127.0.0.1:1/other"},
    {"redirect_uri": "http://127.0.0.1.evil.test:1/callback"},
    {"redirect_uri": "http://user@127.0.0.1:1/callback"},
    {"redirect_uri": "http://127.0.0.1:1/callback#x"},
    {"redirect_uri": "http://localhost:1/callback"},
    {"redirect_uri": ""},
]


@pytest.mark.parametrize("changes", BAD_CLIENTS)
async def test_no_code_goes_to_an_address_that_is_not_the_clients(
    alice: Person, cli: Program, changes: dict[str, str]
) -> None:
    page = await alice.browser.get(cli.request(**changes))
    assert (page.status_code, "location" in page.headers) == (400, False)


BAD_REQUESTS: list[tuple[dict[str, str], str]] = [
    ({"response_type": "token"}, "unsupported_response_type"),
    ({"scope": "profile"}, "invalid_scope"),
    ({"code_challenge": ""}, "invalid_request"),
    ({"code_challenge_method": "plain"}, "invalid_request"),
    ({"request_uri": "https://x.test"}, "request_not_supported"),
    ({"response_mode": "fragment"}, "invalid_request"),
    ({"prompt": "none"}, "interaction_required"),
]


@pytest.mark.parametrize(("changes", "error"), BAD_REQUESTS)
async def test_what_is_wrong_otherwise_is_told_to_the_client(
    alice: Person, cli: Program, changes: dict[str, str], error: str
) -> None:
    page = await alice.browser.get(cli.request(**changes))
    assert page.headers["location"].startswith(LOOPBACK)
    answer = query_of(page.headers["location"])
    assert (answer["error"], answer["state"], answer["iss"]) == (error, "s-1", f"{ORIGIN}/oidc")


async def test_a_parameter_that_comes_twice_is_refused(alice: Person, cli: Program) -> None:
    page = await alice.browser.get(cli.request() + "&state=other")
    assert page.status_code == 400


async def test_prompts_and_ages(api: Api, alice: Person, wiki: Program) -> None:
    silent = await alice.browser.get(wiki.request(prompt="none"))
    assert "code" in query_of(silent.headers["location"])
    asked = await alice.browser.get(wiki.request(prompt="login"))
    assert "<h1>Sign on" in asked.text
    api.clock.advance(100)
    assert "<h1>Sign on" in (await alice.browser.get(wiki.request(max_age="99"))).text
    assert (await alice.browser.get(wiki.request(max_age="101"))).status_code == 303
    stranger = await api.browser().get(wiki.request(prompt="none"))
    assert query_of(stranger.headers["location"])["error"] == "login_required"


async def test_a_code_is_for_its_client_its_address_its_verifier_and_a_minute(
    api: Api, alice: Person, wiki: Program, cli: Program
) -> None:
    async def code() -> str:
        return query_of((await alice.browser.get(wiki.request())).headers["location"])["code"]

    assert (await wiki.redeem(await code(), 400, code_verifier="x" * 43))["error"] == "invalid_grant"
    assert (await wiki.redeem(await code(), 400, redirect_uri="https://wiki.test/other"))["error"] == "invalid_grant"
    assert (await cli.redeem(await code(), 400))["error"] == "invalid_grant"
    assert (await wiki.redeem("nonsense", 400))["error"] == "invalid_grant"
    assert (await wiki.redeem(await code(), 400, code_verifier=""))["error"] == "invalid_request"
    late = await code()
    api.clock.advance(61)
    assert (await wiki.redeem(late, 400))["error"] == "invalid_grant"


async def test_a_code_that_comes_twice_ends_what_was_made_of_it(api: Api, alice: Person, wiki: Program) -> None:
    page = await alice.browser.get(wiki.request())
    code = query_of(page.headers["location"])["code"]
    tokens = await wiki.redeem(code)
    assert (await wiki.redeem(code, 400))["error"] == "invalid_grant"
    assert (await wiki.refresh(tokens["refresh_token"], 400))["error"] == "invalid_grant"
    assert (await api.browser().get("/oidc/userinfo", headers=bearer(tokens))).status_code == 401
    record = (await api.call("admin", "GET", "/audit?limit=1"))["items"][0]
    assert (record["action"], "a code came twice" in record["object"]) == ("session.end", True)


async def test_a_client_proves_itself(api: Api, wiki: Program) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "x"}
    for client, secret, status in (
        ("wiki", "wrong", 401),
        ("wiki", "", 401),
        ("no", "x", 401),
        ("wiki", wiki.secret, 400),
    ):
        answer = await api.browser().post("/oidc/token", data=form, auth=(client, secret))
        assert answer.status_code == status
        assert ("www-authenticate" in answer.headers) == (status == 401)
    both = {**form, "client_id": "wiki", "client_secret": wiki.secret}
    twice = await api.browser().post("/oidc/token", data=both, auth=("wiki", wiki.secret))
    assert twice.json()["error"] == "invalid_request"
    plain = await api.browser().post("/oidc/token", json=form)
    assert plain.json()["error"] == "invalid_request"
    assert (await wiki.token(400, grant_type="password"))["error"] == "unsupported_grant_type"


async def test_a_person_may_say_no(alice: Person, cli: Program) -> None:
    page = await alice.browser.get(cli.request())
    answer = await alice.submit(page, "/oidc/confirm", decision="deny")
    assert query_of(answer.headers["location"])["error"] == "access_denied"


async def test_a_public_program_never_gets_in_unseen(alice: Person, cli: Program) -> None:
    page = await alice.browser.get(cli.request())
    assert (page.status_code, "Let the haneul command line in?" in page.text) == (200, True)
    # Another site can bring the browser here, and cannot press the button.
    forged = await alice.browser.post("/oidc/confirm", data={**hidden(page.text), "form": "guess", "decision": "allow"})
    assert (forged.status_code, "location" in forged.headers) == (422, False)


async def test_clients_are_for_administrators_and_their_addresses_exact(api: Api) -> None:
    await api.call("alice", "POST", "/clients", {"id": "mine", "redirectUris": ["https://x.test"]}, status=403)
    for uri in (
        "http://x.test/cb",
        "https://*.x.test/cb",
        "https://x.test/#a",
        "javascript:alert(1)",
        "https://a@x.test",
    ):
        await api.call("admin", "POST", "/clients", {"id": "mine", "redirectUris": [uri]}, status=422)
    await api.call("admin", "POST", "/clients", {"id": "mine", "redirectUris": []}, status=422)
    await api.call("admin", "POST", "/clients", {"id": "haneul-cli", "redirectUris": ["https://x.test"]}, status=409)
    await api.call("admin", "POST", "/clients", {"id": "mine", "redirectUris": ["https://x.test"]}, status=201)
    await api.call("admin", "POST", "/clients", {"id": "mine", "redirectUris": ["https://x.test"]}, status=409)
    assert [client["id"] for client in await api.call("admin", "GET", "/clients")] == ["mine"]
    await api.call("admin", "DELETE", "/clients/mine", status=204)
    await api.call("admin", "DELETE", "/clients/mine", status=404)
