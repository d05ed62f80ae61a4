"""A server that does nothing: every request gets the same answer, which was made before. It shows what the load can do.

A process serves each connection, so that neither an interpreter's lock nor a loop stands in the way. The arguments are
the port, and the files of a certificate and its key, or nothing for plain HTTP; a path ends with the answer's bytes.
"""

from __future__ import annotations

import socket
import socketserver
import ssl
import sys
from pathlib import Path
from typing import Any, Final

from haneul.bench.registry_connection import END

_LARGEST_HEAD: Final = 64 << 10


class _Connection(socketserver.BaseRequestHandler):
    """Answers on one connection until its client leaves."""

    def handle(self) -> None:
        server: Any = self.server
        connection = self.request
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if server.tls is not None:
            connection = server.tls.wrap_socket(connection, server_side=True)
        answers: dict[bytes, bytes] = {}
        while (data := _request(connection)) is not None:
            line = data.partition(b"\r\n")[0]
            if line not in answers:
                answers[line] = _answer(line)
            connection.sendall(answers[line])


class _Server(socketserver.ForkingTCPServer):
    allow_reuse_address = True
    request_queue_size = 128
    tls: ssl.SSLContext | None = None


def _request(connection: socket.socket) -> bytes | None:
    data = b""
    while not data.endswith(END):
        part = connection.recv(_LARGEST_HEAD)
        if not part:
            return None
        data += part
    return data


def _answer(line: bytes) -> bytes:
    method, path, _ = line.split()
    size = int(path.rpartition(b"/")[2])
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
    return head if method == b"HEAD" else head + bytes(size)


def main() -> None:
    """Serve until the process is ended."""
    port, *files = sys.argv[1:]
    with _Server(("127.0.0.1", int(port)), _Connection) as server:
        if files:
            server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.tls.load_cert_chain(Path(files[0]), Path(files[1]))
        server.serve_forever()


if __name__ == "__main__":
    main()
