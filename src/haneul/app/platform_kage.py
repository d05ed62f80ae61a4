"""The platform's object store: Kage as host services of this host, on loopback alone, for what the image hub keeps.

Each part of Swift is a service of its own, without any right of root's: a number that no account has, which sees the
store's folder and Swift, and of closed folders nothing else. The parts trust each other, and packet rules keep all
other users of this host from them (:mod:`haneul.management.loopback_guard`); no part begins without them. Its secrets
are root's; the parts are told theirs in files that are their user's, the hub what it needs in one that is the hub's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from haneul.host.secluded import secluded
from haneul.host.services import HostService, ServiceManager, made_from
from haneul.kage.adapters import swift_commands
from haneul.kage.adapters.swift_http import SwiftHttp
from haneul.kage.model import REGION, KageSettings, Part, Ports
from haneul.kage.store import Kage
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HostNotReadyError
from haneul.kernel.files import is_there, write_atomically
from haneul.management import loopback_guard
from haneul.management.containers import SYSTEM_PATH

#: The user that all parts are: a number, which no account has.
USER: Final = 65529
#: The bucket of the image hub.
HUB_BUCKET: Final = "hub"
#: Where it listens on loopback, beside what Swift's parts are wont to have.
PORTS: Final = Ports(proxy=6204)
#: Where all zones have their addresses.
_ZONES: Final = "127.0.1.0/24"
_PREFIX: Final = "kage-"
_SHOWN: Final = 2000


@dataclass(frozen=True)
class KageFiles:
    """What the object store has on the host, below the installation's state folder."""

    state: Path

    @property
    def on(self) -> Path:
        """Return the file that is there if somebody turned the object store on."""
        return self.state / "kage.on"

    @property
    def folder(self) -> Path:
        """Return the folder with everything that the object store keeps."""
        return self.state / "kage"


def is_wanted(state: Path) -> bool:
    """Say whether the object store runs on this host: only if somebody turned it on."""
    # `doctor` may be asked by anybody.
    return is_there(KageFiles(state).on)


def want(state: Path, *, wanted: bool) -> None:
    """Turn the object store on or off from the next `up` on."""
    on = KageFiles(state).on
    if wanted:
        write_atomically(on, "The object store is turned on; 'haneul up --no-kage' turns it off.\n")
    else:
        on.unlink(missing_ok=True)


def settings_on_host(state: Path, *, ports: Ports = PORTS) -> KageSettings:
    """Return the settings of this host's object store."""
    return KageSettings(KageFiles(state).folder, str(USER), ports, owner=(USER, USER))


def taken_by(ports: Ports) -> dict[int, str]:
    """Return the ports that it takes, and what listens there."""
    return {
        ports.proxy: "the object store's API",
        ports.object: "the object store's servers of objects",
        ports.container: "the object store's servers of containers",
        ports.account: "the object store's servers of accounts",
        ports.rsync: "the object store's rsync",
    }


class SwiftServices:
    """Runs parts as host services.

    ``command`` is an interpreter that has Swift, with ``swift_run.py``; ``rules`` is the file of the packet rules
    without which no part begins.
    """

    def __init__(
        self, services: ServiceManager, command: Sequence[str], settings: KageSettings, *, logs: Path, rules: Path
    ) -> None:
        self._services, self._command, self._settings, self._logs = services, tuple(command), settings, logs
        self._rules = rules

    async def make_rings(self, described: Mapping[str, Any]) -> None:
        """Make them with Swift's own builder."""
        await swift_commands.make_rings(self._command, self._settings.etc, described)

    async def start(self, parts: Sequence[Part]) -> None:
        """Start those that do not run, and those anew that are told something else than before."""
        for part in parts:
            await self._services.ensure(self._service(part))

    async def ended(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Return none: whatever ends is started again."""
        return ()

    async def stop(self, parts: Sequence[Part], *, at_once: bool = False) -> None:
        """Stop them; the host's manager of services gives them some seconds."""
        for part in parts:
            await self._services.stop(f"{_PREFIX}{part.name}")

    def said(self, part: Part) -> str:
        """Return the end of its log, which with systemd is the journal's."""
        path = self._logs / f"{_PREFIX}{part.name}.log"
        return path.read_text(errors="replace")[-_SHOWN:] if path.exists() else ""

    def _service(self, part: Part) -> HostService:
        etc = self._settings.etc
        sees = (self._settings.folder, Path(self._command[-1]).parent)
        argv = secluded(swift_commands.of_part(self._command, etc, part), user=USER, sees=sees, rules=self._rules)
        told = part.configuration.read_text() + (etc / "swift.conf").read_text()
        return HostService(f"{_PREFIX}{part.name}", argv, (("PATH", SYSTEM_PATH), made_from(told)))


class PlatformKage:
    """The object store of this host.

    ``command`` returns an interpreter that has Swift, with ``swift_run.py``; ``guard`` names the table of packet rules
    that keeps others from its servers.
    """

    def __init__(
        self,
        settings: KageSettings,
        *,
        services: ServiceManager,
        command: Callable[[], Sequence[str]],
        logs: Path,
        clock: Clock,
        guard: str = loopback_guard.TABLE,
    ) -> None:
        self._settings, self._services, self._logs, self._clock = settings, services, logs, clock
        self._command, self._guard = command, guard

    async def start(self) -> None:
        """Start it, from whatever state it is in, with a bucket for the hub.

        Raises HostNotReadyError if rsync is not installed, and what Kage's start does.
        """
        if shutil.which("rsync", path=SYSTEM_PATH) is None:
            raise HostNotReadyError(
                "rsync is not installed, with which the object store's zones give each other databases",
                hint="apt-get install rsync",
            )
        kage, ports = self._kage(), self._settings.ports
        servers = (ports.object, ports.container, ports.account, ports.rsync)
        await loopback_guard.ensure(self._rules, _ZONES, servers, user=USER, table=self._guard)
        await kage.start()
        await kage.make_bucket(HUB_BUCKET)

    async def end(self) -> None:
        """Have no part run here any more; what they keep stays."""
        running = [state.name for state in await self._services.states() if state.name.startswith(_PREFIX)]
        for name in running:
            await self._services.remove(name)
        await loopback_guard.remove(self._guard)

    def bucket_file(self) -> str:
        """Return what the hub's file of its store says, secrets and all."""
        secrets = self._kage().secrets
        told = {
            "endpoint": self._settings.endpoint,
            "bucket": HUB_BUCKET,
            "region": REGION,
            "accessKeyId": secrets.access_key_id,
            "secretAccessKey": secrets.secret_key,
        }
        return str(yaml.safe_dump(told))

    @property
    def _rules(self) -> Path:
        return self._settings.folder / "guard.nft"

    def _kage(self) -> Kage:
        parts = SwiftServices(self._services, self._command(), self._settings, logs=self._logs, rules=self._rules)
        return Kage(self._settings, parts, SwiftHttp(self._settings), clock=self._clock)
