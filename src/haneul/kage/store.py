"""Kage itself: made once, started, and its zones ended and started one by one."""

from __future__ import annotations

import base64
import errno
import os
import secrets as randomness
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml

from haneul.kage.configuration import files, proxy_part, rings, zone_parts
from haneul.kage.model import DEVICE, KageSettings, Part, Secrets
from haneul.kage.ports import Parts, StoreApi
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError, HostNotReadyError, UnavailableError
from haneul.kernel.files import write_atomically
from haneul.kernel.waiting import wait_for

_START_SECONDS: Final = 90.0
_PRIVATE: Final = 0o600
_MARK: Final = "user.haneul.kage"


class Kage:
    """One store on this machine."""

    def __init__(self, settings: KageSettings, parts: Parts, api: StoreApi, *, clock: Clock) -> None:
        self.settings = settings
        self._parts, self._api, self._clock = parts, api, clock

    @property
    def secrets(self) -> Secrets:
        """Return the store's secrets, made when they are first asked for. Raises ConflictError if they are gone."""
        path = self.settings.folder / "secrets.yaml"
        if not path.exists():
            self._refuse_to_hide(path)
            made = {
                "secretKey": randomness.token_hex(20),
                "hashSuffix": randomness.token_hex(16),
                "tokenKey": base64.urlsafe_b64encode(randomness.token_bytes(32)).decode(),
            }
            write_atomically(path, yaml.safe_dump(made), mode=_PRIVATE)
        kept = yaml.safe_load(path.read_text())
        return Secrets(kept["secretKey"], kept["hashSuffix"], kept["tokenKey"])

    async def start(self) -> None:
        """Make what is missing, start everything, and wait until it serves.

        Raises UnavailableError, ConflictError if what was there is not whole, HostNotReadyError.
        """
        await self._prepare()
        every = [part for zone in self.settings.every_zone for part in zone_parts(self.settings, zone)]
        await self._start([*every, proxy_part(self.settings)])

    async def stop(self) -> None:
        """End everything."""
        every = [part for zone in self.settings.every_zone for part in zone_parts(self.settings, zone)]
        await self._parts.stop([proxy_part(self.settings), *every])

    async def start_zone(self, zone: int) -> None:
        """Start a zone and wait until it serves; its daemons catch up afterwards. Raises UnavailableError."""
        await self._start(zone_parts(self.settings, zone))

    async def kill_zone(self, zone: int) -> None:
        """End all of a zone without warning, as a machine that loses its power."""
        await self._parts.stop(zone_parts(self.settings, zone), at_once=True)

    async def kill_proxy(self) -> None:
        """End the proxy without warning: the store is away."""
        await self._parts.stop([proxy_part(self.settings)], at_once=True)

    async def start_proxy(self) -> None:
        """Start the proxy and wait until it serves."""
        await self._start([proxy_part(self.settings)])

    async def make_bucket(self, name: str) -> None:
        """Make a bucket unless it is there."""
        await self._api.make_bucket(name, self.secrets)

    async def _prepare(self) -> None:
        settings = self.settings
        open_to_owner = 0o700 if settings.owner is None else 0o755
        for folder in (settings.folder, settings.etc):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(open_to_owner)
        for name, text in files(settings, self.secrets).items():
            write_atomically(settings.etc / name, text, mode=_PRIVATE, owner=settings.owner)
        wanted = rings(settings)
        missing = [path for name in wanted["rings"] if not (path := settings.etc / f"{name}.ring.gz").exists()]
        if missing:
            self._refuse_to_hide(missing[0])
            await self._parts.make_rings(wanted)
        for zone in settings.every_zone:
            self._make_zone(settings.zone_folder(zone))

    def _make_zone(self, folder: Path) -> None:
        """Make a zone's folders, unless it is there: whoever they belong to may have put links into it since then."""
        if folder.exists():
            return
        making = folder.with_name(f".{folder.name}")
        shutil.rmtree(making, ignore_errors=True)
        disk = making / "disks" / DEVICE
        every = (making, disk.parent, disk, disk / "tmp", making / "recon")
        for made in every:
            made.mkdir(mode=0o700)
        try:
            os.setxattr(disk, _MARK, b"1")
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            raise HostNotReadyError(
                f"the file system of {folder} keeps no extended attributes, without which Swift stores nothing",
                hint="use ext4 or XFS",
            ) from error
        if self.settings.owner is not None:
            # Who owns a folder may put a link into it: what is in it has to be given away before.
            for made in reversed(every):
                os.chown(made, *self.settings.owner, follow_symlinks=False)
        making.rename(folder)

    def _refuse_to_hide(self, path: Path) -> None:
        """Refuse to make anew what says where objects are: they would be there, and be found by nobody."""
        zones = [folder for zone in self.settings.every_zone if (folder := self.settings.zone_folder(zone)).exists()]
        if zones:
            raise ConflictError(
                f"{path} is gone, without which nothing in {zones[0]} and its like is found",
                hint=f"restore it from a copy; or remove {self.settings.folder} with all that is stored there",
            )

    async def _start(self, parts: Sequence[Part]) -> None:
        """Start what serves, then what works behind it: that has time."""
        serving = [part for part in parts if part.port]
        await self._parts.start(serving)

        async def serves() -> bool:
            for part in await self._parts.ended(serving):
                raise UnavailableError(
                    f"{part.name} of the object store ended at its start", hint=self._parts.said(part)
                )
            for part in serving:
                if not await self._api.listens(part):
                    return False
            return all(part.zone for part in serving) or await self._api.answers()

        what = f"{len(serving)} servers of the object store"
        await wait_for(
            serves, what=what, timeout=_START_SECONDS, clock=self._clock, hint="look at the logs of its parts"
        )
        await self._parts.start([part for part in parts if not part.port])
