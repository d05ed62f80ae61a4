"""Host services as systemd units, for machines where systemd is process 1."""

from __future__ import annotations

import shlex
from pathlib import Path

from haneul.host.services import HostService, ServiceState
from haneul.kernel.files import write_atomically
from haneul.kernel.process import run

_CALL_SECONDS = 60.0
_PREFIX = "haneul-"
#: What is asked of a unit, with what holds if nothing is said.
_PROPERTIES = {"Id": "", "ActiveState": "unknown", "MainPID": "0", "NeedDaemonReload": "yes"}


class Systemd:
    """Units named ``haneul-<service>.service`` in ``units``; their logs are the journal's."""

    def __init__(self, *, units: Path = Path("/etc/systemd/system")) -> None:
        self._units = units

    async def ensure(self, service: HostService) -> bool:
        """Write the unit; enable and start it.

        One that changes is stopped first: so what runs was started by the unit that is there, whenever this is ended.
        """
        unit, text = self._unit(service.name), render_unit(service)
        changed = not unit.exists() or unit.read_text() != text
        if changed and unit.exists():
            await self._systemctl("stop", unit.name)
        write_atomically(unit, text)
        shown = (await self._shown([unit.name]))[unit.name]
        if changed or shown["NeedDaemonReload"] == "yes":
            await self._systemctl("daemon-reload")
        await self._systemctl("enable", unit.name)
        await self._systemctl("start", unit.name)
        return changed or shown["ActiveState"] not in ("active", "activating", "reloading")

    async def stop(self, name: str) -> None:
        """Stop the unit if it is defined."""
        if self._unit(name).exists():
            await self._systemctl("stop", self._unit(name).name)

    async def remove(self, name: str) -> None:
        """Stop, disable and delete the unit."""
        if self._unit(name).exists():
            await self._systemctl("disable", "--now", self._unit(name).name)
            self._unit(name).unlink()
            await self._systemctl("daemon-reload")

    async def states(self) -> list[ServiceState]:
        """Return the state of every unit of ours."""
        shown = await self._shown(sorted(unit.name for unit in self._units.glob(f"{_PREFIX}*.service")))
        return [
            ServiceState(
                name.removeprefix(_PREFIX).removesuffix(".service"),
                values["ActiveState"] == "active",
                int(values["MainPID"]) or None,
                values["ActiveState"],
            )
            for name, values in shown.items()
        ]

    async def shut_down(self) -> None:
        """Stop every unit of ours; they stay defined, and disabled so that a reboot does not start them."""
        for state in await self.states():
            await self._systemctl("disable", "--now", self._unit(state.name).name)

    async def _shown(self, units: list[str]) -> dict[str, dict[str, str]]:
        """Ask once for all units, see systemctl(1): of each its properties, then an empty line."""
        if not units:
            return {}
        properties = f"--property={','.join(_PROPERTIES)}"
        shown = await run(["systemctl", "show", *units, properties], timeout=_CALL_SECONDS)
        blocks = [
            dict(line.split("=", 1) for line in block.splitlines()) for block in shown.stdout.strip().split("\n\n")
        ]
        found = {block["Id"]: block for block in blocks if _PROPERTIES.keys() <= block.keys()}
        return {unit: found.get(unit, _PROPERTIES) for unit in units}

    async def _systemctl(self, *arguments: str) -> None:
        await run(["systemctl", *arguments], timeout=_CALL_SECONDS)

    def _unit(self, name: str) -> Path:
        return self._units / f"{_PREFIX}{name}.service"


def render_unit(service: HostService) -> str:
    """Return the unit file of a service, see systemd.service(5)."""
    environment = "".join(
        'Environment="{}={}"\n'.format(name, value.replace("%", "%%")) for name, value in service.environment
    )
    kill_mode = "process" if service.keep_children else "control-group"
    command = shlex.join(service.argv).replace("%", "%%").replace("$", "$$")
    return (
        f"[Unit]\nDescription=Haneul {service.name}\nAfter=network-online.target\nWants=network-online.target\n"
        # What it needs may be missing for longer than a few attempts, and nobody would start it once it is there.
        "StartLimitIntervalSec=0\n\n"
        f"[Service]\nExecStart={command}\n{environment}Restart=always\nRestartSec=1\nKillMode={kill_mode}\n"
        "Delegate=yes\nCPUWeight=1000\nLimitNOFILE=1048576\nTasksMax=infinity\n\n[Install]\nWantedBy=multi-user.target\n"
    )
