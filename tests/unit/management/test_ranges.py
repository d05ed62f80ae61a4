"""The management cluster's ranges are chosen beside the host's networks once, and then stay."""

from dataclasses import replace
from pathlib import Path

import pytest

from haneul.kernel.errors import HostNotReadyError
from haneul.management.ranges import CANDIDATES, check, keep, ranges_of
from haneul.management.settings import ManagementSettings

LAN = ("192.0.2.0/24", "eth0")


def settings_in(state: Path, *host: tuple[str, str]) -> ManagementSettings:
    ranges = ranges_of(state, host)
    base = ManagementSettings(address="192.0.2.2", host_name="node-1", state=state)
    return replace(base, pods=ranges.pods, services=ranges.services, host_networks=host)


def test_the_usual_ranges_are_taken_where_they_are_free(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, LAN)
    check(settings)
    assert (settings.pods, settings.services) == ("10.192.0.0/16", "10.193.0.0/16")


@pytest.mark.parametrize("network", ["10.192.3.0/24", "10.193.0.1/32", "10.0.0.0/8"])
def test_others_are_chosen_where_the_host_has_the_usual_ones(tmp_path: Path, network: str) -> None:
    settings = settings_in(tmp_path, LAN, (network, "eth1"))
    check(settings)
    assert settings.pods != "10.192.0.0/16"


def test_what_was_chosen_stays_and_a_network_that_came_later_is_refused(tmp_path: Path) -> None:
    first = settings_in(tmp_path, ("10.192.0.0/24", "eth1"))
    keep(first)
    assert settings_in(tmp_path, LAN).pods == first.pods
    later = settings_in(tmp_path, (first.services, "tun0"))
    assert later.services == first.services
    with pytest.raises(HostNotReadyError, match="tun0") as caught:
        check(later)
    assert caught.value.hint


def test_a_cluster_from_before_ranges_were_kept_has_the_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "kubeadm.yaml").write_text("")
    assert ranges_of(tmp_path, [("10.192.0.0/24", "eth1")]) == CANDIDATES[0]


def test_a_host_in_all_private_networks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostNotReadyError):
        check(settings_in(tmp_path, ("10.0.0.0/8", "tun0"), ("172.16.0.0/12", "tun0")))
