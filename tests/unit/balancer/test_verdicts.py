"""How a Service is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from haneul.balancer.decisions import BALANCED, NOT_SUPPORTED, Verdict
from haneul.balancer.model import Protocol, Slot
from haneul.balancer.verdicts import CONDITION, event_of, nothing_served, status_of
from haneul.kernel.kube import Manifest
from tests.unit.balancer.objects import service

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
HTTP, DNS = Slot(Protocol.TCP, 80), Slot(Protocol.UDP, 53)
SERVED = Verdict(True, BALANCED, "192.0.2.10 is served", "192.0.2.10", (HTTP,))
FOREIGN = {"type": "example.com/Other", "status": "True"}


def told(verdict: Verdict, of: Manifest, now: datetime = NOW) -> Manifest:
    status = status_of(verdict, of, now)
    assert status
    return {**of, "status": status}


def test_address_ports_and_condition() -> None:
    status = told(SERVED, service())["status"]
    assert status["loadBalancer"]["ingress"] == [
        {"ip": "192.0.2.10", "ipMode": "VIP", "ports": [{"port": 80, "protocol": "TCP"}]}
    ]
    assert status["conditions"] == [
        {
            "type": CONDITION,
            "status": "True",
            "reason": BALANCED,
            "message": "192.0.2.10 is served",
            "lastTransitionTime": "2026-11-27T12:00:00Z",
        }
    ]


def test_the_same_again_is_not_written() -> None:
    before = told(SERVED, service())
    assert status_of(SERVED, before, NOW + timedelta(hours=1)) is None
    assert event_of(SERVED, before, NOW) is None
    # An API server of an older version forgets how the address is meant.
    del before["status"]["loadBalancer"]["ingress"][0]["ipMode"]
    assert status_of(SERVED, before, NOW) is None


def test_others_conditions_stay_and_the_moment_is_that_of_the_change() -> None:
    of = service()
    of["status"] = {"conditions": [FOREIGN]}
    before = told(SERVED, of)
    empty = Verdict(True, BALANCED, "another message", "192.0.2.10", (HTTP,))
    later = told(empty, before, NOW + timedelta(hours=1))["status"]["conditions"]
    assert later[0] == FOREIGN
    assert (later[1]["message"], later[1]["lastTransitionTime"]) == ("another message", "2026-11-27T12:00:00Z")
    wrong = Verdict(False, NOT_SUPPORTED, "no", "192.0.2.10", (HTTP,))
    changed = told(wrong, before, NOW + timedelta(hours=2))["status"]["conditions"]
    assert changed[1]["lastTransitionTime"] == "2026-11-27T14:00:00Z"


def test_a_port_that_cannot_be_says_so() -> None:
    verdict = Verdict(False, NOT_SUPPORTED, "no UDP", "192.0.2.10", (HTTP,), ((DNS, NOT_SUPPORTED),), proxied=True)
    [entry] = told(verdict, service())["status"]["loadBalancer"]["ingress"]
    assert entry["ipMode"] == "Proxy"
    assert entry["ports"] == [
        {"port": 80, "protocol": "TCP"},
        {"port": 53, "protocol": "UDP", "error": "balancer.haneul.dev/NotSupported"},
    ]


def test_a_service_that_has_no_address_has_none_any_more() -> None:
    before = told(SERVED, service())
    status = told(Verdict(False, "NoAddressLeft", "none"), before)["status"]
    assert status["loadBalancer"]["ingress"] == []


def test_a_service_that_is_not_served_any_more() -> None:
    of = service()
    assert nothing_served(of) is None
    of["status"] = {"conditions": [FOREIGN]}
    before = told(SERVED, of)
    assert nothing_served(before) == {"loadBalancer": {"ingress": None}, "conditions": [FOREIGN]}


def test_an_event_is_told_once_and_in_bounds() -> None:
    long = Verdict(False, "AddressTaken", "x" * 5000)
    event = event_of(long, service("w" * 63), NOW)
    assert event
    assert (event["type"], event["reason"], len(event["note"])) == ("Warning", "AddressTaken", 1000)
    assert len(event["metadata"]["name"]) < 64
    assert event["regarding"]["kind"] == "Service"
    assert event_of(long, told(long, service("w" * 63)), NOW) is None
