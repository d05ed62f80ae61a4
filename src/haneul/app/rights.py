"""What commands that change this host ask for first."""

from __future__ import annotations

import os

from haneul.kernel.errors import HostNotReadyError


def need_root() -> None:
    """Raise HostNotReadyError for anybody but root."""
    if os.geteuid() != 0:
        raise HostNotReadyError("this command changes the host, which only root may", hint="run it with sudo")
