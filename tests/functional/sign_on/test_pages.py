"""The sign-on pages: secrets, limits, and what other sites cannot do."""

from __future__ import annotations

import asyncio

import pytest

from haneul.identity.secrets import SecretHasher
from tests.functional.api.application import ORIGIN, Api
from tests.functional.sign_on.browser import OWN_SECRET, Person, Program, hidden


async def test_pages_load_nothing_and_are_framed_by_nobody(api: Api, cli: Program) -> None:
    page = await api.browser().get(cli.request())
    policy = page.headers["content-security-policy"]
    assert policy == (
        "default-src 'none'; style-src 'self'; form-action 'self' http://127.0.0.1:45123; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    assert (page.headers["cache-control"], page.headers["x-frame-options"]) == ("no-store", "DENY")
    assert "<script" not in page.text
    [cookie] = page.headers.get_list("set-cookie")
    assert cookie.startswith("__Host-haneul-form=") and "HttpOnly" in cookie and "Secure" in cookie
    assert "SameSite=strict" in cookie
    style = await api.browser().get("/oidc/style.css")
    assert style.headers["content-type"].startswith("text/css")


async def test_what_people_send_is_shown_as_text(api: Api) -> None:
    page = await api.browser().get("/oidc/device?user_code=%22%3E%3Cscript%3E")
    assert "<script" not in page.text
    person = Person(api, "alice")
    page = await person.browser.get("/oidc/device")
    answer = await person.submit(page, "/oidc/sign-on", person='"><b>', secret="x", query='"><b>')
    assert "<b>" not in answer.text


async def test_a_secret_that_was_made_for_somebody_is_good_once_and_for_three_days(api: Api) -> None:
    made = await api.call("admin", "POST", "/people/bob/sign-on-secret", status=201)
    bob = Person(api, "bob")
    page = await bob.browser.get("/oidc/device")
    page = await bob.submit(page, "/oidc/sign-on", person="bob", secret=made["secret"])
    # Knowing it is not enough to be in.
    assert "<h1>Sign on" in (await bob.browser.get("/oidc/device")).text
    api.clock.advance(3 * 86400)
    answer = await bob.submit(page, "/oidc/secret", secret=made["secret"], new=OWN_SECRET, again=OWN_SECRET)
    assert answer.status_code == 401


async def test_a_chosen_secret_is_a_good_one(api: Api) -> None:
    made = await api.call("admin", "POST", "/people/bob/sign-on-secret", status=201)
    bob = Person(api, "bob")
    page = await bob.browser.get("/oidc/device")
    page = await bob.submit(page, "/oidc/sign-on", person="bob", secret=made["secret"])
    for new, again in (
        ("short", "short"),
        ("a" * 20, "a" * 20),
        ("bob and more bob", "bob and more bob"),
        (made["secret"], made["secret"]),
        (OWN_SECRET, "another one, by mistake"),
    ):
        answer = await bob.submit(page, "/oidc/secret", secret=made["secret"], new=new, again=again)
        assert answer.status_code == 422, new
    answer = await bob.submit(page, "/oidc/secret", secret=made["secret"], new=OWN_SECRET, again=OWN_SECRET)
    assert answer.status_code == 303
    answer = await bob.submit(page, "/oidc/secret", secret=made["secret"], new=OWN_SECRET + "!", again=OWN_SECRET + "!")
    assert answer.status_code == 401


async def test_wrong_secrets_are_slowed_down_and_the_right_one_waits_too(api: Api, alice: Person) -> None:
    other = Person(api, "alice")
    page = await other.browser.get("/oidc/device")
    for _ in range(5):
        assert (await other.sign_on(page, "wrong")).status_code == 401
    assert (await other.sign_on(page, OWN_SECRET)).status_code == 429
    # Whoever is in stays in.
    assert "Let a device in" in (await alice.browser.get("/oidc/device")).text
    api.clock.advance(301)
    assert "Let a device in" in (await other.sign_on(page, OWN_SECRET)).text


async def test_many_names_from_one_address_are_slowed_down(api: Api) -> None:
    browser = Person(api, "x")
    page = await browser.browser.get("/oidc/device")
    answers = []
    for number in range(31):
        browser.name = f"name{number}"
        answers.append((await browser.sign_on(page, "wrong")).status_code)
    assert answers == [401] * 30 + [429]


async def test_the_answer_does_not_tell_who_there_is(api: Api, alice: Person) -> None:
    texts = []
    for name in ("alice", "nobody", "bob"):
        person = Person(api, name)
        page = await person.browser.get("/oidc/device")
        answer = await person.sign_on(page, "wrong")
        texts.append(answer.text.replace(hidden(answer.text)["form"], ""))
    assert len(set(texts)) == 1


async def test_forms_of_other_sites_are_refused(api: Api) -> None:
    person = Person(api, "alice")
    page = await person.browser.get("/oidc/device")
    fields = {**hidden(page.text), "person": "alice", "secret": OWN_SECRET}
    for data, origin in ((fields, "https://evil.test"), (fields, "null"), ({**fields, "form": "guess"}, ORIGIN)):
        answer = await person.browser.post("/oidc/sign-on", data=data, headers={"Origin": origin})
        assert answer.status_code == 422
    answer = await api.browser().post("/oidc/sign-on", data=fields, headers={"Origin": ORIGIN})
    assert answer.status_code == 422


async def test_signing_on_leads_nowhere_else(api: Api, alice: Person) -> None:
    await alice.submit(await alice.browser.get("/oidc/device"), "/oidc/sign-off")
    page = await alice.browser.get("/oidc/device")
    answer = await alice.submit(page, "/oidc/sign-on", person="alice", secret=OWN_SECRET, page="//evil.test", query="")
    assert answer.headers["location"] == "/oidc/device"


async def test_signing_off_ends_the_browser(api: Api, alice: Person, cli: Program) -> None:
    stolen = dict(alice.browser.cookies)
    answer = await alice.submit(await alice.browser.get("/oidc/device"), "/oidc/sign-off")
    assert "Signed off" in answer.text
    async with api.browser() as thief:
        for name, value in stolen.items():
            thief.cookies.set(name, value)
        assert "<h1>Sign on" in (await thief.get("/oidc/device")).text


async def test_a_new_secret_from_the_administrator_signs_browsers_off(api: Api, alice: Person) -> None:
    await api.call("admin", "POST", "/people/alice/sign-on-secret", status=201)
    assert "<h1>Sign on" in (await alice.browser.get("/oidc/device")).text
    await api.call("admin", "DELETE", "/people/alice/sign-on-secret", status=204)
    await api.call("admin", "DELETE", "/people/alice/sign-on-secret", status=404)
    await api.call("admin", "POST", "/people/nobody/sign-on-secret", status=404)
    await api.call("alice", "POST", "/people/alice/sign-on-secret", status=403)


async def test_signing_on_and_failing_to_is_on_record(api: Api, alice: Person) -> None:
    other = Person(api, "alice")
    await other.sign_on(await other.browser.get("/oidc/device"), "wrong")
    await other.sign_on(await other.browser.get("/oidc/device"))
    records = (await api.call("admin", "GET", "/audit?person=alice&limit=2"))["items"]
    assert [(record["action"], record["result"]) for record in records] == [
        ("browser.sign-on", "done"),
        ("browser.sign-on", "refused: unauthenticated"),
    ]


async def test_a_secret_that_is_taken_away_while_another_is_chosen_stays_away(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await api.call("admin", "POST", "/people/bob/sign-on-secret", status=201)
    bob = Person(api, "bob")
    page = await bob.browser.get("/oidc/device")
    page = await bob.submit(page, "/oidc/sign-on", person="bob", secret=made["secret"])
    hash_secret, loop = SecretHasher.hash, asyncio.get_running_loop()

    def meanwhile(hasher: SecretHasher, secret: str) -> str:
        if secret == OWN_SECRET:
            taken = api.call("admin", "DELETE", "/people/bob/sign-on-secret", status=204)
            asyncio.run_coroutine_threadsafe(taken, loop).result(timeout=60)
        return hash_secret(hasher, secret)

    monkeypatch.setattr(SecretHasher, "hash", meanwhile)
    answer = await bob.submit(page, "/oidc/secret", secret=made["secret"], new=OWN_SECRET, again=OWN_SECRET)
    assert answer.status_code == 401
    assert "name or secret is wrong" in (await bob.sign_on(await bob.browser.get("/oidc/device"))).text


async def test_browsers_let_the_choice_of_a_secret_lead_back_to_the_program(api: Api, wiki: Program) -> None:
    made = await api.call("admin", "POST", "/people/bob/sign-on-secret", status=201)
    bob = Person(api, "bob")
    page = await bob.browser.get(wiki.request())
    page = await bob.submit(page, "/oidc/sign-on", person="bob", secret=made["secret"])
    assert "form-action 'self' https://wiki.test;" in page.headers["content-security-policy"]
    page = await bob.submit(page, "/oidc/secret", secret=made["secret"], new="short", again="short")
    assert "form-action 'self' https://wiki.test;" in page.headers["content-security-policy"]
