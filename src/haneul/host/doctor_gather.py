"""Collects the facts about this machine that :mod:`haneul.host.doctor` judges. Looks only; changes nothing.

Kernel features are tried where that leaves no trace, in a network namespace that ends with the attempt: a list of
modules says what might work, the attempt says what does, and it loads the module as the real use would.
"""

from __future__ import annotations

import asyncio
import ctypes
import ipaddress
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from haneul.host import facts
from haneul.host.doctor_facts import CgroupLayout, HostFacts, ListeningPort, MissingProgram, Route
from haneul.host.networks import host_networks, nameservers
from haneul.host.ownership import Ownership, Process, all_processes, known_containers
from haneul.kernel.errors import HaneulError
from haneul.kernel.process import run

_CALL_SECONDS: Final = 15.0
_OWNER_MARK: Final = Path("etc/kubernetes/haneul-owned")
#: Ports that the installation takes on the host, and what listens there.
PORTS: Final[Mapping[int, str]] = {
    2379: "the management cluster's etcd",
    2380: "the management cluster's etcd, for other members,",
    5300: "the keeper of the DNS server's zones",
    5301: "the second keeper of the DNS server's zones",
    6443: "the management cluster's API server",
    7443: "the platform's API",
    7480: "the sign-on gate",
    10250: "the kubelet",
    10257: "the controller manager",
    10259: "the scheduler",
}
#: Ports that it takes at the host's own address only: many machines have a resolver of their own on loopback.
PORTS_AT_ADDRESS: Final[Mapping[int, str]] = {
    53: "the DNS server",
    5443: "the image hub",
    8081: "the API of the DNS server's zones",
}
#: Programs that `haneul up` and what it starts run, and the Debian packages that have them.
PROGRAMS: Final[Mapping[str, str]] = {
    "haproxy": "haproxy",
    "ip": "iproute2",
    "iptables": "iptables",
    "mount": "mount",
    "mountpoint": "util-linux",
    "nft": "nftables",
    "nginx": "nginx",
    "nsenter": "util-linux",
    "pdns_recursor": "pdns-recursor",
    "pdns_server": "pdns-server",
    "prlimit": "util-linux",
    "setpriv": "util-linux",
    "tc": "iproute2",
    "umount": "mount",
}
#: Those that an object store on this host runs besides.
PROGRAMS_OF_KAGE: Final[Mapping[str, str]] = {"rsync": "rsync"}
_ENOUGH_INOTIFY: Final = {"max_user_instances": 8192, "max_user_watches": 1048576}
#: Attempts, each in a network namespace of its own.
_ATTEMPTS: Final[Mapping[str, tuple[str, ...]]] = {
    "veth": ("ip", "link", "add", "name", "haneul0", "type", "veth", "peer", "name", "haneul1"),
    "bridge": ("ip", "link", "add", "name", "haneul0", "type", "bridge"),
    "vxlan": ("ip", "link", "add", "name", "haneul0", "type", "vxlan", "id", "1", "dstport", "0"),
    "nf_tables": ("iptables-nft", "-t", "filter", "-S"),
    "user_namespaces": ("unshare", "--user", "--map-root-user", "true"),
}


@dataclass(frozen=True)
class Expectations:
    """What the installation wants of the machine; ``ranges`` by purpose, ``packages`` are Debian's names.

    ``address`` is the host's own; it is empty where it is not known.
    """

    state: Path
    runtime: Path
    cache: Path
    ranges: tuple[tuple[str, str], ...] = ()
    ports: Mapping[int, str] = field(default_factory=lambda: PORTS)
    ports_at_address: Mapping[int, str] = field(default_factory=lambda: PORTS_AT_ADDRESS)
    address: str = ""
    programs: Mapping[str, str] = field(default_factory=lambda: PROGRAMS)
    packages: Sequence[str] = ()


