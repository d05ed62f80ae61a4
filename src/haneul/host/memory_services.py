"""Host services that only exist in this process: for dry runs, and for tests of what uses the port."""

from __future__ import annotations

from haneul.host.services import HostService, ServiceState


class MemoryServices:
    """Keeps definitions and pretends that they run; ``starts`` counts how often each was started."""

    def __init__(self) -> None:
        self._defined: dict[str, HostService] = {}
        self._running: dict[str, int] = {}
        self._next_pid = 1
        self.starts: dict[str, int] = {}

    async def ensure(self, service: HostService) -> bool:
        """Define the service; start it if it does not run or its definition changed."""
        if self._defined.get(service.name) == service and service.name in self._running:
            return False
        self._defined[service.name] = service
        self._running[service.name] = self._next_pid
        self._next_pid += 1
        self.starts[service.name] = self.starts.get(service.name, 0) + 1
        return True

    async def stop(self, name: str) -> None:
        """Stop the service if it runs."""
        self._running.pop(name, None)

    async def remove(self, name: str) -> None:
        """Stop the service and forget it."""
        self._running.pop(name, None)
        self._defined.pop(name, None)

    async def states(self) -> list[ServiceState]:
        """Return every defined service."""
        return [
            ServiceState(name, running=name in self._running, pid=self._running.get(name))
            for name in sorted(self._defined)
        ]

    async def shut_down(self) -> None:
        """Stop everything."""
        self._running.clear()
