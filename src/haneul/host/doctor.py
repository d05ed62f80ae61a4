"""What a machine lacks: pure findings from facts that :mod:`haneul.host.doctor_gather` collects.

A finding says what was seen, what that turns off, and how to mend it. ``error`` means that `haneul up` cannot work
here, ``warning`` that something named will not work or not well, ``info`` that nothing has to be done.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from haneul.host.doctor_facts import HostFacts

Severity = Literal["error", "warning", "info"]

_RANK: Final[dict[Severity, int]] = {"info": 0, "warning": 1, "error": 2}
_GIB: Final = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One thing about this machine. ``code`` is stable; ``what`` was seen; ``mend`` is the next step, or empty."""

    code: str
    severity: Severity
    what: str
    consequence: str
    mend: str = ""


#: Kernel features: without which of them what does not work. The first ones are needed by everything.
_FEATURES: Final[tuple[tuple[str, Severity, str, str], ...]] = (
    ("bpf", "error", "Cilium, the network of the management cluster, cannot run", "CONFIG_BPF_SYSCALL"),
    ("overlay", "error", "no container can start: their file systems are layers", "CONFIG_OVERLAY_FS"),
    ("veth", "error", "no pod gets a network interface", "CONFIG_VETH"),
    ("bridge", "warning", "pods of tenants with the network 'native' get no network", "CONFIG_BRIDGE"),
    ("nf_tables", "warning", "services of tenants with the network 'native' do not answer", "CONFIG_NF_TABLES"),
    ("vxlan", "warning", "tenants with the network 'native' cannot have nodes on several hosts", "CONFIG_VXLAN"),
    (
        "user_namespaces",
        "warning",
        "sandbox nodes with the network 'native', which have users of their own, cannot start",
        "CONFIG_USER_NS, and 'sysctl user.max_user_namespaces' above 0",
    ),
    ("loop", "info", "volumes that are files of a fixed size cannot be offered", "CONFIG_BLK_DEV_LOOP"),
    ("fuse", "info", "image builds without root fall back to slower copies of files", "CONFIG_FUSE_FS"),
)

_CAPABILITIES: Final[tuple[tuple[str, Severity, str], ...]] = (
    ("CAP_SYS_ADMIN", "error", "nothing can be mounted and no container can start"),
    ("CAP_NET_ADMIN", "error", "no pod gets a network"),
    ("CAP_BPF", "warning", "on kernels that ask for it alone, Cilium cannot load its programs"),
    (
        "CAP_SYS_RESOURCE",
        "info",
        "important pods cannot be shielded from the out-of-memory killer; all else works",
    ),
)

_CONTROLLERS: Final = ("cpu", "memory", "pids", "cpuset")
#: 5.10 is the oldest kernel on which the pinned Cilium runs (its documentation, "System Requirements").
_OLDEST_KERNEL: Final = (5, 10)
#: Since 6.3, memory file systems can be mounted for users of a pod's own (Kubernetes documentation "User Namespaces").
_MAPPING_KERNEL: Final = (6, 3)
#: tcx (6.6) attaches programs by links, which vanish with their pins and survive upgrades without a gap.
_GOOD_KERNEL: Final = (6, 6)


def findings(facts: HostFacts) -> list[Finding]:
    """Return what is to be said about a machine, errors first, then by subject."""
    checks: tuple[Callable[[HostFacts], Iterable[Finding]], ...] = (
        _rights,
        _kernel,
        _cgroups,
        _programs,
        _size,
        _names,
        _neighbours,
        _ranges,
        _habits,
    )
    found = [finding for check in checks for finding in check(facts)]
    return sorted(found, key=lambda finding: -_RANK[finding.severity])


def worst(found: Iterable[Finding]) -> Severity | None:
    """Return the highest severity among findings; None when there are none."""
    return max((finding.severity for finding in found), key=lambda severity: _RANK[severity], default=None)


