"""Ranges of load balancers take nothing that is somebody else's, and are part of a host's network where wanted."""

from __future__ import annotations

import pytest

from haneul.kernel.errors import HostNotReadyError
from haneul.management.public_addresses import CANDIDATES, check, default_range, guard
from haneul.management.settings import ManagementSettings

LAN = ("192.0.2.0/24", "eth0")


def settings(*networks: str, host: tuple[tuple[str, str], ...] = (LAN,)) -> ManagementSettings:
    return ManagementSettings("192.0.2.2", "host-a", host_networks=host, balancer_networks=networks)


def test_the_first_range_beside_the_host_s_networks_is_taken() -> None:
    assert default_range([LAN]) == CANDIDATES[0]
    taken = [LAN, ("172.16.0.0/12", "tun0"), ("192.168.247.128/25", "wlan0")]
    assert default_range(taken) == CANDIDATES[3]
    # When none fits, the check says why.
    nothing = default_range([("172.16.0.0/12", "a"), ("192.168.0.0/16", "b"), ("10.0.0.0/8", "c")])
    assert nothing == CANDIDATES[0]


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_no_candidate_takes_what_is_the_platform_s(candidate: str) -> None:
    check(settings(candidate))


@pytest.mark.parametrize(
    ("network", "whose"),
    [
        ("10.192.7.0/24", "pods"),
        ("10.193.0.0/30", "services"),
        ("192.0.2.0/29", "own address"),
        ("192.0.0.0/16", "own address"),
        ("198.51.100.0/24", "eth1"),
        ("198.51.0.0/16", "eth1"),
    ],
)
def test_what_is_somebody_else_s_is_refused(network: str, whose: str) -> None:
    with pytest.raises(HostNotReadyError, match=whose) as caught:
        check(settings(network, host=(LAN, ("198.51.100.0/24", "eth1"))))
    assert "balancer.yaml" in caught.value.hint


def test_a_part_of_a_network_that_the_host_is_in_may_be_given_out() -> None:
    check(settings("192.0.2.64/28"))


def test_the_guard_lets_through_what_listens_at_the_very_address_and_drops_the_rest_last() -> None:
    rules = [line.strip() for line in guard(["172.30.0.0/24", "192.0.2.64/28"]).splitlines() if "daddr" in line]
    there = "ip daddr { 172.30.0.0/24, 192.0.2.64/28 }"
    assert rules == [
        f"{there} tcp flags & (syn | ack) != syn accept",
        f"{there} socket wildcard 0 accept",
        f"{there} icmp type echo-request accept",
        f"{there} drop",
    ]
