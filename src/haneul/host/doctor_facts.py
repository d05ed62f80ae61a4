"""What is known of a machine when it is examined: plain values, between looking and judging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Which control group hierarchies are mounted, see cgroups(7).
CgroupLayout = Literal["v2", "hybrid", "v1", "none"]


@dataclass(frozen=True)
class ListeningPort:
    """A port that is taken.

    ``holder`` names the program; ``ours`` says that it is this installation's. ``pid`` is None for a process that
    cannot be seen, or that ended while it was looked for.
    """

    port: int
    purpose: str
    holder: str
    ours: bool
    pid: int | None = None


@dataclass(frozen=True)
class Route:
    """A network that the host is in or has a route to and that is not Haneul's own, and through which interface."""

    network: str
    device: str


@dataclass(frozen=True)
class MissingProgram:
    """A program of the system that is not found, and the Debian package that has it."""

    name: str
    package: str


@dataclass(frozen=True)
class HostFacts:
    """Everything that the findings depend on. Sizes are in bytes; ``features`` are those found to work."""

    architecture: str
    kernel_release: str
    features: frozenset[str]
    cgroups: CgroupLayout
    controllers: frozenset[str]
    root: bool
    capabilities: frozenset[str]
    systemd: bool
    host_name: str
    address: str | None
    cores: int
    memory: int
    memory_available: int
    disk_free: int
    disk_path: str
    swap: bool
    #: None where the kernel does not say.
    clock_synchronised: bool | None
    kernel_settings_writable: bool
    low_inotify_limits: tuple[str, ...]
    foreign_kubernetes: bool
    ports: tuple[ListeningPort, ...]
    #: The platform's own address ranges by what they are for, such as {"pods": "10.192.0.0/16"}.
    ranges: tuple[tuple[str, str], ...]
    routes: tuple[Route, ...]
    nameservers: tuple[str, ...]
    missing_programs: tuple[MissingProgram, ...]
    missing_packages: tuple[str, ...]
