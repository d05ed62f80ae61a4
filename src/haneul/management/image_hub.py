"""The image hub as a host service: D2Hub in one folder, outside every cluster, at the host's address.

It keeps no right of root's (:mod:`haneul.host.seclusion`), and of the installation's state sees its own folder alone.
People and robots of the platform sign in; the platform's authority signs its certificate, which is renewed with those
of the host. Which clusters' pods are let in lies in a folder of its own, which the worker that follows clusters writes.

Content is in files of the folder, or in a bucket of the platform's object store, as the folder's mark says; it is moved
from the one to the other while the hub does not run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from haneul.host.secluded import secluded
from haneul.host.services import HostService, ServiceManager, made_from
from haneul.kernel.clock import Clock
from haneul.kernel.errors import CommandFailedError, ConflictError, HostNotReadyError
from haneul.kernel.files import is_there, read_plain, write_atomically
from haneul.kernel.leaf_files import LeafFiles
from haneul.kernel.listening import listens
from haneul.kernel.pki import KeyPair, LeafProfile
from haneul.kernel.process import run
from haneul.kernel.waiting import wait_for
from haneul.management.certificates import Held, held
from haneul.management.containers import SYSTEM_PATH
from haneul.management.settings import ManagementSettings

SERVICE: Final = "hub"
#: The user that the hub and the worker that tells it of clusters are: a number, which no account has.
USER: Final = 65531
#: As whom that worker comes, by a token of the management cluster's.
REPORTER: Final = "system:serviceaccount:haneul-hub:haneul-hub"
_ISSUER: Final = "https://kubernetes.default.svc.haneul.internal"
_CERTIFICATE_LIFE: Final = timedelta(days=90)
_CONNECT_SECONDS: Final = 2.0
_PRIVATE: Final = 0o600
#: What its certificate is called where all of the host are shown.
_SHOWN_AS: Final = "hub/serving.crt"
#: Content may be a disk's; each request to the store has its own deadline.
_MOVE_SECONDS: Final = 24 * 3600.0
#: A move waits for a renewal, which waits for the hub to start; longer than that takes.
_LOCK_SECONDS: Final = 120.0
#: So much is told of what a move has said, in characters.
_SHOWN: Final = 2000


@dataclass(frozen=True)
class HubFiles:
    """What the hub has on the host, below the installation's state folder."""

    state: Path

    @property
    def off(self) -> Path:
        """Return the file that is there if somebody turned the hub off."""
        return self.state / "hub.off"

    @property
    def lock(self) -> Path:
        """Return the file that is locked by who moves content, and by who renews the hub without the host's lock."""
        return self.state / "hub.lock"

    @property
    def folder(self) -> Path:
        """Return the folder with everything that the hub keeps."""
        return self.state / "hub"

    @property
    def clusters(self) -> Path:
        """Return the folder of the clusters whose pods are let in."""
        return self.folder / "clusters"

    @property
    def reporter(self) -> Path:
        """Return the file that says who tells what clusters run."""
        return self.folder / "reporter.json"

    @property
    def authority(self) -> Path:
        """Return the hub's copy of the platform's authority, whose API it asks who signs in."""
        return self.folder / "platform-ca.crt"

    @property
    def certificate(self) -> Path:
        """Return the hub's certificate."""
        return self.folder / "serving.crt"

    @property
    def key(self) -> Path:
        """Return the key of the hub's certificate."""
        return self.folder / "serving.key"

    @property
    def store(self) -> Path:
        """Return the file that tells the hub of its bucket, secrets and all."""
        return self.folder / "store.yaml"

    @property
    def in_bucket(self) -> bool:
        """Say whether content is in the bucket, and not in files."""
        return (self.folder / "store.id").exists()

    @property
    def being_moved(self) -> bool:
        """Say whether content may be in both, as a move was ended or is under way."""
        return (self.folder / "store.moving").exists()


def is_wanted(state: Path) -> bool:
    """Say whether the hub runs on this host, unless somebody turned it off."""
    # `doctor` may be asked by anybody.
    return not is_there(HubFiles(state).off)


