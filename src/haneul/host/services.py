"""Host services: programs that the machine itself keeps running, below and outside every cluster.

The port is small on purpose: a service is defined, started, stopped, looked at and removed. Two adapters: systemd
where it is process 1, else supervisord.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Protocol

from haneul.kernel.errors import InvalidInputError


@dataclass(frozen=True)
class HostService:
    """A program to keep running. ``environment`` holds no secrets."""

    name: str
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    #: Children outlive the service: a container runtime's shims must survive its restart.
    keep_children: bool = False

    def __post_init__(self) -> None:
        """Refuse what the files that define services cannot hold, with either adapter."""
        values = [value for _, value in self.environment]
        if any("\n" in text for text in (*self.argv, *values)):
            raise InvalidInputError(f"the service {self.name!r} has a line break in an argument or a variable")
        if any('"' in value or "\\" in value or value.strip("'") != value for value in values):
            raise InvalidInputError(f"the service {self.name!r} has a quote or a backslash in a variable")


def made_from(configuration: str) -> tuple[str, str]:
    """Return a variable that makes a changed configuration a changed service: it is restarted to read it."""
    return "HANEUL_CONFIGURATION", hashlib.sha256(configuration.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ServiceState:
    """What is seen of a service; ``detail`` is for people."""

    name: str
    running: bool
    pid: int | None = None
    detail: str = field(default="", compare=False)


class ServiceManager(Protocol):
    """Keeps host services running, across their crashes and their definitions' changes."""

    async def ensure(self, service: HostService) -> bool:
        """Define and start the service; restart it if it runs by another definition.

        Return whether anything changed. Whoever is ended in the midst of it leaves what the next one finishes.
        """
        ...

    async def stop(self, name: str) -> None:
        """Stop the service if it runs; it stays defined."""
        ...

    async def remove(self, name: str) -> None:
        """Stop the service and forget its definition."""
        ...

    async def states(self) -> list[ServiceState]:
        """Return what is seen of every service that is defined here."""
        ...

    async def shut_down(self) -> None:
        """Stop all services and the manager's own process, if it has one."""
        ...
