"""What every firewall does: the behaviour suite of the port FirewallBackend."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from haneul.firewall.adapters.memory import MemoryFirewall
from haneul.firewall.adapters.nftables import Gateway, NftablesFirewall
from haneul.firewall.adapters.record_only import RecordOnly
from haneul.firewall.model import Rule
from haneul.firewall.ports import FirewallBackend
from haneul.kernel.kube import NAMESPACES
from haneul.kernel.kube_memory import MemoryKubeClient
from tests.namespaces import namespace

OWNER, OTHER = "0c5e7a0e-6a39-4f4e-9d0d-0a4d5b8f1a11", "9b8f3c52-5a0f-4b64-8f0e-5a1c2d3e4f55"
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def rule(source: str = "192.0.2.7", resource: str = "db-prod", ports: tuple[str, ...] = ("5432/tcp",)) -> Rule:
    return Rule(source=source, resource=resource, destinations=("10.1.2.3/32",), ports=ports)


@pytest.fixture(params=["memory", "record-only", pytest.param("nftables", marks=ROOT)])
async def firewall(request: pytest.FixtureRequest) -> FirewallBackend:
    if request.param == "memory":
        return MemoryFirewall()
    if request.param == "record-only":
        client = MemoryKubeClient()
        await client.apply(NAMESPACES, {"metadata": {"name": "haneul-system"}})
        return RecordOnly(client, "haneul-system")
    place: Path = request.getfixturevalue("place")
    return NftablesFirewall(Gateway(("10.1.0.0/16",), ("nsenter", f"--net={place}")))


@pytest.fixture
def place() -> Iterator[Path]:
    with namespace(f"hn-{secrets.token_hex(3)}") as path:
        yield path


NOBODY: frozenset[str] = frozenset()


async def test_nothing_is_open_at_first(firewall: FirewallBackend) -> None:
    assert await firewall.opened(OWNER) == frozenset()


async def test_exactly_what_is_told_is_open_however_often(firewall: FirewallBackend) -> None:
    two = frozenset({rule(), rule(source="192.0.2.8", ports=("53/udp", "53/tcp", "8000-8010/tcp"))})
    for _ in range(2):
        await firewall.apply(OWNER, two, NOBODY)
        assert await firewall.opened(OWNER) == {one.key for one in two}
    changed = frozenset({rule(ports=("5433/tcp",))})
    await firewall.apply(OWNER, changed, NOBODY)
    assert await firewall.opened(OWNER) == {one.key for one in changed}


async def test_owners_do_not_touch_each_other(firewall: FirewallBackend) -> None:
    await firewall.apply(OWNER, frozenset({rule()}), NOBODY)
    await firewall.apply(OTHER, frozenset({rule(), rule(source="192.0.2.9")}), NOBODY)
    await firewall.apply(OWNER, frozenset(), NOBODY)
    assert await firewall.opened(OWNER) == frozenset()
    assert await firewall.opened(OTHER) == {rule().key, rule(source="192.0.2.9").key}


async def test_who_leaves_keeps_what_was_open_and_gets_nothing_new(firewall: FirewallBackend) -> None:
    await firewall.apply(OWNER, frozenset({rule(), rule(source="192.0.2.8")}), NOBODY)
    await firewall.apply(OWNER, frozenset(), frozenset({"192.0.2.7", "192.0.2.99"}))
    assert await firewall.opened(OWNER) == {rule().key}
    await firewall.apply(OWNER, frozenset(), NOBODY)
    assert await firewall.opened(OWNER) == frozenset()


async def test_overlapping_networks_and_ports_are_taken(firewall: FirewallBackend) -> None:
    wide = Rule(
        source="192.0.2.7",
        resource="all-of-it",
        destinations=("10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32"),
        ports=("1-100/tcp", "50-60/tcp", "80/tcp", "101/tcp", "9/udp"),
    )
    await firewall.apply(OWNER, frozenset({wide}), NOBODY)
    assert await firewall.opened(OWNER) == {wide.key}