def want(state: Path, *, wanted: bool) -> None:
    """Turn the hub on or off from the next `up` on."""
    off = HubFiles(state).off
    if wanted:
        off.unlink(missing_ok=True)
    else:
        write_atomically(off, "The image hub is turned off; 'haneul up --hub' turns it on.\n")


def hub_service(settings: ManagementSettings, *, platform: str, certificate: bytes) -> HostService:
    """Return the hub as a host service. ``platform`` is where its API is; another certificate starts the hub anew."""
    files = HubFiles(settings.state)
    argv = (
        sys.executable,
        "-m",
        "haneul.app.main",
        "serve",
        "hub",
        f"--folder={files.folder}",
        f"--address={settings.address}",
        f"--port={settings.hub_port}",
        f"--name={settings.hub_name}",
        f"--platform={platform}",
        f"--user={USER}",
        *([f"--store={files.store}"] if files.in_bucket else []),
    )
    return HostService(SERVICE, argv, (("PATH", SYSTEM_PATH), made_from(certificate.decode())))


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open a folder, and never what the hub may have put a link to in its place. Raises OSError."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield opened
    finally:
        os.close(opened)


@contextlib.contextmanager
def _used(folder: Path) -> Iterator[None]:
    """Raise HostNotReadyError for what can be neither read nor written: the hub may have put anything there."""
    try:
        yield
    except OSError as error:
        raise HostNotReadyError(f"the image hub's folder cannot be used: {error}", hint=f"look at {folder}") from error


