"""Load on a registry over loopback: one job is read from standard input as JSON, its figures go to standard output.

It is a program of its own, so that it shares neither interpreter nor memory with what it measures, and uses bare
sockets: a client of many layers would be slower than the registry. Tokens arrive by standard input too.

A pull job sends one request again and again on each of its connections. A push job pushes whole images, each with a
layer that nobody has pushed before: begin an upload, send it, the same for the configuration, then the manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final

_BUFFER: Final = 1 << 20
_TIMEOUT: Final = 60.0
_END: Final = b"\r\n\r\n"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class Load:
    """What a job measured: seconds of each request or image, bytes that moved, and failures by what they were."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    moved: int = 0
    failures: dict[str, int] = field(default_factory=dict)

    def failed(self, what: str) -> None:
        """Count a failure."""
        self.failures[what] = self.failures.get(what, 0) + 1


def pull(job: dict[str, Any]) -> Load:
    """Send one request over and over on every connection until the time is over."""
    load = Load()
    request = _request(job["method"], job["path"], job["host"], job["authorization"], None)
    head = job["method"] == "HEAD"
    connections = {}
    poller = select.epoll()
    for _ in range(job["connections"]):
        connection = _PullConnection(job["address"], job["port"], head)
        connections[connection.socket.fileno()] = connection
        poller.register(connection.socket.fileno(), select.EPOLLIN)
        connection.send(request)
    started = time.perf_counter()
    ends = started + job["seconds"]
    open_connections = len(connections)
    while open_connections:
        for number, _ in poller.poll(_TIMEOUT):
            connection = connections[number]
            done = connection.receive(load)
            if done is None:
                continue
            if done and time.perf_counter() < ends:
                connection.send(request)
                continue
            poller.unregister(number)
            connection.socket.close()
            open_connections -= 1
    load.seconds = time.perf_counter() - started
    return load


class _PullConnection:
    """One connection that sends the same request again and again."""

    def __init__(self, address: str, port: int, head: bool) -> None:
        self.socket = socket.create_connection((address, port), timeout=_TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = head
        self._buffer = memoryview(bytearray(_BUFFER))
        self._sent_at = 0.0
        self._missing = -1
        self._start = b""

    def send(self, request: bytes) -> None:
        """Begin the next request."""
        self._missing, self._start = -1, b""
        self._sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self, load: Load) -> bool | None:
        """Take what is there; True when the answer is whole, False when the connection is over, None in between."""
        count = self.socket.recv_into(self._buffer)
        if count == 0:
            load.failed("connection closed")
            return False
        load.moved += count
        if self._missing < 0:
            self._start += bytes(self._buffer[: min(count, 16384)])
            end = self._start.find(_END)
            if end < 0:
                return None
            head = self._start[:end].lower()
            status = self._start[9:12].decode()
            if status != "200":
                load.failed(status)
            at = head.find(b"content-length:")
            length = int(head[at + 15 : (head + b"\r\n").find(b"\r\n", at)]) if at >= 0 else 0
            received = len(self._start) - (end + 4) + max(count - 16384, 0)
            self._missing = 0 if self._head else length - received
        else:
            self._missing -= count
        if self._missing > 0:
            return None
        load.latencies.append(time.perf_counter() - self._sent_at)
        return True


def push(job: dict[str, Any]) -> Load:
    """Push images on every connection until the time is over."""
    load, lock = Load(), threading.Lock()
    base = os.urandom(job["bytes"])
    known = hashlib.sha256(base)
    started = time.perf_counter()
    ends = started + job["seconds"]

    def work(number: int) -> None:
        mine = Load()
        connection = _PushConnection(job)
        turn = 0
        while time.perf_counter() < ends:
            repository = job["repositories"][(number + turn) % len(job["repositories"])]
            mark = f"{number}-{turn}-{os.getpid()}".encode()
            hasher = known.copy()
            hasher.update(mark)
            at = time.perf_counter()
            try:
                connection.push(repository, base, mark, f"sha256:{hasher.hexdigest()}", f"t{number}-{turn}")
                mine.latencies.append(time.perf_counter() - at)
                mine.moved += len(base)
            except (OSError, ValueError) as error:
                mine.failed(str(error)[:80])
                connection = _PushConnection(job)
            turn += 1
        with lock:
            load.latencies += mine.latencies
            load.moved += mine.moved
            for what, count in mine.failures.items():
                load.failures[what] = load.failures.get(what, 0) + count

    threads = [threading.Thread(target=work, args=(number,)) for number in range(job["connections"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds = time.perf_counter() - started
    return load


class _PushConnection:
    """One client that pushes images, one request after the other."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._host, self._authorization = job["host"], job["authorization"]
        self._socket = socket.create_connection((job["address"], job["port"]), timeout=_TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def push(self, repository: str, base: bytes, mark: bytes, digest: str, tag: str) -> None:
        """Push an image of one layer, ``base`` and ``mark``."""
        config = json.dumps({"os": "linux", "of": digest}).encode()
        config_digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
        self._blob(repository, [base, mark], digest)
        self._blob(repository, [config], config_digest)
        layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest}
        document = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest,
                "size": len(config),
            },
            "layers": [{**layer, "size": len(base) + len(mark)}],
        }
        self._call("PUT", f"/v2/{repository}/manifests/{tag}", [json.dumps(document).encode()], 201, kind=_MANIFEST)

    def _blob(self, repository: str, parts: list[bytes], digest: str) -> None:
        headers = self._call("POST", f"/v2/{repository}/blobs/uploads/", [], 202)
        at = headers.lower().find("\r\nlocation:") + len("\r\nlocation:")
        location = headers[at : headers.find("\r\n", at)].strip()
        if location.startswith("http"):
            location = "/" + location.split("/", 3)[3]
        joint = "&" if "?" in location else "?"
        self._call("PUT", f"{location}{joint}digest={digest}", parts, 201)

    def _call(self, method: str, path: str, parts: list[bytes], expected: int, *, kind: str = "") -> str:
        request = _request(method, path, self._host, self._authorization, sum(map(len, parts)), kind)
        if sum(map(len, parts)) < 32768:
            self._socket.sendall(request + b"".join(parts))
        else:
            self._socket.sendall(request)
            for part in parts:
                self._socket.sendall(part)
        data = b""
        while (end := data.find(_END)) < 0:
            part = self._socket.recv(65536)
            if not part:
                raise ValueError("connection closed")
            data += part
        headers = data[:end].decode("latin-1") + "\r\n"
        at = headers.lower().find("content-length:")
        missing = int(headers[at + 15 : headers.find("\r\n", at)]) - (len(data) - end - 4) if at >= 0 else 0
        while missing > 0:
            missing -= len(self._socket.recv(65536))
        if headers[9:12] != str(expected):
            raise ValueError(f"{method} {headers[9:12]}")
        return headers


def _request(method: str, path: str, host: str, authorization: str, length: int | None, kind: str = "") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Authorization: {authorization}", f"Accept: {_MANIFEST}"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
        lines.append(f"Content-Type: {kind or 'application/octet-stream'}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def main() -> None:
    """Do one job."""
    job = json.load(sys.stdin)
    load = pull(job) if job["kind"] == "pull" else push(job)
    json.dump(asdict(load), sys.stdout)


if __name__ == "__main__":
    main()
