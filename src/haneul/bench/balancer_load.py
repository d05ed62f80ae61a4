"""Load through a balancer, or past it: one job is read from standard input as JSON, its figures go to standard output.

It is a program of its own, so that it shares no interpreter with what it measures. Each client sends one request after
the other; some on a connection that is kept as long as the server keeps it, the others each on a new one. A request
fails if its answer is not whole, whatever the reason: nothing is tried again.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final

_END: Final = b"\r\n\r\n"
_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
_SECONDS: Final = 30.0


@dataclass
class BalancerLoad:
    """What a job measured: seconds of each request, and failures by what they were."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)


@dataclass
class _Job:
    """``requests`` in all, or as many as go into ``seconds``; ``fresh`` of the clients keep no connection."""

    address: str
    port: int
    clients: int
    fresh: int
    requests: int
    seconds: float


class _Client:
    """One client; it keeps its connection until the server says that it ends."""

    def __init__(self, job: _Job, fresh: bool) -> None:
        self._job = job
        self._fresh = fresh
        self._socket: socket.socket | None = None

    def ask(self) -> None:
        """Send one request and take its answer. Raises OSError, and ConnectionError for half an answer."""
        if self._socket is None:
            self._socket = socket.create_connection((self._job.address, self._job.port), _SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(_REQUEST)
        data = b""
        while _END not in data:
            data += self._part()
        head, _, body = data.partition(_END)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += self._part()
        if self._fresh or b"connection: close" in head.lower():
            self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _part(self) -> bytes:
        assert self._socket is not None  # noqa: S101 - it was opened above
        part = self._socket.recv(65536)
        if not part:
            raise ConnectionError("closed before the answer was whole")
        return part


def run(job: _Job) -> BalancerLoad:
    """Do a job."""
    load, turn = BalancerLoad(), threading.Lock()
    left = job.requests
    started = time.perf_counter()

    def go_on() -> bool:
        nonlocal left
        if not job.requests:
            return time.perf_counter() - started < job.seconds
        with turn:
            left -= 1
            return left >= 0

    def work(fresh: bool) -> None:
        client = _Client(job, fresh)
        latencies = []
        failures: list[str] = []
        while go_on():
            at = time.perf_counter()
            try:
                client.ask()
                latencies.append(time.perf_counter() - at)
            except OSError as error:
                failures.append(str(error) or type(error).__name__)
                client.close()
        client.close()
        with turn:
            load.latencies += latencies
            for failure in failures:
                load.failures[failure] = load.failures.get(failure, 0) + 1

    threads = [threading.Thread(target=work, args=(number < job.fresh,)) for number in range(job.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds = time.perf_counter() - started
    return load


def main() -> None:
    """Read a job, do it, write what it measured."""
    job: dict[str, Any] = json.load(sys.stdin)
    json.dump(asdict(run(_Job(**job))), sys.stdout)


if __name__ == "__main__":
    main()
