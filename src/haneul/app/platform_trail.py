"""The audit trails of the platform's clusters: which have one, where it lies, and recording whoever is told what.

```
clusters/<uid>/spool             ModSecurity writes here, as the cluster's own user; a file system in memory
clusters/<uid>/private/audit-….conf   what ModSecurity is told
audit/<uid>/cluster              whose it is: PROJECT/CLUSTER
audit/<uid>/audit.sock           where an operator asks
audit/<uid>/catalogue.db         where records lie in the store
audit/<uid>/records              the store, unless audit.yaml names another one
```

A trail's last requests are in memory here, so that recording goes on when a cluster's nodes change, or it sleeps.
One that did not begin, or broke off, is tried again while its cluster is followed, at longer and longer intervals.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from haneul.app.audit_switch import AuditSwitch
from haneul.app.trail import Policies, TrailPlace, end_recording, read_exclusions, recording, rules_file
from haneul.ingress.adapters.nginx.confined import SCRATCH
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError, HostNotReadyError, NotFoundError
from haneul.kernel.files import write_atomically
from haneul.management.ingress_host import IngressFiles
from haneul.trail.recorder import Recorder
from haneul.trail.rules import RuleSite, render_rules
from haneul.trail.settings import TrailSettings, read_trail_settings

_log = structlog.get_logger(__name__)
_LOOK_SECONDS: Final = 5.0
#: Between two beginnings of a trail that does not last, at first and at the last.
_AGAIN_SECONDS: Final = (30.0, 300.0)
#: A look takes a millisecond of a processor, and all clusters share one.
_READ_SECONDS: Final = 1.0
_SPOOL: Final = "spool"
#: What trails keep if nobody says otherwise: there may be many on a host, and each takes memory twice.
_USUAL: Final[dict[str, Any]] = {
    "ringBytes": 16 << 20,
    "spoolBytes": 16 << 20,
    "bytesPerDay": 256 << 20,
    "keepDays": 7,
}
_MODULE: Final = Path("/usr/lib/nginx/modules/ngx_http_modsecurity_module.so")
_RULES: Final = Path("/usr/share/modsecurity-crs/rules")


@dataclass(frozen=True)
class Choice:
    """What a cluster's trail is to do; without settings there is none. ``wrong`` says why, if there should be one."""

    settings: TrailSettings | None = None
    exclusions: str = ""
    wrong: str = ""


@dataclass(frozen=True)
class Audit:
    """A trail that records: policies that routes tell it, and what ModSecurity is told."""

    choice: Choice
    policies: Policies
    text: str

    @property
    def rules(self) -> str:
        """Return the file of what ModSecurity is told, in nginx's folder."""
        return rules_file(self.text)


@dataclass
class _Running:
    audit: Audit
    recorder: Recorder
    stack: AsyncExitStack


@dataclass(frozen=True)
class _Begun:
    """When a trail was begun, successfully or not, and for how long it is not begun again: in monotonic seconds."""

    choice: Choice
    at: float
    wait: float


