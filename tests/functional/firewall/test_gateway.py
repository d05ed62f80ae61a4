"""The nftables adapter on a real gateway: packets of approved sources pass to a resource behind it, others do not."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from haneul.firewall.adapters.nftables import TABLE, Gateway, NftablesFirewall
from haneul.firewall.model import Rule
from haneul.kernel.errors import UnavailableError
from tests.namespaces import cable, inside, ip, listener, namespace, reaches

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

OWNER = "0c5e7a0e-6a39-4f4e-9d0d-0a4d5b8f1a11"
NODE, STRANGER, DATABASE = "198.51.100.7", "198.51.100.8", "203.0.113.3"
RULE = Rule(source=NODE, resource="db-prod", destinations=(f"{DATABASE}/32",), ports=("5432/tcp",))
NOBODY: frozenset[str] = frozenset()


class Net:
    """Nodes with two addresses, a gateway that forwards, and a database behind it on two ports."""

    def __init__(self, mark: str) -> None:
        self.nodes, self.gateway, self.behind = f"n{mark}", f"g{mark}", f"b{mark}"

    @property
    def firewall(self) -> NftablesFirewall:
        return NftablesFirewall(Gateway(("203.0.113.0/24",), ("nsenter", f"--net=/run/netns/{self.gateway}")))

    def passes(self, source: str, port: int = 5432) -> bool:
        return reaches(self.nodes, DATABASE, port, source=source)


@pytest.fixture
def net() -> Iterator[Net]:
    net = Net(secrets.token_hex(3))
    with namespace(net.nodes), namespace(net.gateway), namespace(net.behind):
        cable(net.nodes, f"{NODE}/24", net.gateway, "198.51.100.1/24", name="inside")
        cable(net.behind, f"{DATABASE}/24", net.gateway, "203.0.113.1/24", name="outside")
        ip("-n", net.nodes, "address", "add", f"{STRANGER}/24", "dev", "inside")
        ip("-n", net.nodes, "route", "add", "default", "via", "198.51.100.1")
        ip("-n", net.behind, "route", "add", "default", "via", "203.0.113.1")
        # /proc/sys/net is that of the namespace of whoever opens it.
        forward = inside(net.gateway, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        assert forward.returncode == 0, forward.stderr
        with listener(net.behind, DATABASE, 5432), listener(net.behind, DATABASE, 22):
            yield net


async def test_only_an_approved_source_reaches_only_its_resource(net: Net) -> None:
    assert net.passes(NODE), "without any rules the gateway forwards, so what follows is the rules' doing"
    await net.firewall.apply(OWNER, frozenset(), NOBODY)
    assert not net.passes(NODE)
    await net.firewall.apply(OWNER, frozenset({RULE}), NOBODY)
    assert net.passes(NODE)
    assert not net.passes(STRANGER)
    assert not net.passes(NODE, port=22)
    await net.firewall.apply(OWNER, frozenset(), frozenset({NODE}))
    assert net.passes(NODE), "who leaves keeps its way until it has left"
    await net.firewall.apply(OWNER, frozenset(), NOBODY)
    assert not net.passes(NODE)


async def test_an_open_connection_ends_with_its_way(net: Net) -> None:
    await net.firewall.apply(OWNER, frozenset({RULE}), NOBODY)
    script = (
        "import socket\n"
        f"s = socket.create_connection(('{DATABASE}', 5432), 2, ('{NODE}', 0))\n"
        "print('open', flush=True)\n"
        "input()\n"
        "s.setsockopt(socket.IPPROTO_TCP, 18, 1000)\n"  # TCP_USER_TIMEOUT, milliseconds
        "s.sendall(b'x')\n"
        "s.settimeout(5)\n"
        "try:\n"
        "    s.recv(1)\n"
        "except TimeoutError:\n"
        "    print('cut')\n"
    )
    process = await asyncio.create_subprocess_exec(
        "nsenter",
        f"--net=/run/netns/{net.nodes}",
        "python3",
        "-c",
        script,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"open\n"
    await net.firewall.apply(OWNER, frozenset(), NOBODY)
    said, _ = await process.communicate(b"\n")
    assert said == b"cut\n"


async def test_what_others_wrote_on_the_gateway_stays(net: Net) -> None:
    script = "add table ip company; add chain ip company own; add rule ip company own counter"
    assert inside(net.gateway, "nft", script).returncode == 0
    await net.firewall.apply(OWNER, frozenset({RULE}), NOBODY)
    assert (
        inside(net.gateway, "nft", f'add rule ip {TABLE} ways ip saddr {STRANGER} accept comment "by hand"').returncode
        == 0
    )
    await net.firewall.apply(OWNER, frozenset(), NOBODY)
    left = inside(net.gateway, "nft", "list", "ruleset").stdout
    assert "chain own" in left
    assert "by hand" in left
    assert NODE not in left


async def test_rules_that_somebody_took_away_come_back(net: Net) -> None:
    await net.firewall.apply(OWNER, frozenset({RULE}), NOBODY)
    assert inside(net.gateway, "nft", "flush", "ruleset").returncode == 0
    await net.firewall.apply(OWNER, frozenset({RULE}), NOBODY)
    assert net.passes(NODE)
    assert not net.passes(STRANGER)


async def test_a_gateway_that_is_not_there_is_an_error_with_its_words(tmp_path: Path) -> None:
    firewall = NftablesFirewall(Gateway(("203.0.113.0/24",), ("nsenter", f"--net={tmp_path}/none")))
    with pytest.raises(UnavailableError, match="none"):
        await firewall.apply(OWNER, frozenset({RULE}), NOBODY)
