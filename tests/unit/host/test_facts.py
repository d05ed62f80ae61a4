"""Facts about this machine, read from what the kernel and `ip` show."""

from pathlib import Path
from typing import Any

import pytest

from haneul.host import facts

# The effective set of root in a machine without CAP_SYS_RESOURCE (24), and a full one.
LACKING = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t000001fffeffffff\n"
FULL = "Name:\tx\nCapEff:\t000001ffffffffff\n"


def test_capabilities_are_read_from_the_effective_set() -> None:
    assert facts.held_capabilities(FULL) == set(facts.CAPABILITIES)
    assert facts.held_capabilities(LACKING) == set(facts.CAPABILITIES) - {"CAP_SYS_RESOURCE"}
    assert facts.held_capabilities("CapEff:\t0000000000000000\n") == frozenset()
    assert facts.held_capabilities("") == frozenset()


@pytest.mark.parametrize(("status", "restricted"), [(LACKING, True), (FULL, False)])
def test_oom_scores_are_restricted_without_the_capability(tmp_path: Path, status: str, restricted: bool) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text(status)
    assert facts.restrict_oom_score(tmp_path) is restricted


def test_systemd_is_recognised_by_its_folder(tmp_path: Path) -> None:
    assert facts.systemd(tmp_path) is False
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert facts.systemd(tmp_path) is True


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("cilium_host", True),
        ("cilium_net", True),
        ("lxc23a06f635cb0", True),
        ("lxc_health", True),
        ("lxcbr0", False),
        ("eth0", False),
        ("vethabc", False),
    ],
)
def test_interfaces_of_cilium_are_known_by_their_names(name: str, ours: bool) -> None:
    assert facts.made_by_cilium(name) is ours


def interface(name: str, *addresses: tuple[str, str]) -> dict[str, Any]:
    return {"ifname": name, "addr_info": [{"local": local, "scope": scope} for local, scope in addresses]}


def test_addresses_of_containers_are_not_the_hosts() -> None:
    seen = [
        interface("lo", ("127.0.0.1", "host")),
        interface("cilium_host", ("10.192.0.1", "global")),
        interface("docker0", ("172.17.0.1", "global")),
        interface("eth1", ("192.0.2.9", "global"), ("192.0.2.10", "link")),
        {"ifname": "eth2"},
    ]
    assert facts.global_addresses(seen) == ["192.0.2.9"]


def test_the_hosts_name_is_a_node_name() -> None:
    name = facts.host_name()
    assert name == name.lower()
    assert "." not in name
