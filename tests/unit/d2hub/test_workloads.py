"""Workloads' own tokens: which are taken, and what they may do then."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, KeySet, OctKey

from haneul.d2hub.adapters.file_trusts import FileTrusts
from haneul.d2hub.issuer_keys import IssuerKeys, KeySource
from haneul.d2hub.model import Action, Allowance
from haneul.d2hub.workloads import Trust, WorkloadRefusedError, WorkloadRule, Workloads
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import ForbiddenError, InvalidInputError, UnavailableError
from tests.functional.d2hub.issuer import AUDIENCE, Issuer

START = datetime(2026, 11, 27, tzinfo=UTC)
NOW = int(START.timestamp())
URL = "https://ci.test"
BOTH = frozenset({Action.PULL, Action.PUSH})


class Known:
    """Trusts, and the keys of one issuer; counts who asks for them."""

    def __init__(self, issuer: Issuer, *trusts: Trust) -> None:
        self.issuer, self.said = issuer, trusts
        self.asked, self.away = 0, False

    def trusts(self) -> Sequence[Trust]:
        return self.said

    async def fetch(self, source: KeySource) -> KeySet:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise UnavailableError("it does not answer")
        return self.issuer.key_set()


class World:
    def __init__(self) -> None:
        self.clock = VirtualClock(START)
        self.issuer = Issuer(URL, now=NOW)
        main = WorkloadRule({"sub": ("repo:acme/web:*",)}, Allowance(("shop/web",), BOTH))
        tagged = WorkloadRule(
            {"sub": ("repo:acme/*",), "ref": ("refs/tags/v*", "refs/tags/r*")},
            Allowance(("shop/release-*",), frozenset({Action.PUSH})),
        )
        self.known = Known(self.issuer, Trust("ci", URL, AUDIENCE, (main, tagged)))
        self.workloads = Workloads(self.known, IssuerKeys(self.known, clock=self.clock), clock=self.clock)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_builds_token_is_taken_for_what_its_rules_say(world: World) -> None:
    account = await world.workloads.sign_in(world.issuer.token())
    assert (account.name, account.admin, account.proof) == ("oidc:ci:repo:acme/web:main", False, "")
    assert account.permitted("shop/web") == BOTH
    for other in ("shop/web2", "shop/release-1", "other/web", "shop"):
        assert account.permitted(other) == frozenset(), other


async def test_all_rules_that_match_count(world: World) -> None:
    account = await world.workloads.sign_in(world.issuer.token(ref="refs/tags/v1"))
    assert account.permitted("shop/web") == BOTH
    assert account.permitted("shop/release-1") == {Action.PUSH}


async def test_several_audiences(world: World) -> None:
    assert await world.workloads.sign_in(world.issuer.token(aud=["https://api.test", AUDIENCE]))


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"exp": NOW - 31}, "expired"),
        ({"exp": None}, "exp"),
        ({"iat": None}, "iat"),
        ({"iat": NOW + 60, "nbf": None}, "iat"),
        ({"nbf": NOW + 60}, "nbf"),
        ({"aud": "https://other.test"}, "https://other.test"),
        ({"aud": ["https://other.test"]}, AUDIENCE),
        ({"aud": None}, "aud"),
        ({"sub": None}, "sub"),
        ({"sub": 7}, "sub"),
        ({"sub": "repo:acme/web:" + "x" * 200}, "subject"),
        ({"sub": "repo:acme/web:\n"}, "subject"),
        ({"iss": "https://ci.test/"}, "https://ci.test/"),
        ({"iss": None}, "None"),
        ({"exp": NOW + 90_000}, "a day"),
        ({"exp": "soon"}, "exp"),
    ],
)
async def test_claims_that_do_not_hold(world: World, claims: dict[str, Any], said: str) -> None:
    with pytest.raises(WorkloadRefusedError) as refused:
        await world.workloads.sign_in(world.issuer.token(**claims))
    assert said in refused.value.detail


async def test_a_little_difference_of_clocks_does_not_matter(world: World) -> None:
    assert await world.workloads.sign_in(world.issuer.token(exp=NOW - 20))
    assert await world.workloads.sign_in(world.issuer.token(iat=NOW + 20, nbf=NOW + 20))


async def test_forged_tokens(world: World) -> None:
    issuer = world.issuer
    good = issuer.token()
    header, claims, signature = good.split(".")
    other = ECKey.generate_key("P-256", {"kid": "key-1"})
    public = OctKey.import_key(json.dumps(issuer.keys[0].as_dict(private=False)).encode(), {"kid": "key-1"})
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    more = base64.urlsafe_b64encode(json.dumps(issuer.claims(ref="refs/tags/v1")).encode()).decode().rstrip("=")
    forged = [
        issuer.token(key=other),
        issuer.token(key=public, alg="HS256"),
        f"{none}.{claims}.",
        f"{header}.{more}.{signature}",
        f"{header}.{claims}.",
        f"{header}.{claims}.{signature[:-4]}AAAA",
        f"{header}.{claims}",
        f"{good}.x",
        "..",
        "a.b.c",
        "",
        f"{header}.{base64.urlsafe_b64encode(b'[' * 9000).decode()}.{signature}",
        f"{header}.{'x' * 20_000}.{signature}",
    ]
    for token in forged:
        with pytest.raises(WorkloadRefusedError):
            await world.workloads.sign_in(token)
    assert await world.workloads.sign_in(good)


async def test_only_algorithms_that_are_named_are_taken(world: World) -> None:
    rule = world.known.said[0].rules
    world.known.said = (Trust("ci", URL, AUDIENCE, rule, algorithms=("RS256",)),)
    with pytest.raises(WorkloadRefusedError) as refused:
        await world.workloads.sign_in(world.issuer.token())
    assert "ES256" in refused.value.detail
    assert world.known.asked == 0


async def test_who_is_known_but_has_no_rule_may_nothing(world: World) -> None:
    with pytest.raises(ForbiddenError) as refused:
        await world.workloads.sign_in(world.issuer.token(sub="repo:other/web:main"))
    assert "repo:other/web:main" in refused.value.detail


@pytest.mark.parametrize(
    ("claim", "pattern", "matches"),
    [
        (True, "true", True),
        (7, "7", True),
        (["a", "b"], "b", True),
        ("A", "a", False),
        (None, "*", False),
        ({"name": "a"}, "*", False),
    ],
)
def test_what_claims_are_compared_with(claim: Any, pattern: str, matches: bool) -> None:
    rule = WorkloadRule({"claim": (pattern,)}, Allowance(("shop/web",), BOTH))
    assert rule.matches({"claim": claim}) is matches


async def test_keys_are_asked_for_once(world: World) -> None:
    await asyncio.gather(*(world.workloads.sign_in(world.issuer.token()) for _ in range(20)))
    await world.clock.sleep(599)
    world.issuer.now += 599
    await world.workloads.sign_in(world.issuer.token())
    assert world.known.asked == 1
    await world.clock.sleep(1)
    await world.workloads.sign_in(world.issuer.token())
    assert world.known.asked == 2


async def test_a_new_key_is_found_and_made_up_ones_ask_seldom(world: World) -> None:
    await world.workloads.sign_in(world.issuer.token())
    world.issuer.rotate()
    await world.clock.sleep(10)
    assert await world.workloads.sign_in(world.issuer.token())
    assert world.known.asked == 2
    made_up = ECKey.generate_key("P-256", {"kid": "made-up"})
    for _ in range(20):
        with pytest.raises(WorkloadRefusedError):
            await world.workloads.sign_in(world.issuer.token(key=made_up))
    assert world.known.asked == 2


async def test_while_an_issuer_is_away_its_keys_are_good_for_an_hour(world: World) -> None:
    await world.workloads.sign_in(world.issuer.token())
    world.known.away = True
    await world.clock.sleep(3599)
    world.issuer.now += 3599
    for _ in range(5):
        assert await world.workloads.sign_in(world.issuer.token())
    assert world.known.asked == 2
    await world.clock.sleep(1)
    with pytest.raises(UnavailableError):
        await world.workloads.sign_in(world.issuer.token())


async def test_an_issuer_that_never_answered_lets_nobody_in(world: World) -> None:
    world.known.away = True
    for _ in range(5):
        with pytest.raises(UnavailableError) as refused:
            await world.workloads.sign_in(world.issuer.token())
    assert URL in refused.value.detail
    assert world.known.asked == 1
    world.known.away = False
    await world.clock.sleep(10)
    assert await world.workloads.sign_in(world.issuer.token())


class Clusters:
    """Two issuers of one name, each with its own keys in a file of its own."""

    def __init__(self) -> None:
        self.issuers = {name: Issuer(URL, now=NOW) for name in ("one", "two")}
        self.away = ""

    def trusts(self) -> Sequence[Trust]:
        return [
            Trust(
                name,
                URL,
                AUDIENCE,
                (WorkloadRule({"sub": ("repo:*",)}, Allowance((f"{name}/web",), BOTH)),),
                jwks_file=Path(name),
            )
            for name in self.issuers
        ]

    async def fetch(self, source: KeySource) -> KeySet:
        if str(source.jwks_file) == self.away:
            raise UnavailableError("it cannot be read")
        return self.issuers[str(source.jwks_file)].key_set()


async def test_issuers_of_one_name_are_told_apart_by_their_keys() -> None:
    clock, clusters = VirtualClock(START), Clusters()
    workloads = Workloads(clusters, IssuerKeys(clusters, clock=clock), clock=clock)
    for name, issuer in clusters.issuers.items():
        account = await workloads.sign_in(issuer.token())
        assert account.name.startswith(f"oidc:{name}:")
        assert account.permitted(f"{name}/web") == BOTH
        assert account.permitted("two/web" if name == "one" else "one/web") == frozenset()
    with pytest.raises(WorkloadRefusedError):
        await workloads.sign_in(Issuer(URL, now=NOW).token())


@pytest.mark.parametrize("away", ["one", "two"])
async def test_an_issuer_whose_keys_cannot_be_had_hides_no_other_of_its_name(away: str) -> None:
    clock, clusters = VirtualClock(START), Clusters()
    clusters.away = away
    workloads = Workloads(clusters, IssuerKeys(clusters, clock=clock), clock=clock)
    there = clusters.issuers["two" if away == "one" else "one"]
    assert await workloads.sign_in(there.token())
    with pytest.raises(UnavailableError):
        await workloads.sign_in(clusters.issuers[away].token())


RULE = "{claims: {sub: 'repo:acme/web:*'}, repositories: [shop/web], actions: [pull, push]}"


def file_of(tmp_path: Path, text: str) -> FileTrusts:
    path = tmp_path / "workloads.yaml"
    path.write_text(text)
    return FileTrusts(path)


def test_a_file_of_trusts(tmp_path: Path) -> None:
    text = f"issuers: {{ci: {{issuer: {URL}, audience: {AUDIENCE}, jwksFile: ci.jwks, caFile: /ca, rules: [{RULE}]}}}}"
    trusts = file_of(tmp_path, text)
    trusts.check()
    rule = WorkloadRule({"sub": ("repo:acme/web:*",)}, Allowance(("shop/web",), BOTH))
    made = Trust("ci", URL, AUDIENCE, (rule,), jwks_file=tmp_path / "ci.jwks", authority=Path("/ca"))
    assert trusts.trusts() == [made]


def test_no_file_trusts_nobody(tmp_path: Path) -> None:
    trusts = FileTrusts(tmp_path / "workloads.yaml")
    trusts.check()
    assert list(trusts.trusts()) == []


def test_a_changed_file_counts_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    trusts = file_of(tmp_path, f"issuers: {{ci: {{issuer: {URL}, audience: a, rules: [{RULE}]}}}}")
    assert [trust.name for trust in trusts.trusts()] == ["ci"]
    file_of(tmp_path, "issuers: [")
    assert [trust.name for trust in trusts.trusts()] == ["ci"]
    file_of(tmp_path, f"issuers: {{another: {{issuer: {URL}, audience: a, rules: [{RULE}]}}}}")
    assert [trust.name for trust in trusts.trusts()] == ["another"]
    (tmp_path / "workloads.yaml").unlink()
    assert list(trusts.trusts()) == []


@pytest.mark.parametrize(
    "issuer",
    [
        f"{{issuer: http://ci.test, audience: a, rules: [{RULE}]}}",
        f"{{issuer: {URL}, audience: a, jwksUrl: http://ci.test/keys, rules: [{RULE}]}}",
        f"{{issuer: {URL}, audience: a, jwksUrl: {URL}/keys, jwksFile: a, rules: [{RULE}]}}",
        f"{{issuer: {URL}, audience: '', rules: [{RULE}]}}",
        f"{{issuer: {URL}, rules: [{RULE}]}}",
        f"{{issuer: {URL}, audience: a, algorithms: [HS256], rules: [{RULE}]}}",
        f"{{issuer: {URL}, audience: a, algorithms: [none], rules: [{RULE}]}}",
        f"{{issuer: {URL}, audience: a, secret: b, rules: [{RULE}]}}",
        f"{{issuer: {URL}, audience: a, rules: []}}",
        f"{{issuer: {URL}, audience: a, rules: [{{claims: {{}}, repositories: [shop/web], actions: [pull]}}]}}",
        f"{{issuer: {URL}, audience: a, rules: [{{claims: {{sub: '*'}}, repositories: [shop/web], actions: [pull]}}]}}",
        f"{{issuer: {URL}, audience: a, rules: [{{claims: {{sub: []}}, repositories: [shop/web], actions: [pull]}}]}}",
        f"{{issuer: {URL}, audience: a, rules: [{{claims: {{sub: a}}, repositories: ['*'], actions: [pull]}}]}}",
        f"{{issuer: {URL}, audience: a, rules: [{{claims: {{sub: a}}, repositories: ['sh?p/a'], actions: [pull]}}]}}",
        f"{{issuer: {URL}, audience: a, rules: [{{claims: {{sub: a}}, repositories: [shop/web], actions: [all]}}]}}",
    ],
)
def test_trusts_that_cannot_be(tmp_path: Path, issuer: str) -> None:
    with pytest.raises(InvalidInputError):
        file_of(tmp_path, f"issuers: {{ci: {issuer}}}").check()


def test_an_issuer_is_named_once(tmp_path: Path) -> None:
    one, other = (f"{{issuer: {URL}, audience: a, jwksFile: {name}, rules: [{RULE}]}}" for name in ("one", "two"))
    with pytest.raises(InvalidInputError):
        file_of(tmp_path, f"issuers: {{ci: {one}, again: {one}}}").check()
    file_of(tmp_path, f"issuers: {{ci: {one}, again: {other}}}").check()