class ImageHub:
    """The image hub of this host."""

    def __init__(self, settings: ManagementSettings, *, services: ServiceManager, clock: Clock) -> None:
        self._settings = settings
        self._services = services
        self._clock = clock
        self.files = HubFiles(settings.state)
        # Threads wait for it, so it is not one thread's.
        self._lock = FileLock(self.files.lock, thread_local=False)

    def prepare(self, authority: KeyPair, reporter_keys: Sequence[dict[str, Any]]) -> None:
        """Make the folder, with all that the hub has to be told; may be repeated.

        ``authority`` is the platform's; ``reporter_keys`` are the public keys (RFC 7517) of the management cluster's
        tokens. Raises HostNotReadyError if the hub put in the way what no file can replace.
        """
        files, owner = self.files, (USER, USER)
        with _used(files.folder):
            for folder in (files.folder, files.clusters):
                folder.mkdir(mode=0o700, exist_ok=True)
                with _opened(folder) as opened:
                    os.fchown(opened, *owner)
            write_atomically(files.authority, authority.certificate, owner=owner)
            reporter = {
                "issuer": _ISSUER,
                "audience": self._settings.hub_name,
                "subject": REPORTER,
                "keys": list(reporter_keys),
            }
            write_atomically(files.reporter, json.dumps(reporter, indent=2) + "\n", mode=_PRIVATE, owner=owner)
        self._ensure_certificate(authority)

    async def move_content(self, *, into_bucket: bool, bucket: str, told: Callable[[str], None]) -> None:
        """Move all content into the bucket, or back into files, unless it is there; the hub does not run meanwhile.

        ``bucket`` is what the hub's file of its bucket shall say, in either case. ``told`` hears how far it has come.
        Raises ConflictError if the move was ended by what it met: nothing is lost then, the hub can serve what it has
        from where that is, and the move, or the other one, may be begun again. Nobody renews the hub meanwhile.
        """
        files, owner = self.files, (USER, USER)
        with _used(files.folder):
            write_atomically(files.store, bucket, mode=_PRIVATE, owner=owner)
        if files.in_bucket == into_bucket and not files.being_moved:
            return
        try:
            await asyncio.to_thread(self._lock.acquire, timeout=_LOCK_SECONDS)
        except Timeout as error:
            raise ConflictError(
                "the image hub's certificate is being renewed, and the images are where they were",
                hint="wait for 'haneul renew' to end, then repeat 'haneul up'",
            ) from error
        try:
            await self._move(into_bucket=into_bucket, told=told)
        finally:
            self._lock.release()

    async def _move(self, *, into_bucket: bool, told: Callable[[str], None]) -> None:
        files = self.files
        await self._services.stop(SERVICE)
        command = (sys.executable, "-m", "haneul.app.main", "serve", "hub-content", f"--folder={files.folder}")
        where = (f"--store={files.store}", "--to=bucket" if into_bucket else "--to=files")
        # It ends with this process, however that ends.
        argv = secluded(("setpriv", "--pdeathsig", "KILL", *command, *where), user=USER, sees=[files.folder])
        heard = ""

        def hear(line: str) -> None:
            nonlocal heard
            heard = f"{heard}\n{line}"[-_SHOWN:]
            told(line)

        try:
            await run(argv, timeout=_MOVE_SECONDS, on_line=hear)
        except CommandFailedError as error:
            # How far it had come is no reason.
            why = heard[max(heard.rfind("error["), 0) :].strip()
            raise ConflictError(
                f"the images could not be moved, and are where they were:\n{why}",
                hint="repeat 'haneul up' once that is mended; the other of --kage and --no-kage leaves them there",
            ) from error

    async def start(self, *, platform: str) -> None:
        """Start the hub, whose folder is prepared, or start it anew if it has another certificate."""
        settings = self._settings
        with _used(self.files.folder):
            certificate = read_plain(self.files.certificate)
        await self._services.ensure(hub_service(settings, platform=platform, certificate=certificate))
        await wait_for(
            partial(listens, settings.address, settings.hub_port, seconds=_CONNECT_SECONDS),
            what=f"the image hub to listen at {settings.address} port {settings.hub_port}",
            timeout=60,
            clock=self._clock,
            hint=f"look at {settings.logs}/{SERVICE}.log; 'haneul up --no-hub' does without it",
        )

    async def end(self) -> None:
        """Have no hub run here any more; what it keeps stays, but which clusters there are, it will have to be told.

        Raises HostNotReadyError if the hub made something else of that folder.
        """
        if any(state.name == SERVICE for state in await self._services.states()):
            await self._services.remove(SERVICE)
        with _used(self.files.folder), contextlib.suppress(FileNotFoundError), _opened(self.files.clusters) as folder:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.name.endswith(".json")]
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)

    async def renew(self, authority: KeyPair, *, platform: str) -> None:
        """Renew the certificate if it is due; a hub that runs starts anew with it within a second or two.

        Does nothing while content is moved: the hub does not run then, and the next renewal is soon enough.
        """
        if not self.files.folder.exists() or not self._settings.hub:
            return
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return
        try:
            made = self._ensure_certificate(authority)
            # Who was ended between a new certificate and the new start left that to the next one.
            if made or any(state.name == SERVICE for state in await self._services.states()):
                await self.start(platform=platform)
        finally:
            self._lock.release()

    def certificates(self) -> list[Held]:
        """Return the hub's certificate, if it is made; one that the hub spoiled has ended."""
        files = self.files
        if not files.certificate.exists() or not self._settings.hub:
            return []
        try:
            return [held(_SHOWN_AS, read_plain(files.certificate), read_plain(files.key))]
        except (OSError, ValueError):
            # The hub may have put anything there; it is to be made anew.
            now = self._clock.now()
            return [Held(_SHOWN_AS, now, now, whole=False)]

    def _ensure_certificate(self, authority: KeyPair) -> bool:
        """Make a certificate unless the kept one is good for this host; return whether one was made."""
        files, settings = self.files, self._settings
        profile = LeafProfile(
            "haneul-hub",
            dns_names=(settings.hub_name, "localhost"),
            addresses=(settings.address, "127.0.0.1"),
            server=True,
        )
        leaf = LeafFiles(files.certificate, files.key, owner=(USER, USER))
        with _used(files.folder):
            _, made = leaf.ensure(authority, profile, now=self._clock.now(), life=_CERTIFICATE_LIFE)
        return made
