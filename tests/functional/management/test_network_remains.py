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
import sys
from pathlib import Path
from haneul.kernel.clock import SystemClock
from haneul.management import packet_rules, remains
from haneul.management.settings import ManagementSettings

# The machine's files and processes are the test's own, its network is the namespace's.
settings = ManagementSettings(address="192.0.2.2", host_name="node-1")
site = remains.Site(settings, Path("/nowhere"), SystemClock(), Path(sys.argv[1]))

async def look():
    prefixes = site.chain_prefixes()
    print(
        await packet_rules.find(prefixes), await remains.find_interfaces(site), await remains.find_routing_rules(site)
    )

async def main():
    await look()
    for _ in range(2):
        await packet_rules.remove(site.chain_prefixes())
        await remains.remove_interfaces(site)
        await remains.remove_routing_rules(site)
    await look()

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


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine without processes; the program and a rule set lie beside it."""
    (tmp_path / "root/proc").mkdir(parents=True)
    (tmp_path / "before").write_text(BEFORE)
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path / "root"


SCRIPT = """
    iptables-nft-restore "$1/before"
    ip link add lxc23a06f635cb0 type veth peer name cilium_host
    ip link add vethabc type veth peer name vethdef
    ip rule add fwmark 0x200/0xf00 priority 9 table 2004
    ip rule add fwmark 0x1 priority 20 table 77
    "$2" "$1/program.py" "$1/root"
    iptables-nft-save | grep -v '^#'
    ip -o link | cut -d: -f2
    ip rule
"""


def test_ours_goes_and_the_rest_stays(machine: Path) -> None:
    found, left, *after = in_namespace(SCRIPT, str(machine.parent), sys.executable)
    for name in ("CILIUM_PRE_mangle", "KUBE-FIREWALL", "lxc23a06f635cb0", "cilium_host", "2004"):
        assert name in found
    assert left == "[] [] []"
    text = "\n".join(after)
    for name in ("CILIUM", "KUBE", "lxc2", "cilium", "2004", "mangle"):
        assert name not in text
    for name in ("-A INPUT -j MINE", "-A MINE -s 192.0.2.0/24 -j ACCEPT", "vethabc", "lookup 77"):
        assert name in text


def test_another_cilium_keeps_all_that_bears_its_name(machine: Path) -> None:
    (machine / "opt/cni/bin").mkdir(parents=True)
    (machine / "opt/cni/bin/cilium-cni").write_text("")
    found, left, *after = in_namespace(SCRIPT, str(machine.parent), sys.executable)
    assert "KUBE-FIREWALL" in found
    assert left == "[] [] []"
    text = "\n".join(after)
    assert "KUBE" not in text
    for name in ("-j CILIUM_PRE_mangle", "lxc23a06f635cb0", "cilium_host", "lookup 2004", "-A INPUT -j MINE"):
        assert name in text


def test_an_untouched_namespace_stays_untouched(machine: Path) -> None:
    script = '"$2" "$1/program.py" "$1/root"; nft list ruleset'
    assert in_namespace(script, str(machine.parent), sys.executable) == ["[] [] []", "[] [] []"]