class ClusterTrails:
    """The trails of all clusters that are to have one."""

    def __init__(
        self,
        files: IngressFiles,
        *,
        clock: Clock,
        look: float = _LOOK_SECONDS,
        again: tuple[float, float] = _AGAIN_SECONDS,
    ) -> None:
        """``look`` is in seconds: between two looks at whether something else is wanted.

        So is ``again``: how long a trail that failed is left, at first and at the last.
        """
        self._files = files
        self._switch = AuditSwitch(files.audit_switch)
        self._clock = clock
        self._look = look
        self._again = again
        self._running: dict[str, _Running] = {}
        self._begun: dict[str, _Begun] = {}

    def chosen(self, owner: str, uid: str) -> Choice:
        """Return what is wanted of a cluster's trail; what is wrong is said, and keeps nobody from serving."""
        try:
            if not self._switch.read().on(owner):
                return Choice()
            refuse_without_modsecurity()
            settings = settings_of(self._files, uid)
            return Choice(settings, read_exclusions(settings.exclusions))
        except (HaneulError, OSError) as error:
            return Choice(wrong=str(error))

    async def other_than(self, choice: Choice, owner: str, uid: str) -> None:
        """Wait until something else is wanted, or what is wanted and does not record is to be tried again."""
        while await asyncio.to_thread(self.chosen, owner, uid) == choice and not self._is_due(choice, uid):
            await self._clock.sleep(self._look)

    async def settle(self, choice: Choice, owner: str, uid: str, folder: Path, user: int) -> Audit | None:
        """Bring about what is wanted; return the trail that records, if one does."""
        running = self._living(uid)
        if running and running.audit.choice == choice:
            # Somebody may have deleted it with the rest of nginx's folder.
            await asyncio.to_thread(_write_rules, running.audit, folder, user)
            return running.audit
        await self._end(uid)
        if choice.settings is None:
            if choice.wrong:
                _log.warning("there is no audit trail", cluster=owner, detail=choice.wrong)
            await end_recording(place_in(self._files, uid))
            return None
        self._note_beginning(choice, uid)
        try:
            self._running[uid] = await self._started(choice, choice.settings, owner, uid, folder, user)
        except (HaneulError, OSError) as error:
            _log.warning("there is no audit trail", cluster=owner, detail=str(error))
            await end_recording(place_in(self._files, uid))
            return None
        return self._running[uid].audit

    async def forget(self, uid: str) -> None:
        """End a cluster's trail once its nginx has ended, and delete what lies on this host of it."""
        await self._end(uid)
        self._begun.pop(uid, None)
        await end_recording(place_in(self._files, uid))
        with suppress(FileNotFoundError):
            await asyncio.to_thread(shutil.rmtree, self._files.trails / uid)

    async def close(self) -> None:
        """Write what was gathered, and end; whoever begins next goes on."""
        await asyncio.gather(*map(self._end, list(self._running)))

    async def _started(
        self, choice: Choice, settings: TrailSettings, owner: str, uid: str, folder: Path, user: int
    ) -> _Running:
        policies = Policies(settings.policy)
        text = render_rules(RuleSite(spool=_SPOOL, temporary=SCRATCH), choice.exclusions)
        audit = Audit(choice, policies, text)
        await asyncio.to_thread(_write_rules, audit, folder, user)
        place = place_in(self._files, uid)
        await asyncio.to_thread(_claim, place.catalogue.parent, owner)
        async with AsyncExitStack() as stack:
            recorder = await stack.enter_async_context(
                recording(settings, place, policies, cluster=uid, user=user, clock=self._clock, look=_READ_SECONDS)
            )
            return _Running(audit, recorder, stack.pop_all())

    def _living(self, uid: str) -> _Running | None:
        running = self._running.get(uid)
        return running if running and not running.recorder.ended else None

    def _is_due(self, choice: Choice, uid: str) -> bool:
        """Say whether a trail that is wanted and does not record is to be begun again."""
        if choice.settings is None or self._living(uid):
            return False
        begun = self._begun.get(uid)
        return begun is None or self._clock.monotonic() - begun.at >= begun.wait

    def _note_beginning(self, choice: Choice, uid: str) -> None:
        first, last = self._again
        before, now = self._begun.get(uid), self._clock.monotonic()
        # One that recorded for long enough begins with the shortest wait again.
        failed = before is not None and before.choice == choice and now - before.at < 2 * last
        wait = min(2 * before.wait, last) if before and failed else first
        self._begun[uid] = _Begun(choice, now, wait)

    async def _end(self, uid: str) -> None:
        if running := self._running.pop(uid, None):
            await running.stack.aclose()


def place_in(files: IngressFiles, uid: str) -> TrailPlace:
    """Return where a cluster's trail is; what was recorded lies where its nginx has no way to."""
    folder = files.trails / uid
    return TrailPlace(files.proxies / uid / _SPOOL, folder / "audit.sock", folder / "catalogue.db")


def uid_of(files: IngressFiles, owner: str) -> str:
    """Return the mark of the cluster whose trail is on this host, without asking anybody. Raises NotFoundError."""
    found = [file for file in files.trails.glob("*/cluster") if file.read_text().strip() == owner]
    if not found:
        raise NotFoundError(
            f"no cluster {owner} has an audit trail on this host",
            hint=f"'haneul ingress audit on --cluster {owner}' begins one; 'haneul ingress audit' shows who has one",
        )
    # Of two that have a name one after the other, the first one's may still be on its way out.
    return max(found, key=lambda file: file.stat().st_mtime).parent.name


def settings_of(files: IngressFiles, uid: str) -> TrailSettings:
    """Return what a cluster's trail keeps, and where. Raises InvalidInputError."""
    return read_trail_settings(files.audit_settings, {**_USUAL, "store": files.trails / uid / "records"})


def refuse_without_modsecurity() -> None:
    """Raise HostNotReadyError if nginx cannot look at requests on this host."""
    if missing := [str(path) for path in (_MODULE, _RULES) if not path.exists()]:
        raise HostNotReadyError(
            f"{' and '.join(missing)} are not installed",
            hint="apt-get install libnginx-mod-http-modsecurity modsecurity-crs",
        )


def _write_rules(audit: Audit, folder: Path, user: int) -> None:
    write_atomically(folder / audit.rules, audit.text, mode=0o640, owner=(os.geteuid(), user))


def _claim(folder: Path, owner: str) -> None:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    write_atomically(folder / "cluster", f"{owner}\n", mode=0o600)
