"""Making ranges this host's own in a real kernel, in a network namespace that ends with the test."""

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("nft"),
    reason="needs root, unshare and nft",
)

PROGRAM = """
import asyncio
import socket
from haneul.management import public_addresses

async def main():
    await public_addresses.ensure(["198.51.100.0/24", "203.0.113.7/32"])
    print(await public_addresses.find())
    # What is wanted no more goes, what is there stays; somebody else's route is not ours.
    for _ in range(2):
        await public_addresses.ensure(["198.51.100.0/24"])
    print(await public_addresses.find())
    with socket.socket() as listening:
        listening.bind(("198.51.100.77", 0))
        listening.listen()
        listening.settimeout(10)
        with socket.create_connection(listening.getsockname(), timeout=10) as client:
            taken, _ = listening.accept()
            # Beginning is one thing, and being heard another.
            client.sendall(b"word")
            taken.settimeout(10)
            print(client.getpeername()[0], taken.recv(4).decode())
            taken.close()
    # Who listens at all addresses is not reached at these.
    with socket.socket() as everywhere:
        everywhere.bind(("0.0.0.0", 0))
        everywhere.listen()
        port = everywhere.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            print(client.getpeername()[0])
        try:
            socket.create_connection(("198.51.100.78", port), timeout=1).close()
            print("reached")
        except TimeoutError:
            print("not reached")
    print(await public_addresses.remains())
    for _ in range(2):
        await public_addresses.remove()
    print(await public_addresses.find(), await public_addresses.remains())

asyncio.run(main())
"""


def test_ranges_are_this_host_s_until_they_are_removed_and_nobody_else_s_routes_are_touched() -> None:
    script = 'ip link set lo up; ip route add local 192.0.2.0/28 dev lo; "$1" -c "$2"; ip route show table local'
    completed = subprocess.run(
        ["unshare", "--net", "sh", "-euc", script, "sh", sys.executable, PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    first, second, reached, usual, guarded, left, last, *routes = completed.stdout.splitlines()
    assert first == "['198.51.100.0/24', '203.0.113.7/32']"
    assert second == "['198.51.100.0/24']"
    assert reached == "198.51.100.77 word"
    assert (usual, guarded) == ("127.0.0.1", "not reached")
    assert left == "['local route of 198.51.100.0/24', 'nft table ip haneul_balancer']"
    assert last == "[] []"
    assert any("192.0.2.0/28" in route for route in routes)
    assert not any("198.51.100" in route for route in routes)
