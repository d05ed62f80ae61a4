"""Becomes another program, without what root may: ``secluded --user=NUMBER --see=FOLDER … -- COMMAND``.

For host services that are not this project's own code. What :mod:`haneul.host.seclusion` says of its own services
holds for them: of closed folders they see the named ones, and the Python that runs this.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from haneul.host.seclusion import own_code, seclude
from haneul.kernel.errors import HaneulError


def secluded(command: Sequence[str], *, user: int, sees: Sequence[Path]) -> tuple[str, ...]:
    """Return what runs a command as a user, who sees these folders wherever they are."""
    folders = [f"--see={folder}" for folder in sees]
    return (sys.executable, "-m", "haneul.host.secluded", f"--user={user}", *folders, "--", *command)


def _main(arguments: Sequence[str]) -> None:
    told, command = arguments[: arguments.index("--")], list(arguments[arguments.index("--") + 1 :])
    (user,) = (int(word.removeprefix("--user=")) for word in told if word.startswith("--user="))
    sees = [Path(word.removeprefix("--see=")) for word in told if word.startswith("--see=")]
    try:
        seclude((*own_code(), *sees), user=user)
    except HaneulError as error:
        sys.exit(f"{error.detail} ({error.hint})")
    os.execvp(command[0], command)  # noqa: S606 - to become it is what this is for


if __name__ == "__main__":
    _main(sys.argv[1:])
