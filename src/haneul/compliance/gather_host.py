"""Gathers, on a host of the management cluster, what checks decide on: files, programs, and what its API tells."""

from __future__ import annotations

import grp
import pwd
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from haneul.compliance.gather import (
    Gathered,
    digest_of,
    flags_from,
    gather_kubelets,
    gather_masters,
    gather_objects,
    providers_of,
)
from haneul.compliance.snapshot import FileSeen, Flags, Snapshot
from haneul.kernel.documents import from_yaml
from haneul.kernel.kube import KubeClient

_KUBELET_CONFIGURATION: Final = "config.yaml"


@dataclass(frozen=True)
class HostPlaces:
    """Where a host of the management cluster has its files; ``name`` is the host's as a node."""

    name: str
    state: Path
    definitions: tuple[Path, ...]
    unit: Path
    #: What the API server is configured by.
    authentication: Path
    audit_policy: Path
    encryption: Path
    kubernetes: Path = Path("/etc/kubernetes")
    kubelet: Path = Path("/var/lib/kubelet")
    processes: Path = Path("/proc")


async def gather_management(client: KubeClient, places: HostPlaces) -> Snapshot:
    """Return a snapshot of the management cluster, with the files of this host."""
    found = Gathered()
    await gather_masters(found, client)
    await gather_objects(found, client)
    await gather_kubelets(found, client, {places.name: kubelet_flags(places)})
    for name, read in _documents(places).items():
        try:
            found.documents[name] = read()
        except (OSError, KeyError, yaml.YAMLError) as error:
            found.gaps[name] = str(error)
    return Snapshot(
        "management",
        programs=found.programs,
        documents=found.documents,
        files={what: _seen(paths) for what, paths in host_files(places).items()},
        kubelets=found.kubelets,
        objects=found.objects,
        gaps=found.gaps,
    )


def host_files(places: HostPlaces) -> Mapping[str, list[Path]]:
    """Return the paths that checks look at, by what they are; not all need be there."""
    manifests, pki = places.kubernetes / "manifests", places.kubernetes / "pki"
    super_admin, kept = places.kubernetes / "super-admin.conf", places.state / "admin.kubeconfig"
    members = places.state.glob("clusters/*/etcd-*/member-data")
    return {
        "the API server's manifest": [manifests / "kube-apiserver.yaml"],
        "the controller manager's manifest": [manifests / "kube-controller-manager.yaml"],
        "the scheduler's manifest": [manifests / "kube-scheduler.yaml"],
        "etcd's manifest": [manifests / "etcd.yaml"],
        "network plugins' files": sorted((places.state / "cni" / "net.d").glob("*")),
        "etcd's folders": [places.state / "etcd", *sorted(members)],
        "administrator's credentials": [places.kubernetes / "admin.conf", super_admin, kept],
        "credentials of the group system:masters": [super_admin, kept],
        "scheduler's credential": [places.kubernetes / "scheduler.conf"],
        "controller manager's credential": [places.kubernetes / "controller-manager.conf"],
        "certificates and keys": [pki, *sorted(pki.rglob("*"))],
        "certificates": sorted(pki.rglob("*.crt")),
        "keys": sorted(pki.rglob("*.key")),
        "kubelet's service definition": list(places.definitions),
        "kubelet's credential": [places.kubernetes / "kubelet.conf"],
        "authorities that the kubelet trusts": [pki / "ca.crt"],
        "kubelet's configuration": [places.kubelet / _KUBELET_CONFIGURATION],
    }


def kubelet_flags(places: HostPlaces) -> Flags:
    """Return the flags of the host's own kubelet; those of nodes that are pods have another configuration file."""
    own = f"--config={places.kubelet / _KUBELET_CONFIGURATION}"
    for path in places.processes.glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            # It ended meanwhile.
            continue
        if own in arguments and Path(arguments[0]).name == "kubelet":
            return flags_from(arguments)
    return {}


def _documents(places: HostPlaces) -> Mapping[str, Callable[[], Any]]:
    def parsed(path: Path) -> Any:
        return from_yaml(path.read_text())

    pki = places.kubernetes / "pki"
    return {
        "network": lambda: "cilium",
        "authentication": lambda: parsed(places.authentication),
        "audit-policy": lambda: parsed(places.audit_policy),
        "encryption-providers": lambda: providers_of(parsed(places.encryption)),
        "authorities": lambda: {
            "cluster": digest_of((pki / "ca.crt").read_bytes()),
            "etcd": digest_of((pki / "etcd" / "ca.crt").read_bytes()),
        },
        "kubelet-unit": lambda: places.unit.read_text() if places.unit.exists() else None,
    }


def _seen(paths: Iterable[Path]) -> tuple[FileSeen, ...]:
    found = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        found.append(FileSeen(str(path), stat.S_IMODE(status.st_mode), _user(status.st_uid), _group(status.st_gid)))
    return tuple(found)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
