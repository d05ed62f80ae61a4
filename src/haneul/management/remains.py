"""What an installation leaves on a host outside its own folders, kind by kind: how to find it and how to remove it.

Every kind is found by what it is, so that removal can be repeated and goes on where an earlier one was ended. Places
that several Kubernetes installations would share are only looked at while no other kubelet runs on this machine, and
what bears Cilium's name only while no other Cilium is installed: of two, the names are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from haneul.host.facts import made_by_cilium
from haneul.host.ownership import Ownership, Process, all_processes, known_containers, process_at
from haneul.kernel.clock import Clock
from haneul.kernel.process import run
from haneul.kernel.processes import send_if
from haneul.kernel.waiting import wait_for
from haneul.management.settings import ManagementSettings

_CALL_SECONDS: Final = 30.0
_BPF: Final = Path("/sys/fs/bpf")
_MOUNTS: Final = Path("/proc/self/mountinfo")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_NETWORK_NAMESPACES: Final = Path("/run/netns")
_KUBELETS: Final = frozenset({"kubelet", "k3s", "k3s-server", "k3s-agent", "rke2", "k0s", "kubelite"})
#: Where an installation of Cilium that is not ours has its plugin and configuration; ours are in our own folder.
_OTHER_CILIUMS: Final = (
    ("/etc/cni/net.d", "*cilium*"),
    ("/opt/cni/bin", "cilium-cni"),
    ("/var/lib/rancher/k3s/agent/etc/cni/net.d", "*cilium*"),
    ("/var/lib/rancher/k3s/data", "*/bin/cilium-cni"),
)
#: Routing tables in which Cilium steers packets to and from its proxies.
_CILIUM_TABLES: Final = frozenset({"2004", "2005"})


@dataclass(frozen=True)
class Site:
    """The machine as a purge sees it. ``cache`` is the component cache, ``root`` the file system's root."""

    settings: ManagementSettings
    cache: Path
    clock: Clock
    root: Path = Path("/")

    def at(self, path: Path) -> Path:
        """Return where an absolute path lies below the root."""
        return self.root / path.relative_to("/")

    def processes(self) -> tuple[dict[int, Process], dict[int, Process]]:
        """Return our processes and all others; this process and those that it runs under are never ours to end."""
        everything = all_processes(self.at(Path("/proc")))
        settings = self.settings
        containers = known_containers(state=self.at(settings.state), runtime=self.at(settings.runtime))
        ours = Ownership(self.cache, settings.state, containers).of(everything)
        pid = os.getpid()
        while pid in everything:
            ours.pop(pid, None)
            pid = everything[pid].parent
        return ours, {pid: process for pid, process in everything.items() if pid not in ours}

    def shared(self) -> bool:
        """Say whether places that other installations would use too are ours: no other kubelet runs here."""
        _, others = self.processes()
        mark = self.at(Path("/etc/kubernetes/haneul-owned"))
        foreign = mark.parent.is_dir() and any(mark.parent.iterdir()) and not mark.exists()
        return not foreign and not any(process.name in _KUBELETS for process in others.values())

    def cilium(self) -> bool:
        """Say whether what Cilium left in the kernel is ours.

        It is not where another Cilium runs or is installed. Beside another kubelet it is ours only if our agent has
        come so far as to write its configuration.
        """
        _, others = self.processes()
        if any(process.name == "cilium-agent" for process in others.values()):
            return False
        if any(any(self.at(Path(folder)).glob(pattern)) for folder, pattern in _OTHER_CILIUMS):
            return False
        return self.shared() or self.at(self.settings.state / "cni/net.d/05-cilium.conflist").exists()

    def chain_prefixes(self) -> tuple[str, ...]:
        """Return the prefixes of the packet filter chains that are ours, not another installation's."""
        return (*(("KUBE",) if self.shared() else ()), *(("CILIUM",) if self.cilium() else ()))


def mounts_below(mountinfo: str, folders: Iterable[Path]) -> list[str]:
    """Return the mount points at or below ``folders`` in a /proc/<pid>/mountinfo, the last mounted first."""
    places = [_unescaped(line.split()[4]) for line in mountinfo.splitlines() if line.strip()]
    roots = tuple(folders)
    return [place for place in reversed(places) if any(Path(place).is_relative_to(root) for root in roots)]


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _unescaped(place: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), place)


async def end_processes(site: Site, *, spare: Callable[[Process], bool] = lambda process: False) -> None:
    """End every process of ours at once, but those that ``spare`` asks for, and wait until they are gone."""

    async def none_left() -> bool:
        ours, _ = await asyncio.to_thread(site.processes)
        living = [process for process in ours.values() if process.executable and not spare(process)]
        for process in living:
            send_if(process.pid, signal.SIGKILL, partial(_is_still, process))
        return not living

    await wait_for(none_left, what="processes of ours to end", timeout=60, clock=site.clock)


def _is_still(process: Process) -> bool:
    """Say whether the process of a number is the one that was seen, whoever its parent may be by now."""
    now = process_at(process.pid)
    return now is not None and replace(now, parent=process.parent) == process


def find_processes(site: Site) -> list[str]:
    """Return our processes, for people."""
    ours, _ = site.processes()
    return [f"process {process.pid} {process.name}" for process in ours.values() if process.executable]


def find_mounts(site: Site) -> list[str]:
    """Return mount points of ours, the last mounted first."""
    settings = site.settings
    folders = [settings.state, settings.runtime, *([Path("/var/lib/kubelet")] if site.shared() else [])]
    return mounts_below(site.at(_MOUNTS).read_text(), folders)


