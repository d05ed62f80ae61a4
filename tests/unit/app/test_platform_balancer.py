"""The file of the platform's balancer: made once with a range that fits, and from then on a person's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from haneul.app.platform_balancer import (
    BalancerFiles,
    connections,
    haproxy_service,
    networks_of,
    own_networks,
    settings_of,
    text_of,
)
from haneul.app.reserved import reserved_ranges
from haneul.balancer.settings import BalancerSettings, PoolSettings, read_settings
from haneul.kernel.errors import InvalidInputError
from haneul.management.settings import ManagementSettings
from tests.balancers import short_folder

LAN = ("192.0.2.0/24", "eth0")


def with_pools(*addresses: str, folder: str = "/var/lib/haneul/balancer") -> BalancerSettings:
    pools = [PoolSettings(name=f"p{number}", addresses=(one,)) for number, one in enumerate(addresses)]
    return BalancerSettings(kind="haproxy", folder=Path(folder), supervised=True, pools=tuple(pools))


@pytest.fixture
def state() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def test_the_first_range_that_fits_is_written_down_and_then_kept(state: Path) -> None:
    first = settings_of(state, [LAN])
    assert networks_of(first) == ("172.30.0.0/24",)
    file = state / "balancer.yaml"
    file.write_text(text_of(first))
    assert read_settings(file) == first
    # Also where the host came into that network later: `up` says so then.
    assert settings_of(state, [("172.30.0.0/16", "tun0")]) == first
    assert file.read_text().startswith("#")


def test_what_a_person_wrote_counts_with_all_that_it_says(state: Path) -> None:
    files = BalancerFiles(state, state)
    pool = PoolSettings(name="web", addresses=("192.0.2.64-192.0.2.67", "203.0.113.9"), projects=("shop",))
    wanted = BalancerSettings(kind="haproxy", folder=files.folder, supervised=True, keep_seconds=60, pools=(pool,))
    files.settings.write_text(text_of(wanted))
    assert settings_of(state, [LAN]) == wanted
    assert networks_of(wanted) == ("192.0.2.64/30", "203.0.113.9/32")


@pytest.mark.parametrize("change", [{"folder": "/elsewhere"}, {"supervised": False}])
def test_another_folder_or_one_that_nobody_supervises_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    files = BalancerFiles(tmp_path, tmp_path)
    document = {"kind": "haproxy", "folder": "/var/lib/x", "supervised": True, **change}
    lines = [f"{key}: {str(value).lower()}" for key, value in document.items()]
    files.settings.write_text("\n".join([*lines, "pools: [{name: a, addresses: [192.0.2.64/28]}]", ""]))
    with pytest.raises(InvalidInputError, match="supervised"):
        settings_of(tmp_path, [LAN])


def test_addresses_of_loopback_and_of_the_newer_family_need_no_route() -> None:
    assert networks_of(with_pools("127.9.0.0/28", "2001:db8::/124", "198.51.100.0/31")) == ("198.51.100.0/31",)


def test_a_range_inside_a_network_of_the_host_is_there_on_purpose() -> None:
    assert own_networks(["192.0.2.64/28", "172.30.0.0/24"], [LAN]) == ("172.30.0.0/24",)
    assert own_networks(["192.0.2.0/24"], [LAN]) == ("192.0.2.0/24",)


def test_no_tenant_s_cluster_may_take_the_balancers_range() -> None:
    settings = ManagementSettings("192.0.2.2", "host-a", balancer_networks=("172.30.0.0/24",))
    assert "172.30.0.0/24" in [str(entry.network) for entry in reserved_ranges(settings)]


@pytest.mark.parametrize(("files", "most"), [(20_000, 6_666), (1_048_576, 20_000), (100, 100)])
def test_as_many_connections_as_files_may_be_open(files: int, most: int) -> None:
    assert connections(files) == most


def test_haproxy_forgets_what_it_knew_of_members_before_it_starts() -> None:
    service = haproxy_service(BalancerFiles(Path("/s"), Path("/r")))
    assert service.argv[3:5] == ("/s/balancer/server-state", "/usr/sbin/haproxy")
    assert service.argv[-1] == "/s/balancer/haproxy.cfg"
