"""Requests at a steady pace over loopback: one job is read from standard input as JSON, its figures are its output.

It is a program of its own, so that it shares neither interpreter nor memory with what it measures. Requests are sent at
their moments whether or not earlier ones were answered, on connections that are kept; where all of them are busy, a
request waits for one, and its time counts from its moment on. So a server that stands still for a while is charged with
everything that would have come meanwhile.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any, Final

_END: Final = b"\r\n\r\n"
_BUFFER: Final = 1 << 16
#: Seconds after the last request's moment in which answers are still waited for.
_GRACE: Final = 10.0


@dataclass
class Load:
    """What a job measured: seconds of each answer, how long all took, and failures by what they were."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)

    def failed(self, what: str) -> None:
        """Count a failure."""
        self.failures[what] = self.failures.get(what, 0) + 1


class _Connection:
    """One kept connection, which has one request at a time."""

    def __init__(self, address: str, port: int) -> None:
        self.socket = socket.create_connection((address, port), timeout=_GRACE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.due = 0.0
        self._got = b""

    def send(self, request: bytes, due: float) -> None:
        """Send a request, whose moment was ``due``."""
        self.due, self._got = due, b""
        self.socket.sendall(request)

    def receive(self) -> str | None:
        """Take what is there; return the status once the answer is whole, "closed" if it cannot be."""
        try:
            part = self.socket.recv(_BUFFER)
        except BlockingIOError:
            return None
        except OSError:
            return "closed"
        if not part:
            return "closed"
        self._got += part
        head, found, body = self._got.partition(_END)
        if not found:
            return None
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        return head[9:12].decode() if len(body) >= int(length or 0) else None


def steady(job: dict[str, Any]) -> Load:
    """Send ``rate`` requests a second for ``seconds``."""
    load, request = Load(), job["request"].encode()
    connections = [_Connection(job["address"], job["port"]) for _ in range(job["connections"])]
    free, busy = deque(connections), {one.socket.fileno(): one for one in connections}
    poller = select.epoll()
    for number in busy:
        poller.register(number, select.EPOLLIN)
    count = int(job["rate"] * job["seconds"])
    started = time.perf_counter()
    sent = done = 0
    while done < count:
        now = time.perf_counter()
        while sent < count and free and started + sent / job["rate"] <= now:
            free.popleft().send(request, started + sent / job["rate"])
            sent += 1
        if now > started + job["seconds"] + _GRACE:
            load.failures["no answer"] = count - done
            break
        until = started + sent / job["rate"] - now if sent < count and free else 0.05
        for number, _ in poller.poll(max(until, 0.0)):
            connection = busy[number]
            status = connection.receive()
            if status is None:
                continue
            done += 1
            if status == "200":
                load.latencies.append(time.perf_counter() - connection.due)
            else:
                load.failed(status)
            if status == "closed":
                poller.unregister(number)
                connection.socket.close()
                connection = _Connection(job["address"], job["port"])
                busy[connection.socket.fileno()] = connection
                poller.register(connection.socket.fileno(), select.EPOLLIN)
            free.append(connection)
    load.seconds = time.perf_counter() - started
    for connection in busy.values():
        connection.socket.close()
    return load


def main() -> None:
    """Do one job."""
    json.dump(asdict(steady(json.load(sys.stdin))), sys.stdout)


if __name__ == "__main__":
    main()