async def remove_mounts(site: Site) -> None:
    """Unmount all that is ours, also what is still in use: its users have been ended."""
    for _ in range(5):
        places = await asyncio.to_thread(find_mounts, site)
        if not places:
            return
        for start in range(0, len(places), 100):
            await run(["umount", "--lazy", *places[start : start + 100]], timeout=_CALL_SECONDS, check=False)


def find_network_namespaces(site: Site) -> list[str]:
    """Return pods' network namespaces in which no process of somebody else lives."""
    folder = site.at(_NETWORK_NAMESPACES)
    if not folder.is_dir() or not site.shared():
        return []
    _, others = site.processes()
    used = {process.network for process in others.values()}
    return [str(path) for path in sorted(folder.glob("cni-*")) if (inode := _inode(path)) and inode not in used]


async def remove_network_namespaces(site: Site) -> None:
    """Let go of abandoned network namespaces; the kernel ends them, and their interfaces with them."""
    for name in await asyncio.to_thread(find_network_namespaces, site):
        await run(["umount", "--lazy", name], timeout=_CALL_SECONDS, check=False)
        _delete(Path(name))


async def find_interfaces(site: Site) -> list[str]:
    """Return the network interfaces that our Cilium made."""
    if not await asyncio.to_thread(site.cilium):
        return []
    names = [str(link["ifname"]) for link in await _json("ip", "-j", "link", "show")]
    return sorted(name for name in names if made_by_cilium(name))


async def remove_interfaces(site: Site) -> None:
    """Delete Cilium's interfaces and with them the routes through them. Of a pair, the second is gone already."""
    for name in await find_interfaces(site):
        await run(["ip", "link", "delete", name], timeout=_CALL_SECONDS, check=False)


async def find_routing_rules(site: Site) -> list[str]:
    """Return our Cilium's policy routing rules as arguments of ``ip``."""
    if not await asyncio.to_thread(site.cilium):
        return []
    found = []
    for family in ("-4", "-6"):
        for rule in await _json("ip", "-j", family, "rule", "show"):
            if str(rule.get("table")) in _CILIUM_TABLES:
                found.append(f"{family} rule delete priority {rule['priority']} table {rule['table']}")
    return found


async def remove_routing_rules(site: Site) -> None:
    """Delete Cilium's policy routing rules and the tables that they point to."""
    for arguments in await find_routing_rules(site):
        await run(["ip", *arguments.split()], timeout=_CALL_SECONDS, check=False)
        family, table = arguments.split()[0], arguments.split()[-1]
        await run(["ip", family, "route", "flush", "table", table], timeout=_CALL_SECONDS, check=False)


def find_bpf(site: Site) -> list[str]:
    """Return what our Cilium pinned in bpf's file system: programs' links, which detach once removed, and maps."""
    if not site.cilium():
        return []
    folder = site.at(_BPF)
    found = [folder / "cilium", *sorted((folder / "tc/globals").glob("cilium_*"))]
    return [str(path) for path in found if path.exists()]


async def remove_bpf(site: Site) -> None:
    """Remove Cilium's pins and filters, and bpf's file system if `up` mounted it."""
    for name in find_bpf(site):
        await asyncio.to_thread(_delete, Path(name))
    for folder in (_BPF / "tc/globals", _BPF / "tc"):
        _remove_if_empty(site.at(folder))
    for arguments in await find_filters(site):
        await run(["tc", *arguments.split()], timeout=_CALL_SECONDS, check=False)
    if await asyncio.to_thread(_mounted_for_us_alone, site):
        await run(["umount", str(site.at(_BPF))], timeout=_CALL_SECONDS, check=False)


def _mounted_for_us_alone(site: Site) -> bool:
    """Say whether `up` mounted bpf's file system and nobody has pinned anything since; two files are always there."""
    mark, folder = site.at(site.settings.state / "mounted-bpf"), site.at(_BPF)
    return mark.exists() and {path.name for path in folder.iterdir()} <= {"maps.debug", "progs.debug"}


async def find_filters(site: Site) -> list[str]:
    """Return our Cilium's traffic filters of the older kind, on kernels without tcx, as arguments of ``tc``."""
    if not await asyncio.to_thread(site.cilium):
        return []
    found = []
    for link in await _json("ip", "-j", "link", "show"):
        for direction in ("ingress", "egress"):
            device = str(link["ifname"])
            for entry in await _json("tc", "-j", "filter", "show", "dev", device, direction):
                if str(entry.get("options", {}).get("bpf_name", "")).startswith("cil_"):
                    found.append(f"filter delete dev {device} {direction} pref {entry['pref']}")
    return sorted(set(found))


def find_cgroups(site: Site) -> list[str]:
    """Return the kubelet's control groups in every hierarchy, the deepest first."""
    if not site.shared():
        return []
    top = site.at(_CGROUPS)
    roots = [folder / name for folder in (top, *_folders(top)) for name in ("kubepods", "kubepods.slice")]
    return [str(folder) for root in roots if root.is_dir() for folder in _deepest_first(root)]


async def remove_cgroups(site: Site) -> None:
    """Remove the kubelet's control groups; the last processes may take a moment to leave them."""

    async def gone() -> bool:
        left = await asyncio.to_thread(find_cgroups, site)
        for name in left:
            _remove_if_empty(Path(name))
        return not left

    await wait_for(gone, what="control groups of pods to be empty", timeout=20, clock=site.clock)


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()] if folder.is_dir() else []


def _deepest_first(folder: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return [*(below for child in _folders(folder) for below in _deepest_first(child)), folder]
    return []


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


async def _json(*argv: str) -> list[dict[str, Any]]:
    completed = await run(argv, timeout=_CALL_SECONDS, check=False)
    if completed.status != 0 or not completed.stdout.strip():
        return []
    return [entry for entry in json.loads(completed.stdout) if entry]
