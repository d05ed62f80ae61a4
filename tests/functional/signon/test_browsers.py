"""Browsers: to the provider and back, who may pass, and out again."""

from __future__ import annotations

import secrets
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.functional.signon.gate import DOMAIN, URL, WIKI, Gate, cookies, header

SESSION = "__Secure-haneul-session"
ESCAPES = [
    "//evil.test",
    "/\\evil.test",
    "https:evil.test",
    "https:///evil.test",
    "https://evil.test",
    "https://wiki.apps.test@evil.test/",
    "https://evil.test\\.apps.test/",
    "https://wiki.apps.test\r\nSet-Cookie:a=b",
    "javascript:alert(1)",
]


async def test_a_browser_that_nobody_is_signed_on_in_is_sent_to_sign_on(gate: Gate) -> None:
    browser = gate.browser()
    asked = await browser.ask()
    assert (asked.status, header(asked, "x-haneul-sign-on")) == (401, f"{URL}/start?rd={quote(WIKI, safe='')}")
    assert header(asked, "www-authenticate") == 'Bearer realm="haneul"'
    sent = await browser.ask(path="/denied")
    assert (sent.status, header(sent, "location")) == (302, header(asked, "x-haneul-sign-on"))


async def test_what_cannot_show_a_page_is_told_in_json(gate: Gate) -> None:
    for headers in ({"accept": "*/*"}, {"accept": "application/json", "x_original_method": "POST"}):
        refused = await gate.ask(path="/denied", **headers)
        assert (refused.status, header(refused, "content-type")) == (401, "application/problem+json")
        assert header(refused, "x-haneul-sign-on") == "" and '"unauthenticated"' in refused.body
    # A script of a page, and a form that was sent, cannot follow to another page.
    for headers in ({"sec_fetch_mode": "cors"}, {"x_original_method": "POST"}):
        refused = await gate.browser().ask(path="/denied", **headers)
        assert (refused.status, header(refused, "location")) == (401, "")


async def test_signing_on_leads_back_and_is_good_at_every_host(gate: Gate) -> None:
    gate.company.person |= {"email": "alice@example.com", "email_verified": True, "projects": ["shop"]}
    browser = gate.browser()
    back = await browser.sign_on()
    assert (back.status, header(back, "location")) == (303, WIKI)
    session = cookies(back)[SESSION]
    assert session.endswith(f"; Domain={DOMAIN}; Path=/; Max-Age=36000; Secure; HttpOnly; SameSite=Lax")
    assert "alice" not in session and len(session) < 4096
    for host in ("wiki", "deep.er"):
        passed = await browser.ask(url=f"https://{host}.{DOMAIN}/")
        assert passed.status == 200
        names = ("user", "email", "groups", "projects")
        assert [header(passed, f"x-haneul-{name}") for name in names] == ["alice", "alice@example.com", "devs", "shop"]


async def test_the_rule_decides_and_a_page_says_who_may(gate: Gate) -> None:
    browser = gate.browser()
    await browser.sign_on()
    assert (await browser.ask("project:lab group:devs")).status == 200
    for path in ("/auth", "/denied"):
        refused = await browser.ask("project:lab person:<b>bob</b>".replace("<", "%3C").replace(">", "%3E"), path=path)
        assert refused.status == 403
        assert "signed on as alice" in refused.body and "members of the project lab" in refused.body
        assert "&lt;b&gt;bob" in refused.body and "<b>bob" not in refused.body
    told = await browser.ask("group:ops", accept="application/json")
    assert (told.status, "the group ops" in told.body) == (403, True)


async def test_names_fit_into_headers_whatever_they_are(gate: Gate) -> None:
    gate.company.person |= {"preferred_username": "zoë, admin", "groups": ["a,b", "c\r\nX-Haneul-User: root", "d e"]}
    browser = gate.browser()
    await browser.sign_on()
    passed = await browser.ask()
    assert header(passed, "x-haneul-user") == "zo%C3%AB%2C%20admin"
    assert header(passed, "x-haneul-groups") == "a%2Cb,c%0D%0AX-Haneul-User:%20root,d%20e"


async def test_the_app_sees_neither_session_nor_state(gate: Gate) -> None:
    browser = gate.browser()
    await browser.sign_on()
    await browser.start()
    passed = await browser.ask(cookie=f"theme=dark; {browser.cookie}; lang=ko", authorization="Basic eDp5")
    assert header(passed, "x-haneul-cookie") == "theme=dark; lang=ko"
    assert header(passed, "x-haneul-authorization") == "Basic eDp5"


@pytest.mark.parametrize("rule", [[], [""], ["anyone", "anyone"], ["nonsense"], ["anyone,person:x"]])
async def test_without_one_rule_nobody_passes(gate: Gate, rule: list[str]) -> None:
    browser = gate.browser()
    await browser.sign_on()
    refused = await gate.ask(rule, cookie=browser.cookie)
    assert (refused.status, header(refused, "x-haneul-user")) == (500, "")
    assert "rule" in header(refused, "x-haneul-problem")


@pytest.mark.parametrize("address", ESCAPES)
async def test_nobody_is_led_elsewhere(gate: Gate, address: str) -> None:
    browser = gate.browser()
    refused = await browser.get(f"/start?rd={quote(address, safe='')}")
    assert (refused.status, header(refused, "location"), gate.company.asked) == (422, "", [])
    asked = await gate.browser().ask(url=address)
    assert header(asked, "x-haneul-sign-on") == f"{URL}/start"


async def test_a_parameter_that_comes_twice_is_refused(gate: Gate) -> None:
    assert (await gate.browser().get(f"/start?rd={WIKI}&rd=https://evil.test")).status == 422


