"""Programs: whose tokens are taken, and the many that are not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from haneul.kernel.clock import VirtualClock
from tests.functional.api.application import Api, running_api, served
from tests.functional.signon.company import Company
from tests.functional.signon.gate import Gate, header, running_gate


def part(document: Any) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


async def test_a_token_of_the_issuer_for_this_gate_passes(gate: Gate) -> None:
    token = gate.company.token(aud="programs")
    passed = await gate.with_token(token, "group:devs")
    assert (passed.status, header(passed, "x-haneul-user")) == (200, "alice")
    # The app never sees it: it could act for whoever sent it.
    assert header(passed, "x-haneul-authorization") == ""
    assert (await gate.with_token(token, "group:ops")).status == 403
    # Its keys are remembered.
    for number in range(5):
        await gate.with_token(gate.company.token(aud=["programs", "others"], jti=str(number)))
    assert gate.company.asked.count("/keys") == 1


async def test_tokens_that_are_not_good(gate: Gate) -> None:
    company, now = gate.company, int(gate.clock.now().timestamp())
    stranger = ECKey.generate_key("P-256", {"kid": str(company.keys[0].kid)})
    claims = company.claims(aud="programs")
    public = company.keys[0].as_pem(private=False)
    head = part({"alg": "HS256", "kid": company.keys[0].kid})
    signed = f"{head}.{part(claims)}"
    confused = base64.urlsafe_b64encode(hmac.new(public, signed.encode(), hashlib.sha256).digest()).rstrip(b"=")
    good = company.token(aud="programs")
    bad = {
        "forged": company.token(key=stranger, aud="programs"),
        "expired": company.token(aud="programs", iat=now - 900, exp=now - 600),
        "without an end": company.token(aud="programs", exp=None),
        "for others": company.token(aud="others"),
        "for the gate's own sign-on": company.token(),
        "for nobody": company.token(aud=None),
        "of nobody": company.token(aud="programs", sub=None),
        "without a name": company.token(aud="programs", preferred_username=None),
        "with algorithm none": f"{part({'alg': 'none'})}.{part(claims)}.",
        "with algorithm None": f"{part({'alg': 'None'})}.{part(claims)}.{part('x')}",
        "with the public key as secret": f"{signed}.{confused.decode()}",
        "with another's claims": ".".join([good.split(".")[0], part({**claims, "sub": "2"}), good.split(".")[2]]),
        "without a signature": good.rpartition(".")[0] + ".",
        "with a key of its own": f"{part({'alg': 'ES256', 'jwk': stranger.as_dict(private=False)})}.{part(claims)}.AA",
        "too long": company.token(aud="programs", more="x" * 9000),
    }
    for what, token in bad.items():
        refused = await gate.with_token(token)
        assert (refused.status, header(refused, "x-haneul-user")) == (401, ""), what
    assert (await gate.with_token(good)).status == 200
    # What is refused does not make the gate ask the issuer again and again.
    assert company.asked.count("/keys") <= 2


@pytest.mark.parametrize(
    "authorization",
    ["Bearer", "Bearer ", "Bearer x", "bearer ..", "Bearer a.b.c", "Basic YTpi", "Bearer " + "[" * 50_000, "Bearer é"],
)
async def test_headers_that_carry_none(gate: Gate, authorization: str) -> None:
    assert (await gate.ask(authorization=authorization)).status == 401
    browser = gate.browser()
    await browser.sign_on()
    passed = await browser.ask(authorization=authorization)
    # It is the app's own business.
    assert (passed.status, header(passed, "x-haneul-authorization")) == (200, authorization)


async def test_a_bad_token_is_not_helped_by_a_session(gate: Gate) -> None:
    browser = gate.browser()
    await browser.sign_on()
    for token in (gate.company.token(aud="others"), "haneul_1_2"):
        refused = await browser.ask(authorization=f"Bearer {token}")
        assert (refused.status, header(refused, "x-haneul-authorization")) == (401, "")


async def test_more_than_one_header_is_refused(gate: Gate) -> None:
    good = f"Bearer {gate.company.token(aud='programs')}"
    assert (await gate.ask(authorization=[good, good])).status == 401


async def test_the_issuer_rotates_its_keys(gate: Gate) -> None:
    before = gate.company.token(aud="programs", jti="1")
    assert (await gate.with_token(before)).status == 200
    gate.clock.advance(60)
    gate.company.turn_keys()
    assert (await gate.with_token(gate.company.token(aud="programs", jti="2"))).status == 200
    assert (await gate.with_token(before)).status == 401


async def test_a_key_that_the_issuer_withdrew_is_trusted_for_five_minutes_at_most(gate: Gate) -> None:
    ends = int(gate.clock.now().timestamp()) + 100_000
    token = gate.company.token(aud="programs", exp=ends)
    assert (await gate.with_token(token)).status == 200
    gate.company.turn_keys()
    gate.clock.advance(301)
    assert (await gate.with_token(token)).status == 401


async def test_while_the_issuer_is_away(gate: Gate) -> None:
    gate.company.away = True
    away = await gate.with_token(gate.company.token(aud="programs"))
    assert (away.status, header(away, "retry-after")) == (503, "10")
    gate.company.away = False
    assert (await gate.with_token(gate.company.token(aud="programs"))).status == 200
    # From then on its keys are known.
    gate.company.away = True
    for wait, status in ((240, 200), (400, 200), (24 * 3600, 503)):
        gate.clock.advance(wait)
        assert (await gate.with_token(gate.company.token(aud="programs", jti=str(wait)))).status == status


async def test_a_token_ends_although_it_was_good_before(gate: Gate) -> None:
    token = gate.company.token(aud="programs")
    assert (await gate.with_token(token)).status == 200
    gate.clock.advance(300 + 61)
    assert (await gate.with_token(token)).status == 401


class TestThePlatformsTokens:
    """The platform is asked whose they are."""

    @pytest.fixture
    async def api(self, tmp_path: Path) -> AsyncIterator[Api]:
        (tmp_path / "platform").mkdir()
        async with running_api(tmp_path / "platform") as api:
            yield api

    @pytest.fixture
    async def gate(self, tmp_path: Path, api: Api, company: Company, clock: VirtualClock) -> AsyncIterator[Gate]:
        async with (
            served(api) as address,
            running_gate(tmp_path, company, clock, platform={"url": address, "patienceSeconds": 60}) as gate,
        ):
            yield gate

    async def test_people_pass_by_group_and_project(self, api: Api, gate: Gate) -> None:
        await api.call("admin", "POST", "/groups", {"name": "ops"}, status=201)
        await api.call("admin", "PUT", "/groups/ops/members/alice", status=204)
        passed = await gate.with_token(api.tokens["alice"], "project:shop")
        assert passed.status == 200
        told = [header(passed, f"x-haneul-{name}") for name in ("user", "groups", "projects", "authorization")]
        assert told == ["alice", "ops", "shop", ""]
        assert (await gate.with_token(api.tokens["bob"], "project:shop group:ops")).status == 403
        # To own every project makes an administrator a member of none.
        assert (await gate.with_token(api.tokens["admin"], "project:shop")).status == 403

    async def test_robots_pass_by_their_project(self, api: Api, gate: Gate) -> None:
        body = {"name": "ci", "role": "viewer"}
        made = await api.call("alice", "POST", "/projects/shop/robots", body, status=201)
        passed = await gate.with_token(made["secret"], "project:shop")
        assert (passed.status, header(passed, "x-haneul-user")) == (200, "robot:shop/ci")

    async def test_a_revoked_token_is_out_within_half_a_minute(self, api: Api, gate: Gate) -> None:
        made = await api.call("alice", "POST", "/people/alice/tokens", {}, status=201)
        assert (await gate.with_token(made["secret"])).status == 200
        await api.call("alice", "DELETE", f"/people/alice/tokens/{made['token']['id']}", status=204)
        gate.clock.advance(31)
        assert (await gate.with_token(made["secret"])).status == 401

    async def test_tokens_that_are_none(self, api: Api, gate: Gate) -> None:
        good = api.tokens["alice"]
        for token in ("haneul_", "haneul_x_y", good[:-1], good + "x", "haneul_1_2\r\nX-Evil: 1", "haneul_é_x"):
            assert (await gate.with_token(token)).status == 401, token


async def test_a_platform_that_is_away_is_told_of(tmp_path: Path, company: Company, clock: VirtualClock) -> None:
    """Its port is one that the provider answers on, as nothing else: no platform is there."""
    async with running_gate(tmp_path, company, clock, platform={"url": company.issuer}) as gate:
        assert (await gate.with_token("haneul_a_b")).status == 503
        company.away = True
        assert (await gate.with_token("haneul_a_b")).status == 503
