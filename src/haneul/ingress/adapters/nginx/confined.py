"""An nginx that never has root's rights, and that somebody else keeps running.

It begins as a user of a number that nobody else has, in its own folder, with the one right to take ports below 1024.
What it is told lies in files that it may read and not change; what it writes lies in a folder of its own in there. So
whoever takes an nginx over has what one cluster's clients send, and nothing of the machine or of another cluster.

Its folder is the directory that it begins in, and all names are relative to that: no other user needs a way there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

#: What nginx writes itself: its number, its socket, bodies on their way.
SCRATCH: Final = "run"
#: Processes of its user: workers whose connections end are beside those that follow. No key comes into a core file.
_LIMITS: Final = ("--nproc=2048", "--core=0")
#: As many open files as the machine lets it have.
_ENTER: Final = 'ulimit -S -n "$(ulimit -H -n)"; cd "$1" && shift && exec "$@"'
#: Workers of a master that was killed would keep its ports, and its socket would be in the way. Whoever has this user's
#: number is such a worker (kill(2): everybody that it may signal, but not itself).
_TAKE_OVER: Final = '[ "$(id -u)" = "$1" ] || exit 1; kill -KILL -1; rm -f run/control.sock; shift; exec "$@"'


class Keeper(Protocol):
    """Whoever keeps an nginx running: it is started again when it was killed, and with the machine."""

    async def number(self) -> int | None:
        """Return the number of the master's process if it runs."""
        ...

    async def start(self) -> None:
        """Start it, from now on."""
        ...

    async def end(self) -> bool:
        """End it, and keep it no longer; return False if there was none."""
        ...


@dataclass(frozen=True)
class Confinement:
    """The user that an nginx is, by number of user and group alike, and who keeps it."""

    user: int
    keeper: Keeper


def confined(folder: Path, user: int, program: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs nginx once in a folder, as a user that is not root."""
    return (*_entering(folder, user), program, "-p", "./", "-e", "stderr", *arguments)


def kept(folder: Path, user: int, program: str) -> tuple[str, ...]:
    """Return the command of an nginx that somebody keeps running.

    The variable that it sets for nobody is its mark: nginx shows it in its process's title.
    """
    mark = f"daemon off; env HANEUL_FOLDER={folder};"
    take_over = ("/bin/sh", "-c", _TAKE_OVER, "nginx", str(user))
    return (
        *_entering(folder, user), *take_over, program, "-p", "./", "-e", "stderr", "-c", "nginx.conf", "-g", mark,
    )  # fmt: skip


def _entering(folder: Path, user: int) -> tuple[str, ...]:
    capability = "-all,+net_bind_service"
    return (
        "/bin/sh", "-c", _ENTER, "nginx", str(folder),
        "prlimit", *_LIMITS, "--",
        "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs",
        f"--inh-caps={capability}", f"--ambient-caps={capability}", f"--bounding-set={capability}",
    )  # fmt: skip
