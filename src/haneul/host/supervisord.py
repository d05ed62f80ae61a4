"""Host services under supervisord, for machines where systemd is not process 1.

supervisord reads one file a service and talks XML-RPC on a unix socket that only root may open. It is started when it
is first needed, by who may begin it. A supervisord that was killed leaves its children behind: the next start ends
those first, by their process ids, so that no service ever runs twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import resource
import shlex
import signal
import socket
import sys
import xmlrpc.client
from pathlib import Path
from typing import Any

from haneul.host.ownership import is_called, process_at, runs
from haneul.host.processes import command_line, processes_matching
from haneul.host.services import HostService, ServiceState
from haneul.kernel.clock import Clock
from haneul.kernel.errors import DeadlineExceededError, UnavailableError
from haneul.kernel.files import write_atomically
from haneul.kernel.process import run
from haneul.kernel.processes import Found, find, send
from haneul.kernel.waiting import wait_for

_START_SECONDS, _STOP_SECONDS, _CALL_SECONDS = 15.0, 40.0, 45.0
_SOON_SECONDS = 0.005
#: What every container waits for comes before what runs in any of them, as nice(1) counts.
_PREFERENCE = -10


class Supervisord:
    """A supervisord of our own. ``state`` holds definitions, ``runtime`` the socket and process id.

    A service that does not end within ``patience`` seconds of being asked to is killed. Who ``begins`` may start
    supervisord. A host service itself may not: it would end, as what a killed supervisord left, what is served, itself
    and all others that nobody but 'haneul up' brings back.
    """

    def __init__(
        self, *, state: Path, runtime: Path, logs: Path, clock: Clock, patience: int = 25, begins: bool = True
    ) -> None:
        self._state = state
        self._definitions = state / "services"
        self._configuration = state / "supervisord.conf"
        self._socket = runtime / "supervisor.sock"
        self._pidfile = runtime / "supervisor.pid"
        self._logs = logs
        self._clock = clock
        self._patience = patience
        self._begins = begins

    async def ensure(self, service: HostService) -> bool:
        """Write the definition; start what is new, restart what runs by another one.

        Raises UnavailableError, before anything is changed, if supervisord does not answer and may not be started.
        """
        fresh = not await self._answers()
        if fresh and not self._begins:
            raise UnavailableError(
                f"{service.name} is not looked after: supervisord does not answer", hint="run 'haneul up'"
            )
        if fresh:
            # While their definitions are those that they were started by.
            await self._end_orphans()
        changed = write_atomically(self._definition(service.name), self._render(service), mode=0o600)
        if fresh:
            await self._begin()
        _prefer(int(await self._call("getPID")), _PREFERENCE)
        # What supervisord has, and what runs by it, may be older than the definition: its writer may have been killed.
        ((_, differing, _),) = await self._call("reloadConfig")
        groups = {info["group"] for info in await self._call("getAllProcessInfo")}
        if service.name in differing:
            await self._take_out(service.name)
            groups.discard(service.name)
        if service.name not in groups:
            await self._call("addProcessGroup", service.name)
            await self._until_forked(service.name)
            return True
        info = await self._call("getProcessInfo", service.name)
        if info["statename"] not in ("RUNNING", "STARTING", "BACKOFF"):
            await self._call("startProcess", service.name, False)
            return True
        return changed or fresh

    async def stop(self, name: str) -> None:
        """Stop one service."""
        if await self._answers() and await self._is_up(name):
            await self._stop(name)

    async def remove(self, name: str) -> None:
        """Stop one service, also one that a killed supervisord left behind, and delete its definition."""
        if await self._answers():
            with contextlib.suppress(xmlrpc.client.Fault):
                await self._take_out(name)
        else:
            await self._end_orphans(name)
        self._definition(name).unlink(missing_ok=True)

    async def states(self) -> list[ServiceState]:
        """Return the state of every defined service; none runs while supervisord does not."""
        defined = sorted(path.stem for path in self._definitions.glob("*.conf"))
        if not await self._answers():
            return [ServiceState(name, running=False, detail="supervisord does not run") for name in defined]
        seen = {info["name"]: info for info in await self._call("getAllProcessInfo")}
        return [
            ServiceState(
                name,
                running=name in seen and seen[name]["statename"] == "RUNNING",
                pid=(seen[name]["pid"] or None) if name in seen else None,
                detail=seen[name]["description"] if name in seen else "not loaded",
            )
            for name in defined
        ]

    async def shut_down(self) -> None:
        """Stop all services, then supervisord, then whatever a killed supervisord left behind."""
        if await self._answers():
            own = find(int(await self._call("getPID")))
            await self._until_executed()
            await self._call("shutdown")
            await wait_for(
                lambda: _gone(own), what="supervisord to stop its services", timeout=_STOP_SECONDS, clock=self._clock
            )
        await self._end_orphans()
        self._socket.unlink(missing_ok=True)
        self._pidfile.unlink(missing_ok=True)

    async def _take_out(self, name: str) -> None:
        await self._stop(name)
        await self._call("removeProcessGroup", name)

    async def _stop(self, name: str) -> None:
        await self._until_executed(name)
        # What has ended by itself meanwhile is a fault to supervisord, and all right here.
        with contextlib.suppress(xmlrpc.client.Fault):
            await self._call("stopProcess", name)

    async def _until_forked(self, name: str) -> None:
        """Wait for a new service's first process: one that is stopped before it is started would start after that."""

        async def forked() -> bool:
            return bool((await self._call("getProcessInfo", name))["start"])

        await wait_for(
            forked, what=f"{name} to be started", timeout=_START_SECONDS, clock=self._clock, interval=_SOON_SECONDS
        )

    async def _until_executed(self, name: str = "") -> None:
        """Wait until no process of a service, or of all, is still a copy of supervisord that has executed nothing.

        Such a copy has supervisord's own handlers: it would swallow the signal to end, and be killed after all the
        patience that its program was given.
        """
        own = command_line(int(await self._call("getPID")))

        async def executed() -> bool:
            infos = await self._call("getAllProcessInfo")
            pids = [info["pid"] for info in infos if info["pid"] and name in ("", info["name"])]
            return all(command_line(pid) != own for pid in pids)

        await wait_for(
            executed,
            what=f"{name or 'every service'} to execute its program",
            timeout=_START_SECONDS,
            clock=self._clock,
            interval=_SOON_SECONDS,
        )

    async def _is_up(self, name: str) -> bool:
        return any(info["name"] == name for info in await self._call("getAllProcessInfo"))

    async def _begin(self) -> None:
        """Start supervisord, with all definitions as they are now."""
        for folder in (self._definitions, self._socket.parent, self._logs):
            folder.mkdir(parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        write_atomically(self._configuration, self._render_main(), mode=0o600)
        await run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._configuration)],
            timeout=_START_SECONDS,
        )
        await wait_for(self._answers, what="supervisord to answer", timeout=_START_SECONDS, clock=self._clock)

    async def _end_orphans(self, name: str = "*") -> None:
        """End services that a killed supervisord left: processes that run a defined service's command, but this one."""
        commands = [_argv_of(definition.read_text()) for definition in self._definitions.glob(f"{name}.conf")]

        def left(pid: int) -> bool:
            process = process_at(pid) if pid != os.getpid() else None
            return process is not None and any(
                runs(process, argv, self._state) or is_called(process, argv, self._state) for argv in commands
            )

        for process in map(find, processes_matching(left)):
            # One may have ended with another, and its number be somebody else's by now.
            if process is not None and left(process.pid):
                await self._end(process)

    async def _end(self, process: Found) -> None:
        for sign, seconds in ((signal.SIGTERM, self._patience), (signal.SIGKILL, _START_SECONDS)):
            send([process], sign)
            what = f"process {process.pid} of an earlier run to end"
            with contextlib.suppress(DeadlineExceededError):
                await wait_for(lambda: _gone(process), what=what, timeout=seconds, clock=self._clock)
                return
        raise UnavailableError(
            f"process {process.pid} of an earlier run does not end", hint="look at what it waits for"
        )

    async def _answers(self) -> bool:
        if not self._socket.exists():
            return False
        try:
            await self._call("getState")
        except UnavailableError:
            return False
        return True

    async def _call(self, method: str, *arguments: Any) -> Any:
        def call() -> Any:
            with xmlrpc.client.ServerProxy("http://localhost", transport=_UnixTransport(self._socket)) as proxy:
                return getattr(proxy.supervisor, method)(*arguments)

        try:
            return await asyncio.to_thread(call)
        except OSError as error:
            raise UnavailableError(f"supervisord does not answer: {error}", hint="run 'haneul up'") from error

    def _definition(self, name: str) -> Path:
        return self._definitions / f"{name}.conf"

    def _render(self, service: HostService) -> str:
        environment = ",".join(f'{name}="{value.replace("%", "%%")}"' for name, value in service.environment)
        whole_group = str(not service.keep_children).lower()
        return (
            f"[program:{service.name}]\n"
            f"command={shlex.join(service.argv).replace('%', '%%')}\n"
            f"environment={environment}\n"
            "autostart=true\n"
            "autorestart=true\n"
            "startsecs=1\n"
            "startretries=1000000\n"
            f"stopwaitsecs={self._patience}\n"
            f"stopasgroup={whole_group}\n"
            f"killasgroup={whole_group}\n"
            "redirect_stderr=true\n"
            f"stdout_logfile={self._logs / service.name}.log\n"
            "stdout_logfile_maxbytes=20MB\n"
            "stdout_logfile_backups=2\n"
        )

    def _render_main(self) -> str:
        return (
            "[supervisord]\n"
            f"logfile={self._logs / 'supervisord.log'}\n"
            "logfile_maxbytes=5MB\n"
            "logfile_backups=1\n"
            f"pidfile={self._pidfile}\n"
            f"minfds={min(1048576, resource.getrlimit(resource.RLIMIT_NOFILE)[1])}\n"
            "[unix_http_server]\n"
            f"file={self._socket}\n"
            "chmod=0600\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            "[include]\n"
            f"files={self._definitions}/*.conf\n"
        )


def _prefer(pid: int, nice: int) -> None:
    """Let the session of a process come before others where the kernel shares the processor among sessions.

    There (sched(7), "The autogroup feature") all host services and all of the containers' shims together weigh no more
    than one user's shell, and the weight of a single process counts only within its session: on a host full of
    containers, starting the next one would take minutes. Elsewhere there is nothing to set.
    """
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_CALL_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_CALL_SECONDS)
        self.sock.connect(str(self._path))


class _UnixTransport(xmlrpc.client.Transport):
    """XML-RPC through a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: tuple[str, dict[str, str]] | str) -> http.client.HTTPConnection:
        connection = _UnixConnection(self._path)
        # The base class closes, with the proxy, the connection that it finds here.
        self._connection = (host, connection)
        return connection


async def _gone(process: Found | None) -> bool:
    return process is None or not process.alive


def _argv_of(definition: str) -> tuple[str, ...]:
    for line in definition.splitlines():
        if line.startswith("command="):
            return tuple(shlex.split(line.removeprefix("command=").replace("%%", "%")))
    return ()
