"""Ingress's range on a host, and the users of proxies."""

from __future__ import annotations

import sys
from ipaddress import ip_network
from pathlib import Path

import pytest

from haneul.host.ownership import Ownership, Process
from haneul.kernel.errors import InvalidInputError
from haneul.management import public_addresses, ranges
from haneul.management.ingress_host import CANDIDATES, IngressFiles, range_of, user_of, worker_service
from haneul.management.settings import ManagementSettings


def test_a_range_is_chosen_beside_the_hosts_networks_and_then_kept(tmp_path: Path) -> None:
    assert range_of(tmp_path, ()) == ManagementSettings.ingress
    assert range_of(tmp_path, [("10.198.3.0/24", "eth1")]) == CANDIDATES[1]
    file = IngressFiles(tmp_path).range
    file.parent.mkdir()
    file.write_text("10.250.0.0/24\n")
    assert range_of(tmp_path, [("10.250.0.0/16", "eth1")]) == "10.250.0.0/24"


@pytest.mark.parametrize(
    "text", ["", "none", "10.250.0.1/24", "8.8.8.0/24", "10.0.0.0/8", "10.250.0.0/30", "fd00::/20"]
)
def test_a_range_that_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    file = IngressFiles(tmp_path).range
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(InvalidInputError):
        range_of(tmp_path, ())


def test_no_candidate_touches_another_range_of_the_platforms() -> None:
    others = [entry for one in ranges.CANDIDATES for entry in (one.pods, one.services)] + list(
        public_addresses.CANDIDATES
    )
    assert not [
        (ours, other) for ours in CANDIDATES for other in others if ip_network(ours).overlaps(ip_network(other))
    ]
    pools = [ip_network("10.0.0.0/9"), ip_network("10.128.0.0/10")]
    assert not [ours for ours in CANDIDATES for pool in pools if ip_network(ours).overlaps(pool)]


def test_each_address_has_a_user_that_nobody_else_is() -> None:
    users = [user_of(str(address), "10.198.0.0/24") for address in ip_network("10.198.0.0/24").hosts()]
    assert len(set(users)) == len(users)
    # Those of containers in pods with users of their own, and of systemd's, lie below and above (UIDS-GIDS of systemd).
    assert min(users) > 1879048191
    assert max(user_of("10.15.255.254", "10.0.0.0/12"), *users) < 2147352576


def test_another_build_is_another_worker() -> None:
    state = Path("/var/lib/haneul")
    assert worker_service(state, build="a", search_path="/bin") != worker_service(state, build="b", search_path="/bin")


def test_the_worker_is_known_as_ours_also_when_nobody_supervises_it_any_more() -> None:
    state = Path("/var/lib/haneul")
    worker = Process(7, 1, sys.executable, worker_service(state, build="a", search_path="/bin").argv, "0::/\n")
    assert set(Ownership(Path("/nowhere"), state, frozenset()).of({7: worker})) == {7}