async def gather(wanted: Expectations, *, root: Path = Path("/")) -> HostFacts:
    """Return the facts about this machine, as far as they bear on what is ``wanted``."""
    features, routes, packages, address = await asyncio.gather(
        _features(root), _routes(), _missing_packages(wanted.packages), _address()
    )
    layout, controllers = cgroup_layout((root / "proc/self/mountinfo").read_text(), root)
    status = (root / "proc/self/status").read_text()
    memory = meminfo((root / "proc/meminfo").read_text())
    disk_path = nearest_existing(wanted.state)
    return HostFacts(
        architecture=platform.machine(),
        kernel_release=platform.release(),
        features=features,
        cgroups=layout,
        controllers=controllers,
        root=os.geteuid() == 0,
        capabilities=facts.held_capabilities(status),
        systemd=facts.systemd(root),
        host_name=facts.host_name(),
        address=address,
        cores=len(os.sched_getaffinity(0)),
        memory=memory.get("MemTotal", 0),
        memory_available=memory.get("MemAvailable", 0),
        disk_free=shutil.disk_usage(disk_path).free,
        disk_path=str(disk_path),
        swap=len((root / "proc/swaps").read_text().splitlines()) > 1,
        clock_synchronised=_clock_synchronised(),
        kernel_settings_writable=os.access(root / "proc/sys/net/ipv4/ip_forward", os.W_OK),
        low_inotify_limits=_low_inotify_limits(root),
        foreign_kubernetes=_foreign_kubernetes(root),
        ports=await asyncio.to_thread(taken_ports, replace(wanted, address=wanted.address or address or ""), root),
        ranges=wanted.ranges,
        routes=routes,
        nameservers=nameservers((root / "etc/resolv.conf").read_text() if (root / "etc/resolv.conf").exists() else ""),
        missing_programs=tuple(
            MissingProgram(name, package) for name, package in wanted.programs.items() if shutil.which(name) is None
        ),
        missing_packages=packages,
    )


def cgroup_layout(mountinfo: str, root: Path = Path("/")) -> tuple[CgroupLayout, frozenset[str]]:
    """Return which hierarchies a /proc/<pid>/mountinfo shows below /sys/fs/cgroup, and the controllers they have."""
    older: set[str] = set()
    newer: list[str] = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        place, kind, options = before.split()[4], after.split()[0], after.split()[-1]
        if not place.startswith("/sys/fs/cgroup"):
            continue
        if kind == "cgroup2":
            newer.append(place)
        elif kind == "cgroup":
            older.update(option for option in options.split(",") if option not in ("rw", "ro"))
    older = {name for name in older if not name.startswith("name=") and name != "xattr"}
    if older:
        return ("hybrid" if newer else "v1"), frozenset(older)
    if not newer:
        return "none", frozenset()
    available = root / newer[0].lstrip("/") / "cgroup.controllers"
    return "v2", frozenset(available.read_text().split() if available.exists() else ())


def meminfo(text: str) -> dict[str, int]:
    """Return the entries of a /proc/meminfo in bytes."""
    entries = (line.split() for line in text.splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in entries if len(words) == 3 and words[2] == "kB"}


def listening(table: str) -> dict[int, str]:
    """Return the ports on which a /proc/net/tcp or tcp6 shows somebody listening, with the sockets' inodes."""
    found = {}
    for line in table.splitlines()[1:]:
        words = line.split()
        if words[3] == "0A":
            found[int(words[1].rpartition(":")[2], 16)] = words[9]
    return found


def bound_at(table: str, address: str) -> dict[int, str]:
    """Return the ports that a table of /proc/net shows as taken at an IPv4 address or at all, with sockets' inodes.

    In those of UDP, which has no listening, a socket without a peer is what takes a port (proc(5), udp(7)).
    """
    # In the order of this machine's bytes, as all machines that Haneul runs on have it.
    own = ipaddress.IPv4Address(address).packed[::-1].hex().upper()
    found = {}
    for line in table.splitlines()[1:]:
        words = line.split()
        host, _, port = words[1].rpartition(":")
        if words[3] in ("0A", "07") and (host == own or not host.strip("0")):
            found[int(port, 16)] = words[9]
    return found