def _rights(facts: HostFacts) -> Iterator[Finding]:
    if not facts.root:
        yield Finding(
            "not-root", "error", "this is not the root user", "nothing can be installed or started", "run it as root"
        )
        return
    for name, severity, consequence in _CAPABILITIES:
        if name not in facts.capabilities:
            mend = "" if severity == "info" else "run on a machine, or in a container, that grants it"
            yield Finding(f"no-{_dashed(name)}", severity, f"root lacks the capability {name}", consequence, mend)
    if not facts.kernel_settings_writable:
        yield Finding(
            "kernel-settings-read-only",
            "error",
            "/proc/sys cannot be written",
            "forwarding cannot be switched on, so that no pod reaches another",
            "run on a machine, or in a container, whose /proc/sys is writable",
        )


def _kernel(facts: HostFacts) -> Iterator[Finding]:
    version = _version(facts.kernel_release)
    if version < _OLDEST_KERNEL:
        yield Finding(
            "kernel-too-old",
            "error",
            f"the kernel is {facts.kernel_release}",
            "Cilium needs 5.10 or newer",
            "install a newer kernel (Debian 12 brings 6.1)",
        )
    elif version < _MAPPING_KERNEL:
        yield Finding(
            "kernel-without-mapped-mounts",
            "warning",
            f"the kernel is {facts.kernel_release}",
            "before 6.3, sandbox nodes with the network 'native' cannot start: files in memory cannot be mounted for "
            "users of their own",
            "install a newer kernel (Debian 12 has one in its backports)",
        )
    elif version < _GOOD_KERNEL:
        yield Finding(
            "kernel-old",
            "info",
            f"the kernel is {facts.kernel_release}",
            "before 6.6, Cilium attaches its programs in the older way, which is a little slower",
        )
    for name, severity, consequence, option in _FEATURES:
        if name not in facts.features:
            yield Finding(
                f"no-{_dashed(name)}",
                severity,
                f"the kernel lacks {name}",
                consequence,
                f"load the module ('modprobe {name}') or use a kernel with {option}",
            )
    if facts.architecture not in ("x86_64", "aarch64"):
        yield Finding(
            "architecture",
            "error",
            f"the processor is a {facts.architecture}",
            "the pinned components are built and tested for x86_64 and aarch64 only",
            "use a machine of one of these",
        )


def _cgroups(facts: HostFacts) -> Iterator[Finding]:
    if facts.cgroups == "none":
        yield Finding(
            "no-cgroups",
            "error",
            "no cgroup hierarchy is mounted below /sys/fs/cgroup",
            "no container can start",
            "mount one: 'mount -t cgroup2 none /sys/fs/cgroup'",
        )
        return
    missing = [name for name in _CONTROLLERS if name not in facts.controllers]
    if missing:
        yield Finding(
            "cgroup-controllers",
            "error",
            f"the cgroup controllers {', '.join(missing)} are not there",
            "the kubelet refuses to start",
            "enable them on the kernel's command line ('cgroup_enable=memory') or delegate them to this machine",
        )
    if facts.cgroups == "v1":
        yield Finding(
            "cgroup-v1-only",
            "error",
            "only the older cgroup hierarchy is mounted",
            "Cilium cannot attach its socket programs: services do not answer on the host",
            "mount the newer one too, at /sys/fs/cgroup/unified: 'mount -t cgroup2 none /sys/fs/cgroup/unified'",
        )
    elif facts.cgroups == "hybrid":
        yield Finding(
            "cgroup-hybrid",
            "info",
            "both cgroup hierarchies are mounted, the older one has the controllers",
            "memory protection (memory.min) and pressure figures of pods are off; Kubernetes will drop it one day",
            "boot with 'systemd.unified_cgroup_hierarchy=1' when convenient",
        )


def _programs(facts: HostFacts) -> Iterator[Finding]:
    for program in facts.missing_programs:
        yield Finding(
            f"no-program-{program.name}",
            "error",
            f"the program {program.name} is not installed",
            "'haneul up' uses it",
            f"apt-get install {program.package}",
        )
    if facts.missing_packages:
        names = " ".join(facts.missing_packages)
        yield Finding(
            "missing-packages",
            "warning",
            f"Debian packages are missing: {names}",
            "components cannot be built here; those already built work",
            f"apt-get install {names}",
        )


