"""nginx's processes in one folder: started, found again, told to read its configuration anew, ended.

```
FOLDER/nginx.conf          what is served
FOLDER/nginx.pid           the master's number
FOLDER/error.log
FOLDER/authorities/        of endpoints' certificates
FOLDER/passwords/          hashed; workers read them
FOLDER/temporary/          bodies on their way
FOLDER/private/            for the owner alone: keys, the table of endpoints, the socket that nginx is told things by
```

A confined nginx (:mod:`haneul.ingress.adapters.nginx.confined`) reads all of this and owns none of it but ``run/``,
for its number, its socket and bodies on their way. Its log goes to whoever keeps it.
"""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp

from haneul.ingress.adapters.nginx.confined import SCRATCH, Confinement, confined
from haneul.ingress.ports import ConfigurationRefusedError
from haneul.kernel.clock import Clock
from haneul.kernel.errors import CommandFailedError, DeadlineExceededError, UnavailableError
from haneul.kernel.files import write_atomically
from haneul.kernel.process import run
from haneul.kernel.processes import send_if, title
from haneul.kernel.waiting import wait_for

_CHECK_SECONDS: Final = 300.0
#: A socket's path may be this long (unix(7)), its end left aside.
_LONGEST_SOCKET: Final = 107
#: What of it a confined nginx only reads.
_READ: Final = ("private", "passwords", "authorities")
_CONFIGURATION, _CANDIDATE = "nginx.conf", "candidate.conf"
#: The title of a worker that takes connections (nginx's ``ngx_setproctitle``).
_WORKING: Final = "nginx: worker process"
_FOLDERS: Final = {"private": 0o700, "passwords": 0o755, "authorities": 0o755, "temporary": 0o755}