def nearest_existing(path: Path) -> Path:
    """Return ``path``, or the nearest folder above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


async def _features(root: Path) -> frozenset[str]:
    systems = {line.split()[-1] for line in (root / "proc/filesystems").read_text().splitlines()}
    modules = _loadable_modules(root)
    found = {"bpf", "overlay", "fuse"} & (systems | modules)
    if (root / "dev/loop-control").exists() or "loop" in modules:
        found.add("loop")
    worked = await asyncio.gather(*(_works(attempt) for attempt in _ATTEMPTS.values()))
    return frozenset(found | {name for name, works in zip(_ATTEMPTS, worked, strict=True) if works})


def _loadable_modules(root: Path) -> set[str]:
    folder = root / "lib/modules" / platform.release()
    names: set[str] = set()
    for index in ("modules.dep", "modules.builtin"):
        if (folder / index).exists():
            lines = (folder / index).read_text().splitlines()
            names.update(Path(line.split(":")[0]).name.split(".")[0].replace("-", "_") for line in lines)
    return names


async def _works(attempt: Sequence[str]) -> bool:
    try:
        completed = await run(["unshare", "--net", *attempt], timeout=_CALL_SECONDS, check=False)
    except HaneulError:
        return False
    # 127 is unshare's answer when the program itself is not installed, which is a finding of its own.
    return completed.status in (0, 127)


async def _routes() -> tuple[Route, ...]:
    try:
        return await host_networks()
    except HaneulError:
        return ()


async def _missing_packages(names: Sequence[str]) -> tuple[str, ...]:
    if not names or shutil.which("dpkg-query") is None:
        return ()
    shown = await run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names], timeout=_CALL_SECONDS, check=False
    )
    installed = {line.split()[0] for line in shown.stdout.splitlines() if line.endswith(" installed")}
    return tuple(name for name in names if name not in installed)


async def _address() -> str | None:
    try:
        return await facts.primary_address()
    except HaneulError:
        return None


def _clock_synchronised() -> bool | None:
    """Ask adjtimex(2), with all modes zero so that it only reads; 5 is its answer for "not synchronised"."""
    library = ctypes.CDLL(None, use_errno=True)
    state = library.adjtimex(ctypes.create_string_buffer(512)) if hasattr(library, "adjtimex") else -1
    return None if state < 0 else state != 5


def _low_inotify_limits(root: Path) -> tuple[str, ...]:
    low = []
    for name, enough in _ENOUGH_INOTIFY.items():
        path = root / "proc/sys/fs/inotify" / name
        if path.exists() and int(path.read_text()) < enough:
            low.append(f"fs.inotify.{name} = {path.read_text().strip()}")
    return tuple(low)


def _foreign_kubernetes(root: Path) -> bool:
    folder = (root / _OWNER_MARK).parent
    return folder.is_dir() and any(folder.iterdir()) and not (root / _OWNER_MARK).exists()


def taken_ports(wanted: Expectations, root: Path = Path("/")) -> tuple[ListeningPort, ...]:
    """Return those of the wanted ports on which somebody listens, by number."""
    taken: dict[int, str] = {}
    for name in ("udp6", "udp", "tcp6", "tcp"):
        table = root / "proc/net" / name
        text = table.read_text() if table.exists() else ""
        if name.startswith("tcp"):
            taken |= {port: inode for port, inode in listening(text).items() if port in wanted.ports}
        if wanted.address:
            at_address = bound_at(text, wanted.address).items()
            taken |= {port: inode for port, inode in at_address if port in wanted.ports_at_address}
    purposes = {**wanted.ports_at_address, **wanted.ports}
    of_interest = dict(sorted(taken.items()))
    if not of_interest:
        return ()
    processes = all_processes(root / "proc")
    marks = Ownership(wanted.cache, wanted.state, known_containers(state=wanted.state, runtime=wanted.runtime))
    ours = marks.of(processes)
    holders = _holders(set(of_interest.values()), processes, root)
    found = []
    for port, inode in of_interest.items():
        holder = holders.get(inode)
        name = f"{holder.name} (process {holder.pid})" if holder else "a program that cannot be seen from here"
        pid = holder.pid if holder else None
        found.append(ListeningPort(port, purposes[port], name, pid in ours, pid))
    return tuple(found)


def _holders(inodes: set[str], processes: Mapping[int, Process], root: Path) -> dict[str, Process]:
    """Return for each socket's inode a process that has it open."""
    links = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, Process] = {}
    for pid, process in processes.items():
        try:
            for descriptor in (root / f"proc/{pid}/fd").iterdir():
                target = os.readlink(descriptor)  # noqa: PTH115 - the target is no path, and this is called a lot
                if target in links:
                    found.setdefault(links[target], process)
        except OSError:
            continue
    return found
