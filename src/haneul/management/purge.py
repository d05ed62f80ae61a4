"""`down --purge`: this host as if Haneul had never been installed. Built components stay in their cache.

The order matters. The kubelet goes first, or it would start again what ends next; then pods, then the container
runtime and the supervisor, then what all of them left in the kernel, then files. /etc/kubernetes with our mark goes
last: as long as it is there, an interrupted purge can be repeated. No folder is deleted while anything is mounted
below it, for that may be somebody's volume.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from haneul.host.ownership import Process
from haneul.host.services import ServiceManager
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError
from haneul.kernel.progress import Progress
from haneul.management import loopback_guard, packet_rules, public_addresses, remains
from haneul.management.kernel_settings import restore_kernel_settings
from haneul.management.mount_sharing import restore_mount_sharing
from haneul.management.remains import Site
from haneul.management.settings import ManagementSettings

_KUBERNETES: Final = Path("/etc/kubernetes")
_POD_LOGS: Final = Path("/var/log/pods")
#: Folders that others may use too: they go when they are empty, the deepest first.
_SHARED_FOLDERS: Final = (
    "/run/containerd/runc",
    "/run/containerd/s",
    "/run/containerd",
    "/run/netns",
    "/usr/libexec/kubernetes/kubelet-plugins/volume/exec",
    "/usr/libexec/kubernetes/kubelet-plugins/volume",
    "/usr/libexec/kubernetes/kubelet-plugins",
    "/usr/libexec/kubernetes",
    "/var/lib/cni/results",
    "/var/lib/cni",
    "/var/log/containers",
    "/var/log/pods",
)


async def purge(
    settings: ManagementSettings, *, services: ServiceManager, cache: Path, clock: Clock, progress: Progress
) -> None:
    """Remove everything of ours from this host, tenants' data included, whatever state it is in.

    The caller holds the host's lock, whose file goes too. Raises ConflictError, with what is left, if something could
    not be removed; it may be repeated.
    """
    site = Site(settings, cache, clock)
    with progress.stage("stop everything that runs", expected_seconds=10) as stage:
        stage.note("the kubelet")
        names = [state.name for state in await services.states()]
        await _remove_services(services, [name for name in names if name != "containerd"])
        stage.note("pods")
        await remains.end_processes(site, spare=lambda process: _holds_others_up(process, cache))
        stage.note("the container runtime")
        await _remove_services(services, names)
        await services.shut_down()
        await remains.end_processes(site)
    with progress.stage("clear the kernel", expected_seconds=5) as stage:
        for what, step in _kernel_steps(site):
            stage.note(what)
            await step()
        # Beside another installation our files tell what is ours, so they stay until all of it is gone.
        _refuse_to_end_with(await _network_remains(site))
    with progress.stage("delete files", expected_seconds=10):
        if mounted := await asyncio.to_thread(remains.find_mounts, site):
            raise ConflictError(
                f"still mounted: {', '.join(mounted[:5])}", hint="unmount these, then repeat 'haneul down --purge'"
            )
        await asyncio.to_thread(restore_kernel_settings, settings.state / "kernel-settings.json")
        await asyncio.to_thread(_delete_files, site)
    _refuse_to_end_with(await leftovers(settings, cache, clock=clock))


def _refuse_to_end_with(left: list[str]) -> None:
    if left:
        raise ConflictError(
            f"{len(left)} things could not be removed, the first: {', '.join(left[:5])}",
            hint="repeat 'haneul down --purge'",
        )


async def leftovers(settings: ManagementSettings, cache: Path, *, clock: Clock) -> list[str]:
    """Return, for people, everything of ours that is on this host; nothing on one where it never was."""
    site = Site(settings, cache, clock)
    found: list[str] = []
    for find in (
        remains.find_processes,
        remains.find_mounts,
        remains.find_network_namespaces,
        remains.find_bpf,
        remains.find_cgroups,
        files_of,
    ):
        found += await asyncio.to_thread(find, site)
    return list(dict.fromkeys([*found, *await _network_remains(site)]))


async def _network_remains(site: Site) -> list[str]:
    return [
        *await remains.find_interfaces(site),
        *await remains.find_filters(site),
        *await remains.find_routing_rules(site),
        *await packet_rules.find(await asyncio.to_thread(site.chain_prefixes)),
        *await public_addresses.remains(),
        *await public_addresses.remains(public_addresses.INGRESS),
        *await loopback_guard.remains(),
    ]


def files_of(site: Site) -> list[str]:
    """Return the files and folders of ours, in the order in which to delete them."""
    settings = site.settings
    found = [settings.runtime, settings.logs]
    if site.cilium():
        found += [Path("/run/cilium"), *_below(site, "/var/lib/cni/results", "cilium-*")]
    if site.shared():
        found += [Path("/run/containerd/runc/k8s.io")]
        found += _below(site, "/var/lib/cni/results", "cni-loopback-*")
        found += _below(site, "/var/log/pods", "*")
        found += [link for link in _below(site, "/var/log/containers", "*.log") if _is_pod_log(site.at(link))]
        found += [Path("/var/lib/kubelet")]
    found += [*_dead_sockets(site), settings.state]
    if site.at(_KUBERNETES / "haneul-owned").exists():
        found.append(_KUBERNETES)
    return [str(path) for path in found if site.at(path).exists() or site.at(path).is_symlink()]


def _kernel_steps(site: Site) -> tuple[tuple[str, Callable[[], Awaitable[None]]], ...]:
    async def remove_packet_rules() -> None:
        await packet_rules.remove(await asyncio.to_thread(site.chain_prefixes))

    return (
        ("mounts", lambda: remains.remove_mounts(site)),
        ("network namespaces", lambda: remains.remove_network_namespaces(site)),
        ("BPF programs", lambda: remains.remove_bpf(site)),
        ("network interfaces", lambda: remains.remove_interfaces(site)),
        ("routing rules", lambda: remains.remove_routing_rules(site)),
        ("packet rules", remove_packet_rules),
        ("ingress's addresses", lambda: public_addresses.remove(public_addresses.INGRESS)),
        ("load balancers' addresses", public_addresses.remove),
        ("the object store's guard", loopback_guard.remove),
        ("control groups", lambda: remains.remove_cgroups(site)),
        ("mounts' sharing", lambda: restore_mount_sharing(site.settings.state / "private-mounts.json")),
    )


async def _remove_services(services: ServiceManager, names: list[str]) -> None:
    """Remove services, the kubelet first."""
    for name in sorted(names, key=lambda name: name != "kubelet"):
        await services.remove(name)


def _holds_others_up(process: Process, cache: Path) -> bool:
    """Say whether a process is the container runtime or the supervisor, which end after what they hold up."""
    runtime = process.name == "containerd" and Path(process.executable).is_relative_to(cache)
    return runtime or "supervisor.supervisord" in process.arguments


def _delete_files(site: Site) -> None:
    for name in files_of(site):
        path = site.at(Path(name))
        if path.is_dir() and not path.is_symlink():
            if Path(name) == _KUBERNETES:
                _delete_all_but(path, "haneul-owned")
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for folder in _SHARED_FOLDERS:
        with contextlib.suppress(OSError):
            site.at(Path(folder)).rmdir()


def _delete_all_but(folder: Path, name: str) -> None:
    for path in folder.iterdir():
        if path.name != name:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _below(site: Site, folder: str, *patterns: str) -> list[Path]:
    base = site.at(Path(folder))
    return [Path(folder) / path.name for pattern in patterns for path in sorted(base.glob(pattern))]


def _is_pod_log(link: Path) -> bool:
    return link.is_symlink() and link.readlink().is_relative_to(_POD_LOGS)


def _dead_sockets(site: Site) -> list[Path]:
    """Return sockets of container shims on which nobody listens any more; docker's shims have theirs there too."""
    alive = {line.split()[-1] for line in site.at(Path("/proc/net/unix")).read_text().splitlines() if "/" in line}
    return [path for path in _below(site, "/run/containerd/s", "*") if str(path) not in alive]
