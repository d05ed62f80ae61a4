"""Taking our rules and interfaces out of a real kernel, in a network namespace that ends with the test."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("iptables-nft"),
    reason="needs root, unshare and iptables",
)

BEFORE = """\
*mangle
:CILIUM_PRE_mangle - [0:0]
-A PREROUTING -m comment --comment "cilium-feeder: CILIUM_PRE_mangle" -j CILIUM_PRE_mangle
-A CILIUM_PRE_mangle -m mark ! --mark 0xe00/0xf00 -j MARK --set-xmark 0x200/0xffffffff
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:MINE - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -j MINE
-A MINE -s 192.0.2.0/24 -j ACCEPT
-A KUBE-FIREWALL -d 127.0.0.0/8 -j DROP
COMMIT
"""
PROGRAM = """
import asyncio
from haneul.management import packet_rules, remains

async def main():
    print(await packet_rules.find(), await remains.find_interfaces(), await remains.find_routing_rules())
    for _ in range(2):
        await packet_rules.remove()
        await remains.remove_interfaces()
        await remains.remove_routing_rules()
    print(await packet_rules.find(), await remains.find_interfaces(), await remains.find_routing_rules())

asyncio.run(main())
"""


def in_namespace(script: str, *arguments: str) -> list[str]:
    """Run a shell script in a network namespace of its own and return the lines that it printed."""
    completed = subprocess.run(
        ["unshare", "--net", "sh", "-euc", script, "sh", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout.splitlines()


def test_ours_goes_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / "before").write_text(BEFORE)
    (tmp_path / "program.py").write_text(PROGRAM)
    lines = in_namespace(
        """
        iptables-nft-restore "$1"
        ip link add lxc23a06f635cb0 type veth peer name cilium_host
        ip link add vethabc type veth peer name vethdef
        ip rule add fwmark 0x200/0xf00 priority 9 table 2004
        ip rule add fwmark 0x1 priority 20 table 77
        "$2" "$3"
        iptables-nft-save | grep -v '^#'
        ip -o link | cut -d: -f2
        ip rule
        """,
        str(tmp_path / "before"),
        sys.executable,
        str(tmp_path / "program.py"),
    )
    found, left, *after = lines
    for name in ("CILIUM_PRE_mangle", "KUBE-FIREWALL", "lxc23a06f635cb0", "cilium_host", "2004"):
        assert name in found
    assert left == "[] [] []"
    text = "\n".join(after)
    for name in ("CILIUM", "KUBE", "lxc2", "cilium", "2004", "mangle"):
        assert name not in text
    for name in ("-A INPUT -j MINE", "-A MINE -s 192.0.2.0/24 -j ACCEPT", "vethabc", "lookup 77"):
        assert name in text


def test_an_untouched_namespace_stays_untouched(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    lines = in_namespace('"$1" "$2"; nft list ruleset', sys.executable, str(tmp_path / "program.py"))
    assert lines == ["[] [] []", "[] [] []"]
