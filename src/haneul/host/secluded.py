"""Becomes another program, without what root may: ``secluded --user=NUMBER --see=FOLDER … -- COMMAND``.

For host services that are not this project's own code. What :mod:`haneul.host.seclusion` says of its own services
holds for them: of closed folders they see the named ones, and the Python that runs this.

``--rules=FILE`` is a script of nft(8), root's own, with packet rules that the program must not be without. They are
brought about before it begins, each time: they are gone after a restart of the machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from haneul.host.seclusion import own_code, seclude
from haneul.kernel.errors import HaneulError, HostNotReadyError

_RULES_SECONDS: Final = 10.0


def secluded(command: Sequence[str], *, user: int, sees: Sequence[Path], rules: Path | None = None) -> tuple[str, ...]:
    """Return what runs a command as a user, who sees these folders wherever they are, and never without ``rules``."""
    told = [f"--see={folder}" for folder in sees] + ([] if rules is None else [f"--rules={rules}"])
    return (sys.executable, "-m", "haneul.host.secluded", f"--user={user}", *told, "--", *command)


def _bring_about(rules: str) -> None:
    # Not asyncio, which may leave a thread: what follows is for a process with one.
    try:
        subprocess.run(
            ["nft", "-f", rules],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_RULES_SECONDS,
            check=True,
            text=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()
        raise HostNotReadyError(
            f"the packet rules of {rules} cannot be brought about: {said}", hint="run 'haneul up'"
        ) from error


def _main(arguments: Sequence[str]) -> None:
    told, command = arguments[: arguments.index("--")], list(arguments[arguments.index("--") + 1 :])
    (user,) = (int(word.removeprefix("--user=")) for word in told if word.startswith("--user="))
    sees = [Path(word.removeprefix("--see=")) for word in told if word.startswith("--see=")]
    try:
        for word in told:
            if word.startswith("--rules="):
                _bring_about(word.removeprefix("--rules="))
        seclude((*own_code(), *sees), user=user)
    except HaneulError as error:
        sys.exit(f"{error.detail} ({error.hint})")
    os.execvp(command[0], command)  # noqa: S606 - to become it is what this is for


if __name__ == "__main__":
    _main(sys.argv[1:])