class NginxProcesses:
    """The nginx of one folder. ``user`` is whom workers run as, where root starts them."""

    def __init__(
        self,
        folder: Path,
        *,
        program: str,
        user: str,
        clock: Clock,
        patience: float = 120.0,
        answer: float = 10.0,
        confinement: Confinement | None = None,
    ) -> None:
        """``patience`` and ``answer`` are seconds: for nginx to serve or end, and to answer a question.

        With a ``confinement``, which takes root, there is no other ``user``.
        """
        self._folder = folder.absolute()
        self._program = program
        self._user = user
        self._confinement = confinement
        self._clock = clock
        self._patience = patience
        self._answer = aiohttp.ClientTimeout(total=answer)

    def configure(self, text: str) -> None:
        """Write what nginx reads when it starts or is told to."""
        self.write({_CONFIGURATION: text.encode()})

    def prepare(self) -> None:
        """Make the folders. Raises UnavailableError if the socket's path would be too long."""
        if len(str(self._socket).encode()) > _LONGEST_SOCKET:
            raise UnavailableError(f"{self._folder} is too long a path for a socket in it", hint="use a shorter one")
        if self._confinement is not None:
            self._prepare_confined(self._confinement.user)
            return
        for name, mode in _FOLDERS.items():
            made = self._folder / name
            made.mkdir(parents=True, exist_ok=True)
            made.chmod(mode)

    def _prepare_confined(self, user: int) -> None:
        for name in ("", *_READ, SCRATCH):
            made = self._folder / name
            made.mkdir(parents=True, exist_ok=True)
            owner = user if name == SCRATCH else os.geteuid()
            os.chown(made, owner, user)
            made.chmod(0o750)

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write files by their names in the folder; keys for the owner alone, passwords for workers too."""
        for name, content in files.items():
            kind = name.partition("/")[0]
            mode, owner = 0o644, None
            if self._confinement is not None:
                mode, owner = 0o640, (os.geteuid(), self._confinement.user)
            elif "/" not in name or kind == "private":
                mode = 0o600
            elif kind == "passwords" and self._user:
                mode, owner = 0o640, (os.geteuid(), pwd.getpwnam(self._user).pw_gid)
            elif kind == "passwords":
                mode = 0o600
            write_atomically(self._folder / name, content, mode=mode, owner=owner)

    def keep_only(self, wanted: Mapping[str, bytes]) -> None:
        """Take away certificates, authorities and passwords that no configuration names any more."""
        for kind in ("private", "passwords", "authorities"):
            for file in (self._folder / kind).iterdir():
                name = f"{kind}/{file.name}"
                if name not in wanted and (kind != "private" or file.suffix in (".crt", ".key")):
                    file.unlink(missing_ok=True)

    async def check(self, text: str) -> None:
        """Let nginx read a configuration. Raises ConfigurationRefusedError with what it says."""
        candidate = self._folder / _CANDIDATE
        self.write({_CANDIDATE: text.encode()})
        try:
            await run(self._command("-t", "-q", "-c", _CANDIDATE), timeout=_CHECK_SECONDS)
        except CommandFailedError as error:
            said = error.detail.partition("\n")[2].replace(str(self._folder), "").strip()
            raise ConfigurationRefusedError(said or error.detail) from error
        finally:
            candidate.unlink(missing_ok=True)

    async def master(self) -> int | None:
        """Return the number of the master's process if nginx answers."""
        try:
            said = await self.ask("/state")
        except UnavailableError:
            return None
        # Of one that may be somebody else's by now, the word on whom to signal counts for nothing.
        return await self._confinement.keeper.number() if self._confinement else int(said["master"])

    async def generation(self) -> str:
        """Return which configuration is served; nothing if nginx does not answer."""
        try:
            async with self._session() as session, session.get("http://nginx/generation") as answer:
                return await answer.text() if answer.status == 200 else ""
        except (aiohttp.ClientError, OSError, TimeoutError):
            return ""

    async def ask(self, path: str, body: str | None = None) -> Any:
        """Ask nginx something, or post to it, by its socket. Raises UnavailableError."""
        try:
            async with (
                self._session() as session,
                session.request("POST" if body else "GET", f"http://nginx{path}", data=body) as answer,
            ):
                if answer.status != 200:
                    raise UnavailableError(f"nginx says {answer.status}: {(await answer.text())[:200]}")
                return await answer.json(content_type=None)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise UnavailableError(f"nginx in {self._folder} does not answer: {error}") from error

    async def start(self, generation: str) -> None:
        """Start nginx; it goes on when this process ends. Raises UnavailableError."""
        if self._confinement is not None:
            await self._confinement.keeper.start()
            await self._serves(generation)
            return
        if number := self._still_running():
            # Its socket is how it is told things, and would be lost; it may only be slow.
            raise UnavailableError(f"nginx in {self._folder} runs (process {number}) but does not answer")
        # A killed nginx leaves its socket, which would be in the way of the next one.
        self._socket.unlink(missing_ok=True)
        try:
            await run(self._command("-c", _CONFIGURATION), timeout=_CHECK_SECONDS)
        except CommandFailedError as error:
            raise UnavailableError(f"nginx does not start: {error.detail}") from error
        await self._serves(generation)

    async def reload(self, master: int, generation: str) -> None:
        """Let nginx read its configuration anew, and wait until new connections meet it alone. Raises UnavailableError.

        Workers of before take connections beside new ones for a moment, longer on a busy machine.
        """
        before = accepting(master)
        send_if(master, signal.SIGHUP, lambda: self._is_master(master))
        await self._serves(generation)

        async def alone() -> bool:
            return not before & accepting(master)

        await wait_for(
            alone,
            what="nginx's workers of before to take no more connections",
            timeout=self._patience,
            clock=self._clock,
            interval=0.02,
        )

    async def end(self) -> bool:
        """Let nginx end after its requests; return False if there was none. Raises DeadlineExceededError."""
        if self._confinement is not None:
            return await self._confinement.keeper.end()
        master = await self.master()
        if master is None:
            return False

        async def gone() -> bool:
            return not (is_running(master) and self._is_master(master))

        send_if(master, signal.SIGQUIT, lambda: self._is_master(master))
        await wait_for(gone, what="nginx to end", timeout=self._patience, clock=self._clock)
        return True

    async def _serves(self, generation: str) -> None:
        async def serves() -> bool:
            return await self.generation() == generation

        try:
            await wait_for(
                serves,
                what="nginx to serve what it has to",
                timeout=self._patience,
                clock=self._clock,
                interval=0.02,
            )
        except DeadlineExceededError as error:
            error.hint = f"{self._folder}/error.log may say why"
            raise

    @property
    def _socket(self) -> Path:
        return self._folder / (SCRATCH if self._confinement else "private") / "control.sock"

    def _still_running(self) -> int | None:
        """Return the number of this folder's master if it runs, whether it answers or not."""
        try:
            number = int((self._folder / "nginx.pid").read_text())
        except (OSError, ValueError):
            return None
        return number if self._is_master(number) and is_running(number) else None

    def _is_master(self, number: int) -> bool:
        """Say whether a number is that of this folder's nginx: another process may have got it since."""
        mark = f"env HANEUL_FOLDER={self._folder};" if self._confinement is not None else f"-p {self._folder}/"
        return mark in title(number)

    def _command(self, *arguments: str) -> list[str]:
        if self._confinement is not None:
            return list(confined(self._folder, self._confinement.user, self._program, *arguments))
        return [self._program, "-p", f"{self._folder}/", *arguments]

    def _session(self) -> aiohttp.ClientSession:
        # A connection that is kept would end at a worker of the configuration before.
        connector = aiohttp.UnixConnector(path=str(self._socket), force_close=True)
        return aiohttp.ClientSession(connector=connector, timeout=self._answer)


def accepting(master: int) -> frozenset[int]:
    """Return the numbers of a master's workers that take connections; those that end have another title."""
    try:
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return frozenset()
    return frozenset(number for number in map(int, children) if title(number) == _WORKING)


def is_running(number: int) -> bool:
    """Say whether a process runs; one that ended and that nobody asked about yet does not."""
    try:
        said = Path(f"/proc/{number}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return said.rpartition(")")[2].split()[0] != "Z"
