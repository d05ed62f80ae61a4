"""Whether a machine can become a node: decided purely from what it tells, before anything is changed on it.

A machine that runs somebody else's Kubernetes or containers is refused and left as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

LEAST_KERNEL: Final = (5, 10)
LEAST_MEMORY_MIB: Final = 512
LEAST_DISK_MIB: Final = 2048
MOST_SKEW_SECONDS: Final = 30

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_CONTROLLERS: Final = ("cpu", "memory", "pids")
#: Kubelet (API and health), kube-proxy (health and metrics), flannel's tunnel.
_TCP: Final = (10248, 10249, 10250, 10256)
_UDP: Final = (8472,)
_LINKS: Final = ("flannel.1", "cni0", "cilium_host", "cilium_net")
_FOREIGN: Final = ("kubelet", "containerd", "dockerd", "crio", "k3s", "k0s", "kube-proxy", "flanneld", "cilium-agent")


@dataclass(frozen=True)
class MachineFacts:
    """What a machine tells about itself. ``clock`` is its time in seconds since 1970, memory and disk are MiB."""

    root: bool
    kernel: str
    architecture: str
    clock: int
    cgroup: int
    memory: int
    cores: int
    disk: int
    systemd: bool = False
    owner: str = ""
    node_runs: bool = False
    controllers: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    tcp: frozenset[int] = frozenset()
    udp: frozenset[int] = frozenset()
    links: frozenset[str] = frozenset()
    processes: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Wanted:
    """What a machine is looked at for: the address that it was registered with and whose node it shall be."""

    address: str
    architecture: str
    owner: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``hint`` says what to do if it is not good."""

    name: str
    good: bool
    detail: str
    hint: str = field(default="")


def parse_facts(text: str) -> MachineFacts:
    """Return the facts from lines of ``name value``. Raises ValueError for what is none of ours."""
    told: dict[str, list[str]] = defaultdict(list)
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        told[name].append(value.strip())

    def one(name: str) -> str:
        if not told[name]:
            raise ValueError(f"the machine said nothing of its {name}")
        return told[name][0]

    return MachineFacts(
        root=one("user") == "0",
        kernel=one("kernel"),
        architecture=one("architecture"),
        clock=int(one("clock")),
        cgroup=int(one("cgroup")),
        memory=int(one("memory")),
        cores=int(one("cores")),
        disk=int(one("disk")),
        systemd=bool(told["systemd"]),
        owner="".join(told["owner"]),
        node_runs=bool(told["node-cgroup"]),
        controllers=frozenset(told["controller"]),
        addresses=frozenset(told["address"]),
        tcp=frozenset(int(port, 16) for port in told["tcp"]),
        udp=frozenset(int(port, 16) for port in told["udp"]),
        links=frozenset(told["link"]),
        processes=frozenset(told["process"]),
        folders=frozenset(told["folder"]),
        missing=frozenset(told["missing"]),
    )


def examine(facts: MachineFacts, wanted: Wanted, now: datetime) -> tuple[Finding, ...]:
    """Return everything that was looked at. A machine fits if every finding is good."""
    findings = [_root(facts), *_system(facts, wanted, now), _address(facts, wanted)]
    if facts.owner:
        mine = facts.owner == wanted.owner
        detail = f"a node of {facts.owner}" if not mine else "the node that it shall be"
        findings.append(Finding("owner", mine, detail, "" if mine else "take it out of its other cluster first"))
        # What runs there is ours.
        return tuple(findings)
    return (*findings, *_foreign(facts))


def refusal(findings: Iterable[Finding]) -> str:
    """Return in words why a machine does not fit; nothing if it does."""
    return "; ".join(f"{found.name}: {found.detail}" for found in findings if not found.good)


def _root(facts: MachineFacts) -> Finding:
    return Finding("root", facts.root, "root" if facts.root else "not root", "sign in as root, or let sudo ask nothing")


def _system(facts: MachineFacts, wanted: Wanted, now: datetime) -> list[Finding]:
    skew = abs(facts.clock - int(now.timestamp()))
    architecture = _ARCHITECTURES.get(facts.architecture, facts.architecture)
    lacking = [name for name in _CONTROLLERS if name not in facts.controllers]
    version_ok = facts.cgroup == 2 or not facts.systemd
    return [
        Finding(
            "kernel",
            _version(facts.kernel) >= LEAST_KERNEL,
            facts.kernel,
            f"Linux {LEAST_KERNEL[0]}.{LEAST_KERNEL[1]} or newer is needed",
        ),
        Finding(
            "architecture",
            architecture == wanted.architecture,
            architecture,
            f"the platform's programs are built for {wanted.architecture}",
        ),
        Finding(
            "cgroups",
            version_ok and not lacking,
            f"version {facts.cgroup}" + (f", without {', '.join(lacking)}" if lacking else ""),
            "boot with cgroup version 2 (systemd.unified_cgroup_hierarchy=1) and its controllers cpu, memory, pids",
        ),
        Finding(
            "memory", facts.memory >= LEAST_MEMORY_MIB, f"{facts.memory} MiB", f"{LEAST_MEMORY_MIB} MiB are needed"
        ),
        Finding(
            "disk",
            facts.disk >= LEAST_DISK_MIB or bool(facts.owner),
            f"{facts.disk} MiB free for /opt",
            f"{LEAST_DISK_MIB} MiB are needed",
        ),
        Finding(
            "clock",
            skew <= MOST_SKEW_SECONDS,
            f"{skew} s from the platform's",
            "let the machine keep its time by NTP: certificates are valid from now on",
        ),
        Finding(
            "tools",
            not facts.missing,
            "all there" if not facts.missing else f"without {', '.join(sorted(facts.missing))}",
            "install coreutils, util-linux, tar and gzip",
        ),
    ]


def _address(facts: MachineFacts, wanted: Wanted) -> Finding:
    return Finding(
        "address",
        wanted.address in facts.addresses,
        f"{wanted.address} is {'' if wanted.address in facts.addresses else 'not '}one of the machine's",
        "register the machine with an address of its own: other nodes reach it there",
    )


def _foreign(facts: MachineFacts) -> list[Finding]:
    strange = [*(name for name in _FOREIGN if name in facts.processes), *sorted(facts.folders)]
    ports = [f"tcp {port}" for port in _TCP if port in facts.tcp] + [
        f"udp {port}" for port in _UDP if port in facts.udp
    ]
    links = [name for name in _LINKS if name in facts.links]
    return [
        Finding(
            "foreign Kubernetes",
            not strange,
            f"found {', '.join(strange)}" if strange else "none",
            "a machine serves one Kubernetes only; it was left as it is",
        ),
        Finding("ports", not ports, f"in use: {', '.join(ports)}" if ports else "free", "free the ports"),
        Finding(
            "interfaces", not links, f"there already: {', '.join(links)}" if links else "free", "remove the interfaces"
        ),
    ]


def _version(kernel: str) -> tuple[int, ...]:
    numbers: Sequence[str] = kernel.split("-", maxsplit=1)[0].split(".")
    return tuple(int(number) for number in numbers[:2] if number.isdigit())
