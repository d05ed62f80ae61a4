"""What a zone tells of how a name comes to its answer."""

from __future__ import annotations

import pytest

from haneul.dns.model import Present, RecordSet, ZoneState
from haneul.dns.path import object_of, steps_in_zone

DOMAIN = "first.zone."
OWNER = "shop/first/uid/id"
SETS = (
    Present(RecordSet(f"dns-version.{DOMAIN}", "TXT", 5, ('"1.1.0"',)), OWNER),
    Present(RecordSet(f"web.shop.svc.{DOMAIN}", "A", 5, ("10.3.0.1",)), OWNER),
    Present(RecordSet("www.zone.", "A", 60, ("192.0.2.1",))),
)
STATE = ZoneState("zone.", 7, 1, {there.records.key: there for there in SETS})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("web.shop.svc", "the Service web in the namespace shop"),
        ("_http._tcp.web.shop.svc", "the port http (TCP) of the Service web in the namespace shop"),
        ("db-0.db.shop.svc", "the endpoint db-0 of the Service db in the namespace shop"),
        ("10-3-0-1.shop.pod", "the pod with the address 10-3-0-1 in the namespace shop"),
        ("dns-version", "the version of the specification"),
        ("web.shop", "none has such a name"),
        ("svc", "none has such a name"),
    ],
)
def test_the_object_of_a_name(name: str, words: str) -> None:
    assert object_of(f"{name}.{DOMAIN}", DOMAIN).startswith(words)


def test_a_published_name_has_a_cluster_an_object_and_records() -> None:
    seen = {step.stage: step.seen for step in steps_in_zone(f"web.shop.svc.{DOMAIN}", STATE)}
    assert "serial 7" in seen["zone"]
    assert OWNER in seen["cluster"]
    assert seen["object"] == "the Service web in the namespace shop"
    assert seen["record"] == f"A 10.3.0.1, for 5 s, of {OWNER}"


@pytest.mark.parametrize(
    ("name", "words"), [(f"db.shop.svc.{DOMAIN}", "none; resolvers"), (f"svc.{DOMAIN}", "only names below it")]
)
def test_of_a_name_that_is_not_there_it_is_said_for_how_long_that_is_remembered(name: str, words: str) -> None:
    *_, last = steps_in_zone(name, STATE)
    assert last.stage == "record"
    assert last.seen.startswith(words)
    assert "1 s" in last.seen


def test_a_name_that_a_person_put_there_is_no_cluster_s() -> None:
    seen = {step.stage: step.seen for step in steps_in_zone("www.zone.", STATE)}
    assert seen["cluster"] == "no cluster publishes a domain that it lies in"
    assert "nobody that it is marked with" in seen["record"]
