"""A client of registries on one kept connection: bare sockets, since many layers would be slower than what is measured.

Where the registry has a certificate, it is verified by the authority that the target names.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

TIMEOUT: Final = 60.0
END: Final = b"\r\n\r\n"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_BUFFER: Final = 1 << 18
#: A body of at most so many bytes goes out with its head.
_TOGETHER: Final = 32 << 10


class AnswerError(ValueError):
    """A registry answered something else than was expected; the text says what, without what differs every time."""


@dataclass(frozen=True)
class Target:
    """Where a registry is, and the file of the authority that its certificate is verified by; none for plain HTTP."""

    address: str
    port: int
    authority: str

    @classmethod
    def of(cls, job: dict[str, Any]) -> Target:
        """Return a job's target."""
        return cls(job["address"], job["port"], job["authority"])

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority)

    def connect(self) -> socket.socket:
        """Return a new connection. Raises OSError."""
        plain = socket.create_connection((self.address, self.port), timeout=TIMEOUT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.authority:
            return plain
        try:
            return self._tls.wrap_socket(plain, server_hostname=self.address)
        except BaseException:
            plain.close()
            raise

    def head(
        self, method: str, path: str, authorization: str, *, length: int | None = None, media_type: str = ""
    ) -> bytes:
        """Return a request's head."""
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self.address}:{self.port}",
            f"Authorization: {authorization}",
            f"Accept: {MANIFEST}",
        ]
        if length is not None:
            lines += [f"Content-Length: {length}", f"Content-Type: {media_type or 'application/octet-stream'}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


@dataclass(frozen=True)
class Answer:
    """An answer's head, and its body if that was to be kept."""

    status: int
    head: bytes
    body: bytes
    length: int

    def header(self, name: str) -> str:
        """Return a header, or nothing."""
        return header(self.head, name).decode("latin-1")


def header(head: bytes, name: str) -> bytes:
    """Return the value of a header in an answer's head, or nothing."""
    at = head.lower().find(f"\r\n{name}:".encode())
    if at < 0:
        return b""
    start = at + len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


class Connection:
    """One client that asks one thing after the other."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._socket = target.connect()
        self._buffer = memoryview(bytearray(_BUFFER))

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def call(
        self,
        method: str,
        path: str,
        authorization: str,
        expected: int,
        *,
        parts: list[bytes] | None = None,
        media_type: str = "",
        keep: bool = False,
    ) -> Answer:
        """Ask, and take the whole answer; its body is kept with ``keep``. Raises AnswerError, OSError."""
        length = None if parts is None else sum(map(len, parts))
        request = self._target.head(method, path, authorization, length=length, media_type=media_type)
        if length is not None and length < _TOGETHER:
            self._socket.sendall(request + b"".join(parts or []))
        else:
            self._socket.sendall(request)
            for part in parts or []:
                self._socket.sendall(part)
        answer = self._receive(keep)
        if answer.status != expected:
            raise AnswerError(f"{method} {answer.status}")
        return answer

    def _receive(self, keep: bool) -> Answer:
        data = b""
        while (end := data.find(END)) < 0:
            data += self._part()
        head, rest = data[:end], data[end + len(END) :]
        length = int(header(head, "content-length") or 0)
        kept, missing = [rest], length - len(rest)
        while missing > 0:
            part = self._part()
            missing -= len(part)
            if keep:
                kept.append(bytes(part))
        return Answer(int(head[9:12]), head, b"".join(kept) if keep else b"", length)

    def _part(self) -> memoryview:
        count = self._socket.recv_into(self._buffer)
        if count == 0:
            raise AnswerError("connection closed")
        return self._buffer[:count]
