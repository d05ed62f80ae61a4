"""Reading the kernel's tables."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from haneul.host.doctor_gather import (
    Expectations,
    bound_at,
    cgroup_layout,
    listening,
    meminfo,
    nearest_existing,
    taken_ports,
)

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:6 - cgroup cgroup rw,cpu,cpuacct\n"
    "32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
)
HYBRID = V1 + "34 30 0:30 / /sys/fs/cgroup/unified rw shared:15 - cgroup2 none rw\n"
ELSEWHERE = "30 23 0:26 / /run/haneul/cgroup2 rw - cgroup2 none rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "layout", "controllers"),
    [
        ("", "none", set()),
        (ELSEWHERE, "none", set()),
        (V1, "v1", {"cpu", "cpuacct", "memory"}),
        (HYBRID, "hybrid", {"cpu", "cpuacct", "memory"}),
        (V2, "v2", {"cpuset", "cpu", "memory", "pids"}),
    ],
)
def test_hierarchies_are_told_apart(tmp_path: Path, mountinfo: str, layout: str, controllers: set[str]) -> None:
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").write_text("cpuset cpu memory pids\n")
    seen, found = cgroup_layout(mountinfo, tmp_path)
    assert str(seen) == layout
    assert found == controllers


def test_memory_is_in_bytes() -> None:
    assert meminfo("MemTotal:       24684084 kB\nHugePages_Total:       0\n") == {"MemTotal": 24684084 * 1024}


def test_only_listening_sockets_count() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 281587 1\n"
        "   1: 0100007F:1D13 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 281588 1\n"
    )
    assert listening(table) == {6443: "281587"}


def test_a_port_at_our_address_is_taken_by_who_has_it_there_or_everywhere() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 3500007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n"
        "   1: 020200C0:0036 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1\n"
        "   2: 00000000:0037 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 3 1\n"
        "   3: 020200C0:0038 01020304:0035 01 00000000:00000000 00:00000000 00000000     0        0 4 1\n"
    )
    assert bound_at(table, "192.0.2.2") == {0x36: "2", 0x37: "3"}


def test_a_resolver_on_loopback_is_not_in_the_way_of_ours(tmp_path: Path) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as resolver:
        resolver.bind(("127.0.0.53", 0))
        port = resolver.getsockname()[1]
        wanted = Expectations(
            state=tmp_path, runtime=tmp_path, cache=tmp_path, ports={}, ports_at_address={port: "a test"}
        )
        assert os.getpid() not in [found.pid for found in taken_ports(replace(wanted, address="192.0.2.2"))]
        (found,) = taken_ports(replace(wanted, address="127.0.0.53"))
    assert (found.port, found.purpose, found.ours, found.pid) == (port, "a test", False, os.getpid())


def test_the_disk_of_a_folder_to_come_is_that_of_its_parent(tmp_path: Path) -> None:
    assert nearest_existing(tmp_path / "a/b/c") == tmp_path
    assert nearest_existing(tmp_path) == tmp_path


def test_who_listens_on_a_wanted_port_is_found_and_is_not_ours(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
        port = server.getsockname()[1]
        wanted = Expectations(state=tmp_path, runtime=tmp_path, cache=tmp_path, ports={port: "a test"})
        (found,) = taken_ports(wanted)
        assert other.getsockname()[1] != port
    assert (found.port, found.purpose, found.ours, found.pid) == (port, "a test", False, os.getpid())
    assert str(os.getpid()) in found.holder
    assert taken_ports(wanted) == ()


def test_our_own_gate_that_nobody_supervises_any_more_is_not_in_the_way(tmp_path: Path) -> None:
    program = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1]); s.accept()"
    served = ("haneul.app.main", "auth", "serve", "--config", str(tmp_path / "gate/gate.yaml"))
    with subprocess.Popen([sys.executable, "-uc", program, *served], stdout=subprocess.PIPE, text=True) as gate:
        try:
            assert gate.stdout
            port = int(gate.stdout.readline())
            wanted = Expectations(state=tmp_path, runtime=tmp_path, cache=tmp_path, ports={port: "a test"})
            (ours,) = taken_ports(wanted)
            (others,) = taken_ports(replace(wanted, state=tmp_path / "another"))
        finally:
            gate.kill()
    assert (ours.ours, ours.pid) == (True, gate.pid)
    assert (others.ours, others.pid) == (False, gate.pid)
