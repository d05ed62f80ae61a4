"""The device flow (RFC 8628)."""

from __future__ import annotations

from typing import Any

from tests.functional.api.application import ORIGIN, Api
from tests.functional.sign_on.browser import Person, Program, bearer, hidden

GRANT = "urn:ietf:params:oauth:grant-type:device_code"


async def start(api: Api) -> Any:
    form = {"client_id": "haneul-cli", "scope": "openid offline_access"}
    answer = await api.browser().post("/oidc/device_authorization", data=form)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def poll(cli: Program, device: Any, status: int = 400) -> Any:
    return await cli.token(status, grant_type=GRANT, device_code=device["device_code"])


async def test_a_person_lets_a_device_in(api: Api, alice: Person, cli: Program) -> None:
    device = await start(api)
    assert (device["interval"], device["expires_in"]) == (5, 600)
    assert (await poll(cli, device))["error"] == "authorization_pending"
    page = await alice.browser.get(device["verification_uri_complete"].removeprefix(ORIGIN))
    assert device["user_code"] in page.text and "127.0.0.1" in page.text
    done = await alice.submit(page, "/oidc/device", decision="allow")
    assert "signed in" in done.text
    api.clock.advance(5)
    tokens = await poll(cli, device, 200)
    async with api.browser() as http:
        assert (await http.get("/api/v1/whoami", headers=bearer(tokens))).json()["person"] == "alice"
    # Good once.
    api.clock.advance(5)
    assert (await poll(cli, device))["error"] == "invalid_grant"


async def test_the_code_may_be_typed_as_people_type(api: Api, alice: Person, cli: Program) -> None:
    device = await start(api)
    page = await alice.browser.get("/oidc/device")
    typed = device["user_code"].lower().replace("-", " ")
    page = await alice.submit(page, "/oidc/device", user_code=typed)
    await alice.submit(page, "/oidc/device", decision="allow")
    await poll(cli, device, 200)


async def test_a_person_refuses_a_device(api: Api, alice: Person, cli: Program) -> None:
    device = await start(api)
    page = await alice.browser.get(device["verification_uri_complete"].removeprefix(ORIGIN))
    assert "refused" in (await alice.submit(page, "/oidc/device", decision="deny")).text
    assert (await poll(cli, device))["error"] == "access_denied"


async def test_who_asks_too_often_is_told_to_slow_down(api: Api, cli: Program) -> None:
    device = await start(api)
    assert (await poll(cli, device))["error"] == "authorization_pending"
    assert (await poll(cli, device))["error"] == "slow_down"
    api.clock.advance(5)
    assert (await poll(cli, device))["error"] == "slow_down"
    api.clock.advance(15)
    assert (await poll(cli, device))["error"] == "authorization_pending"
    api.clock.advance(600)
    assert (await poll(cli, device))["error"] == "expired_token"


async def test_a_code_is_not_guessed(api: Api, alice: Person) -> None:
    page = await alice.browser.get("/oidc/device")
    for _ in range(10):
        answer = await alice.submit(page, "/oidc/device", user_code="BBBB-BBBB")
        assert "No device shows this code" in answer.text
    assert (await alice.submit(page, "/oidc/device", user_code="BBBB-BBBB")).status_code == 429


async def test_nobody_is_let_in_by_another_site_or_without_a_person(api: Api, alice: Person) -> None:
    device = await start(api)
    forged = await alice.browser.post("/oidc/device", data={"user_code": device["user_code"], "decision": "allow"})
    assert forged.status_code == 422
    page = await api.browser().get(device["verification_uri_complete"].removeprefix(ORIGIN))
    assert "<h1>Sign on" in page.text


async def test_only_programs_without_a_secret_are_devices(api: Api, wiki: Program) -> None:
    form = {"client_id": "wiki", "client_secret": wiki.secret, "scope": "openid"}
    answer = await api.browser().post("/oidc/device_authorization", data=form)
    assert answer.json()["error"] == "unauthorized_client"


async def test_a_code_is_not_guessed_by_deciding_at_once_either(api: Api, alice: Person, cli: Program) -> None:
    form = hidden((await alice.browser.get("/oidc/device")).text)
    for _ in range(10):
        answer = await decide(alice, form, "BBBB-BBBB")
        assert answer.status_code == 404
    device = await start(api)
    assert (await decide(alice, form, device["user_code"])).status_code == 429
    assert (await poll(cli, device))["error"] == "authorization_pending"


async def decide(person: Person, form: dict[str, str], user_code: str) -> Any:
    data = {**form, "user_code": user_code, "decision": "allow"}
    return await person.browser.post("/oidc/device", data=data, headers={"Origin": ORIGIN})


async def test_nobody_fills_the_database_with_devices(api: Api) -> None:
    form = {"client_id": "haneul-cli", "scope": "openid"}
    for _ in range(100):
        await start(api)
    assert (await api.browser().post("/oidc/device_authorization", data=form)).status_code == 429
    api.clock.advance(601)
    await start(api)
