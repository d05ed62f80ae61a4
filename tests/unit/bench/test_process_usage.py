"""What processes cost, read from a process table made of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from haneul.bench.process_usage import HostProcesses, Reading, Usage, total, usage_between

POD = "0f5d7c9e-1111-2222-3333-444455556666"
OTHER = "aaaaaaaa-1111-2222-3333-444455556666"
SANDBOX, CONTAINER = "a" * 64, "b" * 64
MIB = 1 << 20


def process(
    root: Path, pid: int, *, words: tuple[str, ...], cgroup: str = "0::/\n", rss: int = 2048, pss: int | None = 1024
) -> None:
    folder = root / "proc" / str(pid)
    folder.mkdir(parents=True)
    folder.joinpath("cmdline").write_text("\0".join(words) + "\0")
    folder.joinpath("cgroup").write_text(cgroup)
    folder.joinpath("status").write_text(f"Name:\tx\nVmPeak:\t  99999 kB\nVmRSS:\t  {rss} kB\nRssAnon:\t 512 kB\n")
    if pss is not None:
        folder.joinpath("smaps_rollup").write_text(f"00-ff ---p 00 00:00 0 [rollup]\nRss: {rss} kB\nPss:   {pss} kB\n")
    folder.joinpath("stat").write_text(f"{pid} (a (b) c) S 1 1 1 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 99\n")


def cgroup_v1(uid: str, container: str) -> str:
    return f"12:memory:/kubepods/burstable/pod{uid}/{container}\n1:name=systemd:/\n0::/\n"


def test_a_reading_has_memory_in_bytes_and_seconds(tmp_path: Path) -> None:
    process(tmp_path, 7, words=("/usr/bin/etcd", "--name=a"))
    reading = HostProcesses(tmp_path).read([7, 8])
    assert reading == {7: Reading("etcd", 2 * MIB, MIB // 2, MIB, 200 / os.sysconf("SC_CLK_TCK"))}


def test_without_a_rollup_everything_resident_counts(tmp_path: Path) -> None:
    process(tmp_path, 7, words=("etcd",), pss=None)
    assert HostProcesses(tmp_path).read([7])[7].pss == 2 * MIB


@pytest.mark.parametrize(
    "cgroup",
    [
        cgroup_v1(POD, CONTAINER),
        f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD.replace('-', '_')}.slice/"
        f"cri-containerd-{CONTAINER}.scope\n",
    ],
    ids=["version 1, cgroupfs", "version 2, systemd"],
)
def test_a_pods_processes_and_its_shim_are_found(tmp_path: Path, cgroup: str) -> None:
    shim = ("/opt/containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", CONTAINER, "-address", "x")
    process(tmp_path, 10, words=shim)
    process(tmp_path, 11, words=("kube-apiserver",), cgroup=cgroup)
    process(tmp_path, 12, words=("other",), cgroup=cgroup_v1(OTHER, SANDBOX))
    process(tmp_path, 13, words=("containerd-shim-runc-v2", "-id", SANDBOX))
    process(tmp_path, 14, words=("bash",))
    processes = HostProcesses(tmp_path)
    assert processes.of_pods([POD]) == [11, 10]
    assert processes.of_pods([]) == []
    assert processes.read([10])[10].name == "containerd-shim"


def test_usage_is_by_name_over_the_time_that_passed() -> None:
    before = {1: Reading("etcd", 1, 1, 1, 1.0), 2: Reading("pause", 1, 1, 1, 0.0), 3: Reading("gone", 1, 1, 1, 5.0)}
    after = {
        1: Reading("etcd", 4 * MIB, 2 * MIB, 3 * MIB, 3.0),
        2: Reading("pause", MIB, 0, MIB // 2, 0.0),
        4: Reading("pause", MIB, 0, MIB // 2, 1.0),
    }
    etcd, pause = usage_between(before, after, 10)
    assert etcd == Usage("etcd", 1, 4, 2, 3, 0.2)
    assert pause == Usage("pause", 2, 2, 0, 1, 0.1)
    assert total([etcd, pause]) == Usage("together", 3, 6, 2, 4, 0.2 + 0.1)


def test_this_process_is_found_in_the_real_table() -> None:
    mine = HostProcesses().read([os.getpid()])[os.getpid()]
    assert mine.rss >= mine.pss > 0
    assert mine.cpu_seconds > 0
