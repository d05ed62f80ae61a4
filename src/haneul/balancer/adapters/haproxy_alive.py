"""Exits with 0 if the HAProxy whose socket is named answers: keepalived asks so every second.

It is run as a file by a bare Python, as starting more than that would be work for nothing.
"""

from __future__ import annotations

import socket
import sys

_SECONDS = 2.0


def answers(path: str) -> bool:
    """Say whether there is an answer to a command of HAProxy's runtime API."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_SECONDS)
        try:
            connection.connect(path)
            connection.sendall(b"show version\n")
            return bool(connection.recv(1))
        except OSError:
            return False


if __name__ == "__main__":
    sys.exit(0 if answers(sys.argv[1]) else 1)
