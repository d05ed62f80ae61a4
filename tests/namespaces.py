"""Network namespaces of this machine for tests: made, joined by cables, and gone again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

#: setns(2); Python has it from 3.12 on.
_CLONE_NEWNET = 0x40000000


def ip(*arguments: str) -> None:
    """Run ip(8)."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def namespace(name: str) -> Iterator[Path]:
    """Make a network namespace, with its loopback up, and remove it with all that is in it."""
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        yield Path("/run/netns") / name
    finally:
        ip("netns", "delete", name)


@contextlib.contextmanager
def entered(place: Path) -> Iterator[None]:
    """Let this thread, and what it starts, be in a network namespace; sockets stay where they were opened."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _enter(place)
        try:
            yield
        finally:
            _enter(before)
    finally:
        os.close(before)


def _enter(place: Path | int) -> None:
    file = place if isinstance(place, int) else os.open(place, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(file, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        if file != place:
            os.close(file)


def cable(one: str, one_address: str, other: str, other_address: str, *, name: str) -> None:
    """Lay a cable between two namespaces; its ends are called ``name`` and have an address with a length each."""
    ip("-n", one, "link", "add", name, "type", "veth", "peer", "name", name, "netns", other)
    for place, address in ((one, one_address), (other, other_address)):
        ip("-n", place, "address", "add", address, "dev", name)
        ip("-n", place, "link", "set", name, "up")


def inside(place: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a network namespace."""
    return subprocess.run(
        ["nsenter", f"--net=/run/netns/{place}", *command], capture_output=True, text=True, timeout=60, check=False
    )


def reaches(place: str, address: str, port: int, *, source: str = "") -> bool:
    """Say whether a TCP connection comes about within half a second."""
    script = (
        "import socket, sys\n"
        "address, port, source = sys.argv[1:]\n"
        "try:\n"
        "    socket.create_connection((address, int(port)), 0.5, (source, 0) if source else None).close()\n"
        "except OSError:\n"
        "    sys.exit(1)\n"
    )
    return inside(place, sys.executable, "-c", script, address, str(port), source).returncode == 0


@contextlib.contextmanager
def listener(place: str, address: str, port: int) -> Iterator[None]:
    """Accept TCP connections in a namespace; they say what they get back."""
    script = (
        "import socket, sys\n"
        "server = socket.create_server((sys.argv[1], int(sys.argv[2])))\n"
        "print('ready', flush=True)\n"
        "held = []\n"
        "while True:\n"
        "    held.append(server.accept()[0])\n"
    )
    command = ["nsenter", f"--net=/run/netns/{place}", sys.executable, "-c", script, address, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()
