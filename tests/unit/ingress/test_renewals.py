"""When certificates are asked for, and what keeps them: decisions, orders with an authority in memory, files."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from haneul.ingress.adapters.certificate_folder import CertificateFolder
from haneul.ingress.annotations import PREFIX
from haneul.ingress.issuing import Issuer
from haneul.ingress.model import Certificate, Reason, Routes, Scheme
from haneul.ingress.options import Options
from haneul.ingress.ports import Begun, CertificateRefusedError
from haneul.ingress.public_names import PublicNames
from haneul.ingress.rendering import render_configuration
from haneul.ingress.renewals import (
    FIRST_PAUSE,
    LAST_PAUSE,
    LONGEST_WAIT,
    Refusals,
    due,
    next_host,
    parse_retry_after,
    refused,
    renewal,
)
from haneul.ingress.routes import MOST_CERTIFIED, compile_routes
from haneul.kernel.clock import SystemClock
from haneul.kernel.kube import Manifest
from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf
from tests.followed import until
from tests.unit.ingress.gateway_objects import gateway, gateway_class, http_route, listener
from tests.unit.ingress.objects import HOST, NOW, certificate, ingress, observed, path, tls_secret
from tests.unit.ingress.test_rendering import SITE, locations

AUTHORITY = issue_authority("test", now=NOW)


def given(host: str, *, begins: datetime = NOW, days: float = 90) -> Certificate:
    profile = LeafProfile(common_name=host, dns_names=(host,), server=True)
    pair = issue_leaf(AUTHORITY, profile, now=begins, life=timedelta(days=days))
    return Certificate(pair.certificate, pair.key)


def test_a_certificate_is_renewed_at_two_thirds_hosts_a_little_apart() -> None:
    moments = {renewal(given(f"h{number}.example.com"), f"h{number}.example.com") for number in range(20)}
    assert len(moments) == 20
    # Certificates begin some minutes before they are made.
    assert min(moments) >= NOW + timedelta(days=59, hours=23)
    assert max(moments) <= NOW + timedelta(days=63, hours=1)


def test_each_refusal_waits_about_twice_as_long_up_to_a_bound() -> None:
    refusals, pauses = None, []
    for _ in range(40):
        refusals = refused(refusals, HOST, "no", None, NOW)
        pauses.append(refusals.after - NOW)
    assert FIRST_PAUSE <= pauses[0] <= FIRST_PAUSE * 1.25
    assert all(earlier * 1.5 < later for earlier, later in pairwise(pauses[:9]))
    assert LAST_PAUSE <= pauses[-1] <= LAST_PAUSE * 1.25
    assert refusals == Refusals(40, NOW + pauses[-1], "no")


@pytest.mark.parametrize(("wait", "least"), [(3600.0, timedelta(hours=1)), (1e12, LONGEST_WAIT), (-5.0, FIRST_PAUSE)])
def test_an_authority_may_ask_for_a_longer_pause_within_bounds(wait: float, least: timedelta) -> None:
    pause = refused(None, HOST, "no", wait, NOW).after - NOW
    assert least <= pause <= max(least, FIRST_PAUSE * 1.25)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("Fri, 27 Nov 2026 00:01:00 GMT", 60.0),
        ("Thu, 26 Nov 2026 00:00:00 GMT", 0.0),
        ("99999999999999999999", 999999999.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_moment(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, NOW) == seconds


def test_who_was_refused_least_goes_first_and_the_others_wait_their_time() -> None:
    old = given("old.example.com", begins=NOW - timedelta(days=80))
    issued = {"old.example.com": old, "fresh.example.com": given("fresh.example.com")}
    refusals = {"again.example.com": Refusals(3, NOW, "no"), "later.example.com": Refusals(1, NOW + FIRST_PAUSE, "no")}
    hosts = [*issued, *refusals, "new.example.com"]
    assert next_host(hosts, issued, refusals, {}, NOW) == ("new.example.com", 0.0)
    hosts.remove("new.example.com")
    assert next_host(hosts, issued, refusals, {}, NOW) == ("old.example.com", 0.0)
    hosts.remove("old.example.com")
    assert next_host(hosts, issued, refusals, {}, NOW) == ("again.example.com", 0.0)
    hosts.remove("again.example.com")
    assert next_host(hosts, issued, refusals, {}, NOW) == (None, FIRST_PAUSE.total_seconds())
    assert next_host([], issued, refusals, {}, NOW) == (None, 3600.0)
    held = {"new.example.com": NOW + FIRST_PAUSE / 2}
    assert next_host([*hosts, *held], issued, refusals, held, NOW) == (None, FIRST_PAUSE.total_seconds() / 2)
    assert due("old.example.com", old, Refusals(1, NOW + FIRST_PAUSE, "no")) == NOW + FIRST_PAUSE


class MemoryAuthority:
    """Gives certificates for whatever is shown in time, but not for some hosts."""

    def __init__(self, *, refuses: Iterable[str] = (), gives: Mapping[str, Certificate] | None = None) -> None:
        self.refuses = set(refuses)
        self.gives = dict(gives or {})
        self.begun: list[str] = []
        self.resumed: list[str] = []
        self.shown: Mapping[str, str] = {}

    async def begin(self, host: str) -> Begun:
        self.begun.append(host)
        if host in self.refuses:
            raise CertificateRefusedError("rejectedIdentifier: no", wait=7200.0)
        return Begun({f"token-{host}": f"text-{host}"}, host, kept=f"order of {host}")

    async def resume(self, host: str, kept: str) -> Begun:
        self.resumed.append(host)
        assert kept == f"order of {host}"
        return Begun({f"token-{host}": f"text-{host}"}, host, kept)

    async def finish(self, begun: Begun) -> tuple[bytes, bytes]:
        if dict(self.shown) != dict(begun.challenges):
            raise CertificateRefusedError("nothing is there")
        made = self.gives.get(begun.order) or given(begun.order, begins=SystemClock().now())
        return made.chain, made.key


@contextlib.asynccontextmanager
async def supplying(authority: MemoryAuthority, store: CertificateFolder, *hosts: str) -> AsyncIterator[Issuer]:
    """Yield an issuer with a proxy that shows at once what is to be shown."""
    issuer = Issuer(authority, store, SystemClock())

    def show() -> None:
        authority.shown = dict(issuer.challenges)
        issuer.serves(hosts, issuer.challenges)

    issuer.when_changed(show)
    show()
    working = asyncio.ensure_future(issuer.run())
    try:
        yield issuer
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


async def test_hosts_are_supplied_and_one_that_is_refused_stops_nobody(tmp_path: Path) -> None:
    authority, store = MemoryAuthority(refuses=["bad.example.com"]), CertificateFolder(tmp_path)
    async with supplying(authority, store, "bad.example.com", "a.example.com", "b.example.com") as issuer:
        await until(lambda: set(issuer.issued) == {"a.example.com", "b.example.com"}, "both to have certificates")
        await until(lambda: bool(issuer.unissued), "the third to be refused")
        assert issuer.unissued == {"bad.example.com": "rejectedIdentifier: no"}
        assert issuer.challenges == {}
    assert store.refusals()["bad.example.com"].after > SystemClock().now() + timedelta(seconds=7000)
    later = MemoryAuthority(refuses=["bad.example.com"])
    async with supplying(later, store, "bad.example.com", "a.example.com", "c.example.com") as issuer:
        await until(lambda: "c.example.com" in issuer.issued, "what is new to be asked for")
    # Whoever comes later asks neither for what was given nor, before its time, for what was refused.
    assert later.begun == ["c.example.com"]


async def test_an_order_is_gone_on_with_until_it_is_over(tmp_path: Path) -> None:
    store = CertificateFolder(tmp_path)
    store.keep(HOST, given(HOST, begins=SystemClock().now() - timedelta(days=80)))
    store.ordered(HOST, f"order of {HOST}")
    # What it had before is served on.
    assert set(store.certificates()) == {HOST}
    authority = MemoryAuthority()
    async with supplying(authority, store, HOST) as issuer:
        fresh = issuer.issued[HOST]
        await until(lambda: issuer.issued[HOST] != fresh, "the certificate to be renewed")
    assert (authority.begun, authority.resumed, store.order(HOST)) == ([], [HOST], "")


async def test_whoever_is_told_to_end_keeps_the_order_that_is_under_way(tmp_path: Path) -> None:
    class Slow(MemoryAuthority):
        asked, goes_on = asyncio.Event(), asyncio.Event()

        async def begin(self, host: str) -> Begun:
            self.asked.set()
            await self.goes_on.wait()
            return await super().begin(host)

    authority, store = Slow(), CertificateFolder(tmp_path)
    issuer = Issuer(authority, store, SystemClock())
    issuer.serves([HOST], [])
    working = asyncio.ensure_future(issuer.run())
    async with asyncio.timeout(60):
        await authority.asked.wait()
        working.cancel()
        authority.goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await working
    assert store.order(HOST) == f"order of {HOST}"


async def test_a_refusal_that_ends_an_order_forgets_it_and_others_do_not(tmp_path: Path) -> None:
    class Refusing(MemoryAuthority):
        over = False

        async def finish(self, begun: Begun) -> tuple[bytes, bytes]:
            raise CertificateRefusedError("connection: no", over=self.over)

    for over in (False, True):
        authority, store = Refusing(), CertificateFolder(tmp_path / str(over))
        authority.over = over
        async with supplying(authority, store, HOST) as issuer:
            await until(lambda: bool(issuer.unissued), "it to be refused")
        assert bool(store.order(HOST)) is not over


async def test_what_is_no_certificate_for_the_host_is_refused(tmp_path: Path) -> None:
    authority = MemoryAuthority(gives={HOST: given("other.example.com")})
    store = CertificateFolder(tmp_path)
    async with supplying(authority, store, HOST) as issuer:
        await until(lambda: bool(issuer.unissued), "it to be refused")
        assert f"it is not for {HOST}" in issuer.unissued[HOST]
    assert store.certificates() == {}


async def test_a_certificate_that_is_due_at_once_is_not_asked_for_again_at_once(tmp_path: Path) -> None:
    ended = given(HOST, begins=SystemClock().now() - timedelta(days=200))
    authority, store = MemoryAuthority(gives={HOST: ended}), CertificateFolder(tmp_path)
    async with supplying(authority, store, HOST) as issuer:
        await until(lambda: HOST in issuer.unissued, "it to be noticed")
        assert "clock" in issuer.unissued[HOST]
        assert HOST in issuer.issued
    assert authority.begun == [HOST]


def test_files_are_for_their_owner_alone_and_broken_ones_are_not_there(tmp_path: Path) -> None:
    store = CertificateFolder(tmp_path / "acme")
    key = store.account_key()
    assert b"PRIVATE KEY" in key
    assert store.account_key() == key
    made = given(HOST)
    store.keep(HOST, made)
    store.remember({"x": Refusals(2, NOW, "no")})
    assert store.certificates() == {HOST: made}
    assert store.refusals() == {"x": Refusals(2, NOW, "no")}
    assert {file.stat().st_mode & 0o077 for file in [tmp_path / "acme", *(tmp_path / "acme").rglob("*")]} == {0}
    (tmp_path / "acme" / "certificates" / "y.json").write_text("{")
    (tmp_path / "acme" / "refusals.json").write_text('{"z": {"count": "?"}}')
    assert set(store.certificates()) == {HOST}
    assert store.refusals() == {}


def compiled(*manifests: Manifest, **options: Any) -> Routes:
    made = {"issuer": True, **options}
    return compile_routes(observed(*manifests), Options(**made), NOW)


def certified(name: str = "web", host: str = HOST, **more: Any) -> Manifest:
    return ingress(name, path("/"), host=host, annotations={f"{PREFIX}certificate": "acme"}, **more)


def test_hosts_that_want_a_certificate_are_challenged_and_have_what_was_given() -> None:
    routes = compiled(certified(), ingress("other", host="other.example.com"))
    assert routes.certified == {HOST}
    [web] = [one for one in routes.servers if one.host == HOST]
    # Nobody is sent to HTTPS before there is a certificate.
    assert (web.tls, web.certificate) == (False, None)
    assert routes.problems == ()
    made = given(HOST)
    [web] = [one for one in compiled(certified(), by_acme={HOST: made}).servers if one.host == HOST]
    assert (web.tls, web.certificate) == (True, made)


def test_a_certificate_in_a_secret_goes_first() -> None:
    pair = certificate(HOST, now=NOW)
    wanted = certified(tls=[{"hosts": [HOST], "secretName": "c"}])
    routes = compiled(wanted, tls_secret("c", pair), by_acme={HOST: given(HOST)})
    assert routes.certified == frozenset()
    [web] = routes.servers
    assert web.certificate
    assert web.certificate.chain == pair.certificate


def test_what_stops_a_certificate_is_told() -> None:
    why = {problem.message for problem in compiled(certified(host="*.example.com")).problems}
    assert why == {"*.example.com: the issuer gives none for '*'"}
    [problem] = compiled(certified(), issuer=False).problems
    assert (problem.reason, "no issuer" in problem.message) == (Reason.CERTIFICATE_REFUSED, True)
    [problem] = compiled(certified(), unissued={HOST: "dns: no such name"}).problems
    assert problem.message == f"{HOST}: dns: no such name; let the host's name lead to this proxy"
    assert compiled(ingress(), unissued={HOST: "dns: no such name"}).problems == ()


def test_challenges_are_answered_before_whatever_an_ingress_has_there() -> None:
    at = "/.well-known/acme-challenge"
    routes = compiled(certified(), ingress("sly", path(at), path(f"{at}/x"), path("/.well-known")))
    found = locations(render_configuration(routes, SITE).text)
    assert [words for words in found if words[-1].startswith(at)] == [("^~", f"{at}/")]
    assert ("^~", "/.well-known/") in found


PUBLIC = Options(issuer=True, supplied=True, by_itself=PublicNames(), addresses=("192.0.2.1",))


def by_itself(*manifests: Manifest, **options: Any) -> Routes:
    return compile_routes(observed(*manifests), replace(PUBLIC, **options), NOW)


def test_public_hosts_are_certified_by_themselves_but_not_where_a_secret_may_come() -> None:
    private, wild = ingress("a", host="web.first.haneul.internal"), ingress("b", host="*.example.com")
    coming = ingress("c", host="c.example.com", tls=[{"hosts": ["c.example.com"], "secretName": "later"}])
    routes = by_itself(ingress(), private, wild, coming)
    assert routes.certified == {HOST}
    assert {problem.reason for problem in routes.problems} == {Reason.CERTIFICATE_BROKEN}
    [problem] = by_itself(certified(host="web.first.haneul.internal")).problems
    assert "no name that the issuer is asked for" in problem.message
    [problem] = by_itself(ingress(), unissued={HOST: "connection: refused"}).problems
    assert problem.message == f"{HOST}: connection: refused; let the issuer reach port 80 of 192.0.2.1"


def test_what_ended_gives_way_to_the_platforms_certificate() -> None:
    ours, fresh, ended = given(HOST), given(HOST), given(HOST, begins=NOW - timedelta(days=200))
    for by_acme, served in ((fresh, fresh), (ended, ours)):
        [web] = by_itself(ingress(), issued={HOST: ours}, by_acme={HOST: by_acme}).servers
        assert (web.certificate, web.tls, web.challenged) == (served, True, True)


def test_a_cluster_gets_so_many_certificates_of_the_issuer_and_the_others_are_told() -> None:
    hosts = [f"h{number}.example.com" for number in range(MOST_CERTIFIED + 1)]
    routes = by_itself(*(ingress(f"i{number:03}", host=host) for number, host in enumerate(hosts)))
    assert routes.certified == set(hosts[:-1])
    [problem] = routes.problems
    assert problem.message.startswith(f"{hosts[-1]}: older hosts have all {MOST_CERTIFIED}")


@pytest.mark.parametrize(
    ("below", "host", "has"),
    [
        ((), "shop.example.com", True),
        ((), "web.first.shop.haneul.internal", False),
        ((), "printer.local", False),
        ((), "localhost", False),
        ((), "*.example.com", False),
        ((), "", False),
        (("corp.internal",), "web.corp.internal", True),
        (("corp.internal",), "corp.internal", True),
        (("corp.internal",), "notcorp.internal", False),
        (("corp.internal",), "shop.example.com", False),
    ],
)
def test_public_names_are_those_that_are_named_or_no_special_ones(below: Sequence[str], host: str, has: bool) -> None:
    assert PublicNames(tuple(below)).has(host) is has


def supplied(*hosts: str, secret: str = "", plain: bool = False, **options: Any) -> Routes:
    https = {"name": "https", "port": 443, "protocol": "HTTPS"} if not secret else listener("https", secret=secret)
    listeners = [https, *([listener()] if plain else [])]
    return by_itself(gateway_class(), gateway("web", *listeners), http_route(hosts=hosts), **options)


def test_hosts_of_https_listeners_without_certificates_get_them_as_hosts_of_ingresses_do() -> None:
    inside, ours, theirs = "web.first.haneul.internal", given("web.first.haneul.internal"), given(HOST)
    routes = supplied(HOST, inside, issued={inside: ours, HOST: given(HOST)}, by_acme={HOST: theirs})
    found = {(one.host, *one.schemes): one for one in routes.servers}
    assert found[HOST, Scheme.HTTPS].certificate == theirs
    assert found[inside, Scheme.HTTPS].certificate == ours
    # The issuer asks by plain HTTP, where nothing else is served as long as no listener is there.
    assert routes.certified == {HOST}
    assert (found[HOST, Scheme.HTTP].challenged, found[HOST, Scheme.HTTP].locations) == (True, ())
    assert (inside, Scheme.HTTP) not in found
    both = supplied(HOST, plain=True)
    assert [len(one.locations) for one in both.servers if Scheme.HTTP in one.schemes] == [1]
    [problem] = supplied(HOST, unissued={HOST: "caa: no"}).problems
    assert (problem.ingress.kind, problem.reason) == ("HTTPRoute", Reason.CERTIFICATE_REFUSED)
    assert "CAA" in problem.message


def test_listeners_get_no_certificates_where_nobody_gives_any_or_a_secret_is_named() -> None:
    assert supplied(HOST, supplied=False, issuer=False).servers == ()
    assert supplied(HOST, secret="none").servers == ()
    assert [one.host for one in supplied(HOST, issuer=False, by_itself=None).servers] == [HOST]