def _size(facts: HostFacts) -> Iterator[Finding]:
    if facts.cores < 2:
        yield Finding(
            "few-cores", "warning", "there is one core", "starting a cluster takes a minute instead of seconds"
        )
    if facts.memory < 3 * _GIB:
        yield Finding(
            "little-memory",
            "error",
            f"there are {facts.memory / _GIB:.1f} GiB of memory",
            "the management cluster alone takes 1.5 GiB, building it 3",
            "use a machine with 4 GiB or more",
        )
    elif facts.memory < 8 * _GIB:
        clusters = max(1, int((facts.memory - 2 * _GIB) / (1.2 * _GIB)))
        yield Finding(
            "modest-memory",
            "warning",
            f"there are {facts.memory / _GIB:.1f} GiB of memory",
            f"about {clusters} tenant cluster{'s' if clusters > 1 else ''} with one node fit",
            "add memory for more",
        )
    if facts.disk_free < 10 * _GIB:
        yield Finding(
            "little-disk",
            "error" if facts.disk_free < 3 * _GIB else "warning",
            f"{facts.disk_free / _GIB:.1f} GiB are free in {facts.disk_path}",
            "images, builds and tenants' data need 10 GiB to start with; below 3 % free the kubelet evicts pods",
            "free some space or put the folder on a larger disk",
        )


def _names(facts: HostFacts) -> Iterator[Finding]:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", facts.host_name):
        yield Finding(
            "host-name",
            "error",
            f"the host's name {facts.host_name!r} is no DNS label",
            "Kubernetes cannot name a node after it",
            "set another: 'hostname NAME', and the same in /etc/hostname",
        )
    if facts.address is None:
        yield Finding(
            "no-address",
            "error",
            "this machine has no IPv4 address that others could reach",
            "the API server has nowhere to listen",
            "configure a network interface, or name an address with --address",
        )


def _neighbours(facts: HostFacts) -> Iterator[Finding]:
    if facts.foreign_kubernetes:
        yield Finding(
            "foreign-kubernetes",
            "error",
            "/etc/kubernetes belongs to another Kubernetes installation",
            "'haneul up' refuses to touch it",
            "remove that installation ('kubeadm reset' and delete the folder) or use another machine",
        )
    for port in facts.ports:
        if not port.ours:
            yield Finding(
                f"port-taken-{port.port}",
                "error",
                f"port {port.port} is taken by {port.holder}",
                f"{port.purpose} cannot listen",
                f"stop {port.holder} or move it to another port",
            )


def _ranges(facts: HostFacts) -> Iterator[Finding]:
    for purpose, text in facts.ranges:
        ours = ipaddress.ip_network(text)
        for route in facts.routes:
            if ours.overlaps(ipaddress.ip_network(route.network, strict=False)):
                yield Finding(
                    "range-overlap",
                    "error",
                    f"the host's route to {route.network} ({route.device}) overlaps {text}, the range of {purpose}",
                    "pods and that network cannot reach each other, or the host loses it altogether",
                    "take the host out of that network: none of the ranges that 'haneul up' knows is free beside it",
                )
        for server in facts.nameservers:
            if ipaddress.ip_address(server) in ours:
                yield Finding(
                    "nameserver-in-range",
                    "warning",
                    f"the name server {server} lies in {text}, the range of {purpose}",
                    "pods that ask it for names may reach something else",
                    "use another name server, or purge and install again: the ranges are then chosen beside it",
                )


def _habits(facts: HostFacts) -> Iterator[Finding]:
    if facts.clock_synchronised is False:
        yield Finding(
            "clock-not-synchronised",
            "warning",
            "the kernel says that nothing keeps the clock right",
            "certificates and tokens look expired or not yet valid to others once it drifts",
            "apt-get install chrony",
        )
    if facts.swap:
        yield Finding(
            "swap",
            "warning",
            "swap is on",
            "a pod over its memory limit slows the machine down instead of being ended",
            "'swapoff -a', and remove it from /etc/fstab",
        )
    if facts.low_inotify_limits:
        yield Finding(
            "low-inotify-limits",
            "info",
            f"{', '.join(facts.low_inotify_limits)} would not do for many nodes on one host",
            "none: 'haneul up' raises what is too low, 'haneul down --purge' puts it back",
        )
    if not facts.systemd:
        yield Finding(
            "no-systemd",
            "info",
            "process 1 is not systemd",
            "host services run under supervisord, which nothing starts at boot",
            "run 'haneul up' at boot",
        )


def _version(release: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def _dashed(name: str) -> str:
    return name.lower().replace("_", "-")
