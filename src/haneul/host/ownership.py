"""Which processes of this machine are Haneul's: the one answer for `doctor`, `up`, `down` and their tests.

A process is ours if it runs one of our host programs from the component cache, a script from there or one of the
system's programs by a configuration in our folder, or one of this project's with a path there, if it supervises or is
supervised as one of our host services, if it lives in the control group of a container that our container runtime made,
or if it descends from such a one. Everything else is somebody else's, whatever its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Programs of ours that run on the host itself and may outlive what started them.
_HOST_PROGRAMS: Final = frozenset({"containerd", "containerd-shim-runc-v2", "kubelet", "runc"})
#: Programs of the system's that are host services of ours if their configuration is: others may run their own.
_SYSTEM_PROGRAMS: Final = frozenset({"haproxy", "nginx", "pdns_recursor", "pdns_server", "rsync"})
#: The variable that a host service's nginx has for its mark; it shows what it was begun with in its title.
_NGINX_MARK: Final = "env HANEUL_FOLDER="
#: Host services that are this project's own programs, or become others, are these modules, and name a path of ours.
_OWN_PROGRAMS: Final = frozenset({"haneul.app.main", "haneul.host.secluded"})
#: How programs are told their configuration in one word.
_TOLD: Final = re.compile(r"^--config(-dir)?=")
_CONTAINER_ID: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Process:
    """One process as proc(5) shows it; ``groups`` is its /proc/<pid>/cgroup, ``network`` its namespace's inode."""

    pid: int
    parent: int
    executable: str
    arguments: tuple[str, ...]
    groups: str
    network: int = 0

    @property
    def name(self) -> str:
        """Return what people know the process by."""
        return Path(self.executable.removesuffix(" (deleted)") or (self.arguments or ("?",))[0]).name


@dataclass(frozen=True)
class Ownership:
    """The marks by which our processes are known: where programs and definitions lie, which containers are ours."""

    cache: Path
    state: Path
    containers: frozenset[str]

    def of(self, processes: Mapping[int, Process]) -> dict[int, Process]:
        """Return those of ``processes`` that are ours, by their ids."""
        ours = {pid: process for pid, process in processes.items() if self._marked(process)}
        children: dict[int, list[Process]] = {}
        for process in processes.values():
            children.setdefault(process.parent, []).append(process)
        unseen = list(ours)
        while unseen:
            for child in children.get(unseen.pop(), ()):
                if child.pid not in ours:
                    ours[child.pid] = child
                    unseen.append(child.pid)
        return ours

    def _marked(self, process: Process) -> bool:
        executable = Path(process.executable.removesuffix(" (deleted)"))
        if executable.name in _HOST_PROGRAMS and executable.is_relative_to(self.cache):
            return True
        if executable.name in _SYSTEM_PROGRAMS and self._named(process):
            return True
        if self._serves(process) or self._scripted(process):
            return True
        if str(self.state / "supervisord.conf") in process.arguments and "supervisor.supervisord" in process.arguments:
            return True
        if re.search(r"/haneul-[^/]+\.service(/|$)", process.groups, re.MULTILINE):
            return True
        called = process.arguments[0] if process.arguments else ""
        in_container = any(found in self.containers for found in _CONTAINER_ID.findall(process.groups))
        return in_container or called.startswith(f"{self.state}/")

    def _serves(self, process: Process) -> bool:
        """Say whether a program of this project serves this installation's host."""
        below = f"{self.state}/"
        return not _OWN_PROGRAMS.isdisjoint(process.arguments) and any(
            argument.startswith(below) or argument.partition("=")[2].startswith(below) for argument in process.arguments
        )

    def _scripted(self, process: Process) -> bool:
        """Say whether an interpreter of the cache's runs a script of the cache's on what is ours."""
        called, told = process.arguments[:2], process.arguments[2:]
        from_cache = len(called) == 2 and all(Path(word).is_relative_to(self.cache) for word in called)
        return from_cache and any(word.startswith(f"{self.state}/") for word in told)

    def _named(self, process: Process) -> bool:
        """Say whether a process was told a configuration of ours."""
        return any(
            _TOLD.sub("", argument, count=1).startswith(f"{self.state}/") or f"{_NGINX_MARK}{self.state}/" in argument
            for argument in process.arguments
        )


def runs(process: Process, argv: tuple[str, ...], state: Path) -> bool:
    """Say whether a process runs a host service's command, or is the program that this becomes.

    It was called by what the command ends with, the last of which names a path of ours. Of the system's programs that
    last word is enough: HAProxy that was told to read its configuration anew has more before it, as have its workers;
    nginx's master has all in one, its title.
    """
    if not argv or not process.arguments:
        return False
    if process.arguments == argv:
        return True
    if f"{state}/" in argv[-1] and process.arguments == argv[-len(process.arguments) :]:
        return True
    programs = _SYSTEM_PROGRAMS & {Path(argument).name for argument in argv}
    last = process.arguments[-1]
    return process.name in programs and f"{state}/" in argv[-1] and (last == argv[-1] or last.endswith(f" {argv[-1]}"))


def is_called(process: Process, argv: tuple[str, ...], state: Path) -> bool:
    """Say whether a host service's command became this process, which is called by a path of ours that it names."""
    called = process.arguments[0] if process.arguments else ""
    return called.startswith(f"{state}/") and called in argv


def known_containers(*, state: Path, runtime: Path) -> frozenset[str]:
    """Return the ids of containers of our container runtime, from the folders that it keeps for each."""
    folders = (
        runtime / "containerd/io.containerd.runtime.v2.task/k8s.io",
        state / "containerd/io.containerd.runtime.v2.task/k8s.io",
        state / "containerd/io.containerd.grpc.v1.cri/containers",
        state / "containerd/io.containerd.grpc.v1.cri/sandboxes",
    )
    return frozenset(
        path.name
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if _CONTAINER_ID.fullmatch(path.name)
    )


def all_processes(proc: Path = Path("/proc")) -> dict[int, Process]:
    """Return every process that can be seen now, by its id; those that end meanwhile are left out."""
    found = {}
    for folder in proc.iterdir():
        if folder.name.isdigit() and (process := _read(folder)) is not None:
            found[process.pid] = process
    return found


def process_at(pid: int, proc: Path = Path("/proc")) -> Process | None:
    """Return the process of a number if it can be seen now."""
    return _read(proc / str(pid))


def _read(folder: Path) -> Process | None:
    try:
        # The name, in parentheses, may hold anything; the state and the parent's id follow the last of them.
        parent = int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        raw = (folder / "cmdline").read_bytes().rstrip(b"\0")
        groups = (folder / "cgroup").read_text()
    except (OSError, ValueError, IndexError):
        return None
    arguments = tuple(part.decode(errors="replace") for part in raw.split(b"\0")) if raw else ()
    try:
        executable = str((folder / "exe").readlink())
        network = (folder / "ns/net").stat().st_ino
    except OSError:
        # Kernel threads have no executable; a process that has ended and waits for its parent has no namespace.
        executable, network = "", 0
    return Process(int(folder.name), parent, executable, arguments, groups, network)
