"""Whether this machine lets a listener be opened: found out before a balancer is told of it, which would not say so."""

from __future__ import annotations

import errno
import socket

from haneul.balancer.model import Listener, ListenerRefusedError, Protocol

#: ip(7): an address that is not this machine's (yet) can be bound, and the option of IPv6 is another one (ipv6(7)).
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78


def trial(listener: Listener, *, anywhere: bool = False) -> OSError | None:
    """Open a listener for a moment, and return what keeps it from being opened.

    With ``anywhere``, that the address is not this machine's is no reason: it comes and goes, as it is shared.
    """
    family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
    kind = socket.SOCK_STREAM if listener.protocol is Protocol.TCP else socket.SOCK_DGRAM
    with socket.socket(family, kind) as attempt:
        try:
            if listener.protocol is Protocol.TCP:
                attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if anywhere and family == socket.AF_INET6:
                attempt.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            elif anywhere:
                attempt.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            attempt.bind((listener.address, listener.port))
            if listener.protocol is Protocol.TCP:
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
