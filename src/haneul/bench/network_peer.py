"""The two ends of what ``haneul bench network`` measures; each runs in the network namespace of a pod.

``serve`` takes what comes on one port and says how much it was, gives back what comes on another, and listens on a
third that nobody should reach where a policy says so. It ends with who started it. ``stream``, ``ask`` and ``reach``
are the other end; what they measured they print as JSON. The same program measures all ways, so that what it costs
itself is in all figures alike. Neighbours: :mod:`haneul.bench.networks` has what is measured when.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from haneul.bench.statistics import median, percentile

SINK, ECHO, SHUT = 5201, 5202, 5203
_PIECE: Final = 1 << 18
_MESSAGE: Final = b"x" * 64
_CONNECT_SECONDS: Final = 10.0
_COUNT: Final = struct.Struct("!Q")


def serve() -> None:
    """Serve until standard input ends."""
    buffer = bytearray(_PIECE)
    with selectors.DefaultSelector() as selector:

        def listen(port: int, accepted: Callable[[socket.socket], Callable[[], None]]) -> None:
            listening = socket.create_server(("", port), backlog=128)

            def accept() -> None:
                connection, _ = listening.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(connection, selectors.EVENT_READ, accepted(connection))

            selector.register(listening, selectors.EVENT_READ, accept)

        def end(connection: socket.socket) -> None:
            selector.unregister(connection)
            connection.close()

        def sink(connection: socket.socket) -> Callable[[], None]:
            taken = 0

            def take() -> None:
                nonlocal taken
                if received := connection.recv_into(buffer):
                    taken += received
                    return
                connection.sendall(_COUNT.pack(taken))
                end(connection)

            return take

        def echo(connection: socket.socket) -> Callable[[], None]:
            def give_back() -> None:
                if received := connection.recv(len(_MESSAGE)):
                    connection.sendall(received)
                else:
                    end(connection)

            return give_back

        listen(SINK, sink)
        listen(ECHO, echo)
        listen(SHUT, echo)
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ, None)
        print("ready", flush=True)  # noqa: T201 - whoever started it waits for this
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    return
                assert isinstance(key.fileobj, socket.socket)  # noqa: S101 - all but standard input are
                try:
                    key.data()
                except ConnectionError:
                    end(key.fileobj)


def stream(address: str, seconds: float) -> dict[str, float]:
    """Send as much as there is room for; return bytes, seconds, and processor seconds of the whole machine."""
    piece, sent = bytes(_PIECE), 0
    with socket.create_connection((address, SINK), timeout=_CONNECT_SECONDS) as connection:
        busy, began = busy_seconds(), time.monotonic()
        while time.monotonic() - began < seconds:
            connection.sendall(piece)
            sent += _PIECE
        connection.shutdown(socket.SHUT_WR)
        said = connection.recv(_COUNT.size, socket.MSG_WAITALL)
        took, busy = time.monotonic() - began, busy_seconds() - busy
    if _COUNT.unpack(said) != (sent,):
        raise ValueError("not all arrived that was sent")
    return {"bytes": sent, "seconds": took, "busy": busy}


def ask(address: str, connections: int, seconds: float) -> dict[str, float]:
    """Ask and ask again on kept connections; return answers, seconds, and seconds of the middle and 99th of 100."""
    latencies: list[float] = []
    began = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for _ in range(connections):
            connection = socket.create_connection((address, ECHO), timeout=_CONNECT_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(_MESSAGE)
            # When it was asked, and how much of the answer is still to come.
            selector.register(connection, selectors.EVENT_READ, [time.monotonic(), len(_MESSAGE)])
        while selector.get_map():
            ready = selector.select(_CONNECT_SECONDS)
            if not ready:
                raise TimeoutError(f"no answer for {_CONNECT_SECONDS:.0f} s")
            for key, _ in ready:
                _answered(selector, key, latencies, until=began + seconds)
    took = time.monotonic() - began
    return {
        "answers": len(latencies),
        "seconds": took,
        "p50": median(latencies),
        "p99": percentile(latencies, 0.99),
    }


def _answered(
    selector: selectors.BaseSelector, key: selectors.SelectorKey, latencies: list[float], *, until: float
) -> None:
    connection, state = key.fileobj, key.data
    assert isinstance(connection, socket.socket)  # noqa: S101 - only sockets were registered
    received = connection.recv(len(_MESSAGE))
    if not received:
        raise ConnectionError("the other end closed the connection")
    state[1] -= len(received)
    if state[1]:
        return
    now = time.monotonic()
    latencies.append(now - state[0])
    if now >= until:
        selector.unregister(connection)
        connection.close()
        return
    state[:] = [now, len(_MESSAGE)]
    connection.sendall(_MESSAGE)


def reach(address: str, port: int, seconds: float) -> dict[str, bool]:
    """Say whether a connection comes about."""
    try:
        socket.create_connection((address, port), timeout=seconds).close()
    except OSError:
        return {"reached": False}
    return {"reached": True}


def busy_seconds(stat: Path = Path("/proc/stat")) -> float:
    """Return the processor time that the machine has spent on anything, in seconds; see proc(5)."""
    user, nice, system, _, _, irq, softirq = map(int, stat.read_text().split(maxsplit=8)[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def main(command: str, *operands: str) -> None:
    """Be one of the ends."""
    measured: dict[str, Any]
    match command, operands:
        case "serve", ():
            serve()
            return
        case "stream", (address, seconds):
            measured = stream(address, float(seconds))
        case "ask", (address, connections, seconds):
            measured = ask(address, int(connections), float(seconds))
        case "reach", (address, port, seconds):
            measured = reach(address, int(port), float(seconds))
        case _:
            raise SystemExit(f"there is no {command} with {len(operands)} operands")
    print(json.dumps(measured))  # noqa: T201 - whoever started it reads this


if __name__ == "__main__":
    main(*sys.argv[1:])
