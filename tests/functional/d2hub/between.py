"""What stands between a mirror and its upstream in tests: passes everything on, counts it, misbehaves as it is told."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PIECE = 64 << 10
_SECONDS = 60
_OF_A_CONNECTION = frozenset({"connection", "transfer-encoding", "keep-alive", "host", "date", "server"})


@dataclass(frozen=True)
class Asked:
    """A request that arrived."""

    method: str
    path: str
    headers: Mapping[str, str]


class Exchange(BaseHTTPRequestHandler):
    """One request, which a test may answer as it likes."""

    protocol_version = "HTTP/1.1"
    between: Between

    def do_GET(self) -> None:
        self.between.requests.append(Asked(self.command, self.path, dict(self.headers)))
        misbehave = self.between.misbehave
        if self.between.gone:
            self.close_connection = True
        elif misbehave is None or not misbehave(self):
            self.pass_on()

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    @property
    def is_of_manifest(self) -> bool:
        return "/manifests/" in self.path

    @property
    def is_of_blob(self) -> bool:
        return "/blobs/" in self.path

    def reply(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bool:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return True

    def pass_on(
        self,
        *,
        most: int | None = None,
        change: Callable[[bytes], bytes] = bytes,
        pause: tuple[int, threading.Event] | None = None,
        leave_out: frozenset[str] = frozenset(),
    ) -> bool:
        """Ask the upstream and hand its answer on: at most so many bytes, changed, with a pause after some."""
        upstream = http.client.HTTPConnection("127.0.0.1", self.between.upstream_port, timeout=_SECONDS)
        with contextlib.closing(upstream):
            # The host by which the mirror came: what the upstream says of itself leads back through here.
            headers = {name: value for name, value in self.headers.items() if name.lower() not in leave_out}
            upstream.request(self.command, self.path, headers=headers)
            answer = upstream.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _OF_A_CONNECTION:
                    self.send_header(name, value)
            self.end_headers()
            sent = 0
            while self.command != "HEAD" and (part := answer.read(_PIECE)):
                part = change(part)
                if most is not None and sent + len(part) > most:
                    self.wfile.write(part[: most - sent])
                    self.close_connection = True
                    return True
                self.wfile.write(part)
                sent += len(part)
                if pause is not None and sent >= pause[0]:
                    self.wfile.flush()
                    pause[1].wait(_SECONDS)
        return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing: clients that go away are what tests are about."""


class Between:
    """A server of its own port."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.requests: list[Asked] = []
        #: Answers a request, or returns False for it to be passed on.
        self.misbehave: Callable[[Exchange], bool] | None = None
        self.gone = False
        self._server = _Server(("127.0.0.1", 0), type("Bound", (Exchange,), {"between": self}))
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def count(self, method: str, part: str) -> int:
        """Return how many requests there were for paths with something in them."""
        return sum(asked.method == method and part in asked.path for asked in self.requests)

    def stop(self) -> None:
        """Be gone: nobody listens at the port any more, and connections that are open are of no use."""
        self.gone = True
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(_SECONDS)
            self._server.server_close()


@contextlib.contextmanager
def between(upstream_port: int) -> Iterator[Between]:
    """Stand between until the block ends."""
    server = Between(upstream_port)
    try:
        yield server
    finally:
        server.stop()
