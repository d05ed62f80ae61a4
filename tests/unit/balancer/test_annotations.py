"""What a Service's annotations say, and what they cannot say."""

from __future__ import annotations

import pytest

from haneul.balancer.annotations import asked
from haneul.balancer.model import Algorithm, HealthCheck, Options, ProxyProtocol
from tests.unit.balancer.objects import service

DEFAULTS = Options()


def test_one_that_says_nothing_is_as_usual() -> None:
    found = asked(service(), DEFAULTS)
    assert (found.options, found.address, found.pool, found.share, found.errors) == (DEFAULTS, "", "", "", ())


def test_everything_that_can_be_said() -> None:
    annotations = {
        "address": "192.0.2.10",
        "pool": "public",
        "share": "one",
        "algorithm": "least-connections",
        "drain-time": "2m",
        "proxy-protocol": "v2",
        "health-check-interval": "500ms",
        "health-check-timeout": "1s",
        "health-check-rise": "1",
        "health-check-fall": "5",
    }
    found = asked(
        service(annotations=annotations, loadBalancerSourceRanges=["10.1.0.0/16", " 192.0.2.1/24", "fd00::/8"]),
        DEFAULTS,
    )
    assert found.errors == ()
    assert (found.address, found.pool, found.share) == ("192.0.2.10", "public", "one")
    assert found.options == Options(
        Algorithm.LEAST_CONNECTIONS,
        HealthCheck(500, 1000, 1, 5),
        120,
        ProxyProtocol.V2,
        ("10.1.0.0/16", "192.0.2.0/24", "fd00::/8"),
    )


def test_fields_of_the_specification() -> None:
    found = asked(
        service(
            sessionAffinity="ClientIP",
            externalTrafficPolicy="Local",
            healthCheckNodePort=31000,
            loadBalancerIP="2001:DB8::0",
        ),
        DEFAULTS,
    )
    assert found.address == "2001:db8::"
    assert found.options.algorithm is Algorithm.SOURCE
    assert (found.options.check.path, found.options.check.port) == ("/healthz", 31000)
    both = asked(service(annotations={"address": "192.0.2.1"}, loadBalancerIP="192.0.2.2"), DEFAULTS)
    assert both.address == "192.0.2.1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("address", "192.0.2.300"),
        ("address", "fe80::1%eth0"),
        ("pool", "a b"),
        ("share", ""),
        ("share", "-"),
        ("algorithm", "fastest"),
        ("drain-time", "5"),
        ("drain-time", "2h"),
        ("drain-time", "-1s"),
        ("proxy-protocol", "v3"),
        ("health-check-interval", "10ms"),
        ("health-check-interval", "1s\n    server evil 192.0.2.1:1"),
        ("health-check-interval", "\u0661s"),
        ("health-check-timeout", "1 s"),
        ("health-check-rise", "0"),
        ("health-check-rise", "1.5"),
        ("health-check-fall", "101"),
        ("health-check-fall", "\u0663"),
        ("health-check-fall", "10000000"),
        ("heath-check-fall", "3"),
    ],
)
def test_what_says_nothing_is_named_and_left_out(name: str, value: str) -> None:
    found = asked(service(annotations={name: value, "drain-time": "7s"} | {name: value}), DEFAULTS)
    [error] = found.errors
    assert f"balancer.haneul.dev/{name}" in error
    assert "\n" not in error
    assert found.options.algorithm is DEFAULTS.algorithm
    assert found.options.check == DEFAULTS.check


def test_long_values_are_not_repeated_whole_and_others_annotations_are_not_ours() -> None:
    found = asked(service(annotations={"algorithm": "x" * 5000}), DEFAULTS)
    assert len(found.errors[0]) < 200
    foreign = service()
    foreign["metadata"]["annotations"] = {"example.com/algorithm": "whatever"}
    assert asked(foreign, DEFAULTS).errors == ()


def test_a_source_range_that_is_none() -> None:
    for text in ("everywhere", "fe80::%a\n    server x 127.0.0.1:22/64"):
        found = asked(service(loadBalancerSourceRanges=[text]), DEFAULTS)
        assert "loadBalancerSourceRanges" in found.errors[0]
