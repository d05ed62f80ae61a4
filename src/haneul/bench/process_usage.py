"""What processes cost: memory and processor time of this host's process table, see proc(5).

RSS counts every resident page in full, private ones and those of the program's file. PSS divides a page by the number
of processes that share it, so only PSS may be added up over clusters that run the same programs. Anonymous memory is
what a process has made itself: heap and stacks. Neighbours: :mod:`haneul.bench.ports` has the port.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_KIB: Final = 1024
_MIB: Final = 1 << 20
# Container ids are the last parts of containers' cgroup paths, bare or as systemd writes them.
_CONTAINER: Final = re.compile(r"([0-9a-f]{64})(?:\.scope)?$")
_SHIM: Final = "containerd-shim"


@dataclass(frozen=True)
class Reading:
    """One look at one process: memory in bytes, processor time since it started in seconds."""

    name: str
    rss: int
    anonymous: int
    pss: int
    cpu_seconds: float


@dataclass(frozen=True)
class Usage:
    """All processes of one name over a time: memory in MiB at its end, processors used on average."""

    name: str
    count: int
    rss_mib: float
    anonymous_mib: float
    pss_mib: float
    cores: float


class HostProcesses:
    """The process table of this host; ``root`` is the root of the file system unless a test passes another."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._proc = root / "proc"
        self._ticks_per_second = os.sysconf("SC_CLK_TCK")

    def read(self, pids: Iterable[int]) -> dict[int, Reading]:
        """Return a reading of each process that is still there."""
        found = {pid: self._reading(pid) for pid in pids}
        return {pid: reading for pid, reading in found.items() if reading is not None}

    def of_pods(self, uids: Collection[str]) -> list[int]:
        """Return the processes of pods of the management cluster, and of the shims that hold their containers.

        A shim serves its pod alone but stands outside of its cgroup, so it is found by the container it names.
        """
        inside, containers, shims = [], set[str](), dict[int, str]()
        for pid in sorted(int(path.name) for path in self._proc.iterdir() if path.name.isdigit()):
            words = self._words(pid)
            if words and Path(words[0]).name.startswith(_SHIM) and "-id" in words[:-1]:
                shims[pid] = words[words.index("-id") + 1]
            elif (path := _pod_cgroup(self._file(pid, "cgroup"), uids)) is not None:
                inside.append(pid)
                if found := _CONTAINER.search(path):
                    containers.add(found[1])
        return inside + [pid for pid, container in shims.items() if container in containers]

    def _reading(self, pid: int) -> Reading | None:
        status, stat = self._file(pid, "status"), self._file(pid, "stat")
        rss = _kibibytes(status, "VmRSS")
        if rss is None or not stat:
            return None
        pss = _kibibytes(self._file(pid, "smaps_rollup"), "Pss")
        # The name in parentheses may hold spaces, so count from its end; the third field follows it.
        fields = stat.rpartition(")")[2].split()
        user, system = int(fields[11]), int(fields[12])
        words = self._words(pid)
        name = Path(words[0]).name if words else str(pid)
        return Reading(
            name=_SHIM if name.startswith(_SHIM) else name,
            rss=rss,
            anonymous=_kibibytes(status, "RssAnon") or 0,
            pss=rss if pss is None else pss,
            cpu_seconds=(user + system) / self._ticks_per_second,
        )

    def _words(self, pid: int) -> list[str]:
        return self._file(pid, "cmdline").rstrip("\0").split("\0")

    def _file(self, pid: int, name: str) -> str:
        try:
            return (self._proc / str(pid) / name).read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return ""


def usage_between(before: Mapping[int, Reading], after: Mapping[int, Reading], seconds: float) -> tuple[Usage, ...]:
    """Return what the processes of ``after`` cost, by name, the greatest first; ``seconds`` passed between the looks.

    A process that is only in ``after`` started meanwhile: all of its processor time counts.
    """
    usages = []
    for name in {reading.name for reading in after.values()}:
        mine = {pid: reading for pid, reading in after.items() if reading.name == name}
        earlier = {pid: before[pid].cpu_seconds if pid in before else 0.0 for pid in mine}
        used = sum(reading.cpu_seconds - earlier[pid] for pid, reading in mine.items())
        usages.append(
            Usage(
                name=name,
                count=len(mine),
                rss_mib=sum(one.rss for one in mine.values()) / _MIB,
                anonymous_mib=sum(one.anonymous for one in mine.values()) / _MIB,
                pss_mib=sum(one.pss for one in mine.values()) / _MIB,
                cores=used / seconds,
            )
        )
    return tuple(sorted(usages, key=lambda usage: (-usage.rss_mib, usage.name)))


def total(usages: Iterable[Usage]) -> Usage:
    """Return all usages together, named ``together``."""
    usages = list(usages)
    return Usage(
        name="together",
        count=sum(usage.count for usage in usages),
        rss_mib=sum(usage.rss_mib for usage in usages),
        anonymous_mib=sum(usage.anonymous_mib for usage in usages),
        pss_mib=sum(usage.pss_mib for usage in usages),
        cores=sum(usage.cores for usage in usages),
    )


def _pod_cgroup(text: str, uids: Collection[str]) -> str | None:
    """Return the cgroup path that belongs to one of the pods; systemd's cgroup driver writes ``_`` for ``-``."""
    for line in text.splitlines():
        path = line.rpartition(":")[2]
        if any(f"pod{uid}" in path or f"pod{uid.replace('-', '_')}" in path for uid in uids):
            return path
    return None


def _kibibytes(text: str, field: str) -> int | None:
    """Return a field of the form ``Name:  123 kB`` in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * _KIB if found else None
