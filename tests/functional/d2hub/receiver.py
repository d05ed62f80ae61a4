"""A server that events are sent to, over real HTTP: it remembers requests and answers as each path is told to."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from haneul.d2hub.signing import parse_secrets, signed_headers

T = TypeVar("T")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DEADLINE = 60.0


@dataclass(frozen=True)
class Arrived:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        return json.loads(self.body)  # type: ignore[no-any-return]

    @property
    def tag(self) -> str:
        return str(self.event["data"]["tag"])

    def is_signed(self) -> bool:
        """Say whether it was signed as Standard Webhooks has it, by who has the secret."""
        said = {name: self.headers[name] for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
        at = int(said["webhook-timestamp"])
        return signed_headers(parse_secrets(SECRET), identity=said["webhook-id"], at=at, body=self.body) == said


@dataclass
class Receiver:
    """What arrived, and what is answered: by path a status, or more of them, of which the last stays."""

    port: int = 0
    arrived: list[Arrived] = field(default_factory=list)
    statuses: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [200]))
    #: Paths that are not answered until the test ends.
    silent: set[str] = field(default_factory=set)
    ended: threading.Event = field(default_factory=threading.Event)

    def at(self, path: str, *, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def of(self, path: str) -> list[Arrived]:
        return [one for one in list(self.arrived) if one.path == path]


@contextlib.contextmanager
def receiving(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Receive until the block ends."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.arrived.append(Arrived(self.path, headers, body))
            if self.path in receiver.silent:
                receiver.ended.wait()
            statuses = receiver.statuses[self.path]
            status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", receiver.at("/elsewhere"))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that go away are part of the tests
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.ended.set()
        server.shutdown()
        server.server_close()
        thread.join(DEADLINE)


def waited(look: Callable[[], T], good: Callable[[T], bool] = bool) -> T:
    """Return what ``look`` returns once it is good."""
    deadline = time.monotonic() + DEADLINE
    while not good(found := look()):
        assert time.monotonic() < deadline, f"still {found!r}"
        time.sleep(0.05)
    return found
