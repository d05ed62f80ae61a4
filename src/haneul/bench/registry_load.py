"""Load on a registry over loopback: one job is read from standard input as JSON, its figures go to standard output.

It is a program of its own, so that it shares neither interpreter nor memory with what it measures. Tokens arrive by
standard input too, one for each repository, as clients have them.

- ``pull`` sends requests over and over on each of its kept connections.
- ``push`` pushes whole images, each with a layer that nobody has pushed before: begin an upload, send it, the same for
  the configuration, then the manifest.
- ``first`` pushes images, which is not timed, and then lets many clients pull them all, the same at about the same
  time, each on a new connection: manifest, configuration, layer.
- ``fill`` gives each of its repositories tags that each name a manifest of their own.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import select
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from haneul.bench.registry_connection import END, MANIFEST, TIMEOUT, AnswerError, Connection, Target, header

_BUFFER: Final = 1 << 20
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"


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

    def add(self, other: Load) -> None:
        """Take in what another measured."""
        self.latencies += other.latencies
        self.moved += other.moved
        for what, count in other.failures.items():
            self.failures[what] = self.failures.get(what, 0) + count


def pull(job: dict[str, Any]) -> Load:
    """Send requests over and over on every connection until the time is over."""
    load, target = Load(), Target.of(job)
    requests = itertools.cycle([target.head(job["method"], path, job["authorization"]) for path in job["paths"]])
    connections = {}
    poller = select.epoll()
    for _ in range(job["connections"]):
        connection = _PullConnection(target, job["method"] == "HEAD")
        connections[connection.number] = connection
        poller.register(connection.number, select.EPOLLIN)
    started = time.perf_counter()
    ends = started + job["seconds"]
    for connection in connections.values():
        connection.send(next(requests))
    under_way = len(connections)
    while under_way:
        ready = poller.poll(TIMEOUT)
        if not ready:
            load.failed("no answer")
            break
        for number, _ in ready:
            connection = connections[number]
            done = connection.receive(load)
            if done is None:
                continue
            if done and time.perf_counter() < ends:
                connection.send(next(requests))
                continue
            poller.unregister(number)
            connection.close()
            under_way -= 1
    load.seconds = time.perf_counter() - started
    return load


class _PullConnection:
    """One connection that sends one request after the other and never waits."""

    def __init__(self, target: Target, head: bool) -> None:
        self._socket = target.connect()
        self._socket.setblocking(False)
        self.number = self._socket.fileno()
        self._head = head
        self._buffer = memoryview(bytearray(_BUFFER))
        self._sent_at = 0.0
        self._missing = -1
        self._start = b""

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def send(self, request: bytes) -> None:
        """Begin the next request; nothing else is on its way, so there is room for all of it."""
        self._missing, self._start = -1, b""
        self._sent_at = time.perf_counter()
        self._socket.sendall(request)

    def receive(self, load: Load) -> bool | None:
        """Take what is there; True when the answer is whole, False when the connection is over, None in between."""
        while True:
            try:
                count = self._socket.recv_into(self._buffer)
            except (ssl.SSLWantReadError, BlockingIOError):
                return None
            if count == 0:
                load.failed("connection closed")
                return False
            load.moved += count
            if self._take(count, load):
                load.latencies.append(time.perf_counter() - self._sent_at)
                return True
            # What TLS has taken from the socket already wakes nobody up.
            if not isinstance(self._socket, ssl.SSLSocket) or not self._socket.pending():
                return None

    def _take(self, count: int, load: Load) -> bool:
        """Take bytes that arrived; True if the answer is whole."""
        if self._missing >= 0:
            self._missing -= count
            return self._missing <= 0
        kept = min(count, 16384)
        self._start += bytes(self._buffer[:kept])
        end = self._start.find(END)
        if end < 0:
            return False
        head = self._start[:end]
        status = head[9:12].decode()
        if status != "200":
            load.failed(status)
        length = 0 if self._head else int(header(head, "content-length") or 0)
        self._missing = length - (len(self._start) - end - len(END)) - (count - kept)
        return self._missing <= 0


def push(job: dict[str, Any]) -> Load:
    """Push images on every connection until the time is over or enough is pushed."""
    target, base = Target.of(job), os.urandom(job["bytes"])
    known = hashlib.sha256(base)
    repositories = list(job["authorizations"])
    turns = itertools.count()
    ends = time.perf_counter() + job["seconds"]

    def work(mine: Load) -> None:
        connection = Connection(target)
        try:
            while (turn := next(turns)) < job["most"] and time.perf_counter() < ends:
                repository = repositories[turn % len(repositories)]
                image = _Image(repository, job["authorizations"][repository], f"t{turn}", base, known)
                at = time.perf_counter()
                try:
                    image.push(connection)
                    mine.latencies.append(time.perf_counter() - at)
                    mine.moved += len(base)
                except (OSError, AnswerError) as error:
                    mine.failed(str(error)[:80])
                    connection.close()
                    connection = Connection(target)
        finally:
            connection.close()

    return _by_many(job["connections"], work)


def first(job: dict[str, Any]) -> Load:
    """Push images, then pull them by many clients."""
    target, base = Target.of(job), os.urandom(job["bytes"])
    known = hashlib.sha256(base)
    ((repository, authorization),) = job["authorizations"].items()
    tags = [f"first-{os.getpid()}-{number}" for number in range(job["images"])]
    with closing(Connection(target)) as connection:
        for tag in tags:
            _Image(repository, authorization, tag, base, known).push(connection)

    def work(mine: Load) -> None:
        for tag in tags:
            at = time.perf_counter()
            try:
                mine.moved += _pull_image(target, repository, authorization, tag)
                mine.latencies.append(time.perf_counter() - at)
            except (OSError, AnswerError) as error:
                mine.failed(str(error)[:80])

    return _by_many(job["connections"], work)


def fill(job: dict[str, Any]) -> Load:
    """Give each repository its tags."""
    target, layer = Target.of(job), b"a layer that all have"
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    waiting = iter(list(job["authorizations"].items()))
    turn = threading.Lock()

    def take() -> tuple[str, str] | None:
        with turn:
            return next(waiting, None)

    def work(mine: Load) -> None:
        with closing(Connection(target)) as connection:
            while (taken := take()) is not None:
                repository, authorization = taken
                _push_blob(connection, repository, authorization, [layer], digest)
                for number in range(job["tags"]):
                    at = time.perf_counter()
                    document = _manifest(digest, len(layer), digest, len(layer), f"{repository}:{number}")
                    path = f"/v2/{repository}/manifests/v{number}"
                    connection.call("PUT", path, authorization, 201, parts=[document], media_type=MANIFEST)
                    mine.latencies.append(time.perf_counter() - at)

    return _by_many(job["connections"], work)


@dataclass(frozen=True)
class _Image:
    """An image of one layer, which is ``base`` (hashed in ``known``) and its own name."""

    repository: str
    authorization: str
    tag: str
    base: bytes
    known: Any

    def push(self, connection: Connection) -> None:
        """Push layer, configuration and manifest."""
        mark = f"{self.tag} {os.getpid()}".encode()
        hasher = self.known.copy()
        hasher.update(mark)
        layer = f"sha256:{hasher.hexdigest()}"
        config = json.dumps({"os": "linux", "of": layer}).encode()
        config_digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
        _push_blob(connection, self.repository, self.authorization, [self.base, mark], layer)
        _push_blob(connection, self.repository, self.authorization, [config], config_digest)
        document = _manifest(config_digest, len(config), layer, len(self.base) + len(mark))
        path = f"/v2/{self.repository}/manifests/{self.tag}"
        connection.call("PUT", path, self.authorization, 201, parts=[document], media_type=MANIFEST)


def _push_blob(connection: Connection, repository: str, authorization: str, parts: list[bytes], digest: str) -> None:
    begun = connection.call("POST", f"/v2/{repository}/blobs/uploads/", authorization, 202, parts=[])
    location = begun.header("location")
    if location.startswith("http"):
        location = "/" + location.split("/", 3)[3]
    # Kept whole: a query that the registry put there is part of the upload.
    joint = "&" if "?" in location else "?"
    connection.call("PUT", f"{location}{joint}digest={digest}", authorization, 201, parts=parts)


def _pull_image(target: Target, repository: str, authorization: str, tag: str) -> int:
    """Pull an image as somebody who has nothing of it; return its bytes."""
    with closing(Connection(target)) as connection:
        manifest = connection.call("GET", f"/v2/{repository}/manifests/{tag}", authorization, 200, keep=True)
        document = json.loads(manifest.body)
        moved = manifest.length
        for entry in (document["config"], *document["layers"]):
            blob = connection.call("GET", f"/v2/{repository}/blobs/{entry['digest']}", authorization, 200)
            moved += blob.length
        return moved


def _manifest(config: str, config_size: int, layer: str, layer_size: int, note: str = "") -> bytes:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": config, "size": config_size},
        "layers": [{"mediaType": _LAYER, "digest": layer, "size": layer_size}],
    }
    if note:
        document["annotations"] = {"org.opencontainers.image.ref.name": note}
    return json.dumps(document).encode()


def _by_many(count: int, work: Callable[[Load], None]) -> Load:
    """Let threads work, each on figures of its own, and return what they have together."""
    loads = [Load() for _ in range(count)]

    def attempt(mine: Load) -> None:
        try:
            work(mine)
        except (OSError, AnswerError) as error:
            mine.failed(str(error)[:80])

    threads = [threading.Thread(target=attempt, args=(mine,)) for mine in loads]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load = Load(seconds=time.perf_counter() - started)
    for mine in loads:
        load.add(mine)
    return load


_JOBS: Final[dict[str, Callable[[dict[str, Any]], Load]]] = {"pull": pull, "push": push, "first": first, "fill": fill}


def main() -> None:
    """Do one job."""
    job = json.load(sys.stdin)
    json.dump(asdict(_JOBS[job["kind"]](job)), sys.stdout)


if __name__ == "__main__":
    main()
