"""The load at a steady pace, and a run of the benchmark with everything that takes part in it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from collections.abc import Iterator

import pytest

from haneul.app.sign_on_lab import run_sign_on_bench
from haneul.bench.sign_on_figures import SIDES, SignOnFigures, SignOnPlan
from haneul.bench.steady_load import steady

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.contextmanager
def answering(answers: list[bytes]) -> Iterator[int]:
    """Answer requests on any number of connections: the first answers once each, the last for all others."""
    waiting = list(answers)
    lock = threading.Lock()
    threads: list[threading.Thread] = []

    def talk(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while connection.recv(4096):
                with lock:
                    answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                if not answer:
                    return
                # In two parts, as it may come from a network.
                connection.sendall(answer[:30])
                connection.sendall(answer[30:])

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=talk, args=(connection,))
            thread.start()
            threads.append(thread)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        taking = threading.Thread(target=accept)
        taking.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            taking.join()
            for thread in threads:
                thread.join()


def job(port: int) -> dict[str, object]:
    request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    return {"address": "127.0.0.1", "port": port, "request": request, "rate": 100.0, "seconds": 0.5, "connections": 4}


def test_every_request_is_sent_and_counted() -> None:
    with answering([GOOD]) as port:
        load = steady(job(port))
    assert (len(load.latencies), load.failures) == (50, {})
    assert all(one > 0 for one in load.latencies)


def test_failures_are_counted_by_what_they_were() -> None:
    bad = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    with answering([bad, b"", bad, GOOD]) as port:
        load = steady(job(port))
    assert (len(load.latencies), load.failures) == (47, {"503": 2, "closed": 1})


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
async def test_a_run_measures_both_sides() -> None:
    figures, machine = SignOnFigures(), dict[str, str]()
    await run_sign_on_bench(SignOnPlan(seconds=0.5, rounds=1, rate=40.0, connections=4), figures, machine)
    for side in SIDES:
        [measured] = figures.rounds[side]
        assert (measured.answers, measured.failures) == (20, {})
    assert figures.memory is not None and figures.memory > 0
    assert machine["nginx"]
