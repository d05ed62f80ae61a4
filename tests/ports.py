"""Ports for programs that tests start, which nobody else takes before they listen.

The kernel gives ports of its own range to whoever connects or asks for any, so one that was free a moment ago may be
taken by now. These are below that range. Each hundred of them is one process's, who has bound the hundred's name:
an abstract socket, of which nothing is left when the process ends (unix(7)).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

_HUNDREDS = range(20000, 30000, 100)


def _claimed() -> Iterator[int]:
    """Yield the ports of one hundred after the other that no other process has claimed."""
    with contextlib.ExitStack() as claims:
        for first in _HUNDREDS:
            claim = claims.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            with contextlib.suppress(OSError):
                claim.bind(f"\0haneul-tests-{first}")
                yield from range(first, first + 100)
    raise AssertionError("all ports for tests are taken")


_PORTS = _claimed()


def port() -> int:
    """Return a port, for TCP and for UDP at any address of this host, that is never returned again."""
    return next(number for number in _PORTS if _is_free(number))


def ports(count: int) -> list[int]:
    """Return so many ports."""
    return [port() for _ in range(count)]


def _is_free(number: int) -> bool:
    """Say whether nobody is there who knows nothing of claims."""
    try:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(type=kind) as found:
                found.bind(("", number))
    except OSError:
        return False
    return True
