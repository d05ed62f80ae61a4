"""Whether this machine lets a listener be opened: found out before HAProxy is told of it, which would not start."""

from __future__ import annotations

import errno
import socket

from haneul.balancer.model import Listener, ListenerRefusedError


def trial(listener: Listener) -> OSError | None:
    """Open a listener for a moment, and return what keeps it from being opened."""
    family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((listener.address, listener.port))
            attempt.listen(1)
        except OSError as error:
            return error
    return None


def refusal(listener: Listener, error: OSError) -> ListenerRefusedError:
    """Return what a listener that cannot be opened is refused with."""
    hint = {
        errno.EADDRNOTAVAIL: "the address is none of the balancer's: its operator gives it its pools' addresses",
        errno.EADDRINUSE: "another program on the balancer has this port",
        errno.EACCES: "the balancer may not have this port",
    }.get(error.errno or 0, "")
    return ListenerRefusedError(f"{listener} cannot be opened: {error.strerror}", listener=listener, hint=hint)