async def test_an_answer_is_good_in_the_browser_that_asked_alone(gate: Gate) -> None:
    victim, attacker = gate.browser(), gate.browser()
    # The attacker signs on as themselves, and has the victim's browser follow the answer.
    answer = await attacker.start()
    planted = await victim.get(answer)
    assert (planted.status, victim.session) == (401, "")
    # A state of the victim's own does not help.
    await victim.start()
    assert (await victim.get(answer)).status == 401
    assert victim.session == ""
    assert (await attacker.get(answer)).status == 303


async def test_an_answer_is_good_once_and_for_ten_minutes(gate: Gate) -> None:
    browser = gate.browser()
    answer = await browser.start()
    kept = dict(browser.cookies)
    assert (await browser.get(answer)).status == 303
    assert not [name for name in browser.cookies if "state" in name]
    # Whoever kept the cookie: the provider's code was good once.
    again = gate.browser()
    again.cookies = kept
    assert (await again.get(answer)).status == 401
    late = await browser.start()
    gate.clock.advance(601)
    page = await browser.get(late)
    assert (page.status, "Try again" in page.body, quote(WIKI, safe="") in page.body) == (401, True, True)


async def test_several_tabs_sign_on_at_once(gate: Gate) -> None:
    browser = gate.browser()
    answers = [await browser.start(f"https://{name}.{DOMAIN}/") for name in ("a", "b")]
    for answer, name in zip(answers, ("a", "b"), strict=True):
        assert header(await browser.get(answer), "location") == f"https://{name}.{DOMAIN}/"
    # And those who never come back do not fill the browser.
    for _ in range(10):
        await browser.start()
    assert len(browser.cookies) < 12


async def test_answers_that_were_tampered_with_are_refused(gate: Gate) -> None:
    for change, value in (("state", "other"), ("code", "other"), ("iss", "https://evil.test"), ("error", "denied")):
        browser = gate.browser()
        where = urlsplit(await browser.start())
        fields = {name: values[0] for name, values in parse_qs(where.query).items()} | {change: value}
        query = "&".join(f"{name}={quote(text, safe='')}" for name, text in fields.items())
        page = await browser.get(f"/callback?{query}")
        assert (page.status, browser.session) == (401, ""), change
    gate.company.nonce = "of another request"
    browser = gate.browser()
    assert ((await browser.sign_on()).status, browser.session) == (401, "")


async def test_without_an_address_to_go_back_to_a_page_says_so(gate: Gate) -> None:
    browser = gate.browser()
    page = await browser.sign_on("")
    assert (page.status, "Signed on" in page.body, browser.session != "") == (200, True, True)
    assert "frame-ancestors 'none'" in header(page, "content-security-policy")


async def test_signing_out_takes_effect_for_copies_of_the_cookie_too(gate: Gate) -> None:
    browser = gate.browser()
    await browser.sign_on()
    copied = browser.session
    page = await browser.sign_out()
    assert (page.status, "Signed out" in page.body, browser.session) == (200, True, "")
    assert (await gate.ask(cookie=f"{SESSION}={copied}")).status == 401
    assert len(gate.company.revoked) == 1
    # Whoever signed out is asked again, although the provider may know them.
    begun = await browser.get("/start")
    assert "prompt=login" in header(begun, "location")


async def test_no_other_site_signs_anybody_out(gate: Gate) -> None:
    browser = gate.browser()
    await browser.sign_on()
    assert (await browser.get("/sign-out")).status == 200
    form = browser.cookies["__Host-haneul-form"].encode()
    for body, headers in (
        (b"", {}),
        (b"form=", {}),
        (b"form=guess", {}),
        (b"form=" + form, {"origin": "https://evil.apps.test"}),
        (b"form=" + form + b"&form=x", {}),
        (b"form=" + form + b"&x=" + b"y" * 5000, {}),
        (b"form=" + form, {"cookie": f"{SESSION}={browser.session}"}),
    ):
        assert (await browser.send("POST", "/sign-out", body, **headers)).status == 422
    assert (await browser.ask()).status == 200
    assert (await browser.send("POST", "/sign-out", b"form=" + form)).status == 200


async def test_a_provider_that_is_away_is_told_of_clearly(gate: Gate) -> None:
    gate.company.away = True
    browser = gate.browser()
    page = await browser.get("/start")
    assert (page.status, header(page, "retry-after")) == (503, "10")
    assert "The Company" in page.body or "does not describe itself" in page.body
    gate.company.away = False
    answer = await browser.start()
    gate.company.away = True
    page = await browser.get(answer)
    assert (page.status, browser.session) == (503, "")


async def test_somebody_of_whom_too_much_is_said_is_told_so(gate: Gate) -> None:
    browser = gate.browser()
    gate.company.person["groups"] = [f"group-{number}" for number in range(100)]
    await browser.sign_on()
    assert (await browser.ask("group:group-99")).status == 200 and len(browser.session) < 3801
    gate.company.person["groups"] = [secrets.token_hex(20) for _ in range(300)]
    page = await gate.browser().sign_on()
    assert (page.status, "no cookie holds them" in page.body) == (401, True)


async def test_what_else_there_is(gate: Gate) -> None:
    browser = gate.browser()
    await browser.sign_on()
    await browser.ask()
    await browser.ask("group:ops")
    for path, status in (("/healthz", 200), ("/style.css", 200), ("/", 200), ("/nothing", 404), ("/callback", 401)):
        assert (await browser.get(path)).status == status, path
    assert (await browser.send("POST", "/start")).status == 405
    counts = (await browser.get("/metrics")).body
    assert 'haneul_auth_decisions_total{verdict="pass"} 1' in counts
    assert 'haneul_auth_decisions_total{verdict="refuse"} 1' in counts
    assert 'haneul_auth_sign_ons_total{result="done"} 1' in counts
