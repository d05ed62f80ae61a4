"""Running external programs: an argument list, a deadline, and errors that say what the program said."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haneul.kernel.errors import CommandFailedError, DeadlineExceededError, HostNotReadyError
from haneul.kernel.processes import Group


@dataclass(frozen=True)
class Completed:
    """What a program left behind: its exit status and its output as text."""

    status: int
    stdout: str
    stderr: str


async def run(
    argv: Sequence[str],
    *,
    timeout: float,  # noqa: ASYNC109 - the whole process group is ended when it passes
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    on_line: Callable[[str], None] | None = None,
) -> Completed:
    """Run ``argv`` for at most ``timeout`` seconds and return what it left.

    ``env`` is added to the environment. ``on_line`` sees each line of standard error as it comes, for progress.
    With ``check``, a status other than 0 raises :class:`CommandFailedError` with the last lines of its output.
    The program runs in a process group of its own, which is ended as a whole on timeout and cancellation.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **env} if env is not None else None,
            cwd=cwd,
            start_new_session=True,
            limit=1 << 20,
        )
    )
    try:
        # A start that is cancelled would never return, and leave behind what the program has started by then.
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            late = await starting
            with contextlib.closing(Group(late.pid)) as group:
                await _end(late, group, ())
        raise
    except FileNotFoundError as error:
        raise HostNotReadyError(
            f"the program {argv[0]!r} is not installed", hint="run 'make setup' in the project's folder"
        ) from error
    with contextlib.closing(Group(process.pid)) as group:
        return await _completed(process, group, argv, timeout=timeout, stdin=stdin, check=check, on_line=on_line)


async def _completed(
    process: asyncio.subprocess.Process,
    group: Group,
    argv: Sequence[str],
    *,
    timeout: float,  # noqa: ASYNC109 - as above
    stdin: bytes | None,
    check: bool,
    on_line: Callable[[str], None] | None,
) -> Completed:
    async def feed() -> None:
        if stdin is not None and process.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(stdin)
                await process.stdin.drain()
            process.stdin.close()

    async def read_errors() -> str:
        assert process.stderr is not None  # noqa: S101 - a pipe was asked for above
        lines: list[str] = []

        def take(line: bytes) -> None:
            lines.append(line.decode(errors="replace"))
            if on_line is not None:
                on_line(lines[-1])

        # In pieces, not by the stream's own lines: those have a longest length, a program's have none.
        pending = b""
        while piece := await process.stderr.read(1 << 16):
            *whole, pending = (pending + piece).split(b"\n")
            for line in whole:
                take(line)
        if pending:
            take(pending)
        return "\n".join(lines)

    assert process.stdout is not None  # noqa: S101 - a pipe was asked for above
    output, errors = asyncio.create_task(process.stdout.read()), asyncio.create_task(read_errors())
    pipes: list[asyncio.Task[Any]] = [asyncio.create_task(feed()), output, errors]
    try:
        async with asyncio.timeout(timeout):
            await asyncio.gather(*pipes)
            status = await process.wait()
    except TimeoutError as error:
        await _end(process, group, pipes)
        raise DeadlineExceededError(f"'{_shown(argv)}' did not end within {timeout:.0f} s") from error
    except BaseException:
        await _end(process, group, pipes)
        raise
    completed = Completed(status, output.result().decode(errors="replace"), errors.result())
    if check and status != 0:
        tail = "\n".join((completed.stderr or completed.stdout).strip().splitlines()[-15:])
        raise CommandFailedError(f"'{_shown(argv)}' ended with status {status}:\n{tail}")
    return completed


async def _end(process: asyncio.subprocess.Process, group: Group, pipes: Sequence[asyncio.Task[Any]]) -> None:
    """End the program's whole group, also what it left behind when it ended by itself, and let go of its output."""
    group.send(signal.SIGKILL)
    for pipe in pipes:
        pipe.cancel()
    await asyncio.gather(*pipes, return_exceptions=True)
    await process.wait()
    # The ends of its output close as the group dies; only what made a group of its own could still hold them.
    streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            await asyncio.gather(*(stream.read() for stream in streams))


def _shown(argv: Sequence[str]) -> str:
    """Return the first words of a command: enough to know it by, too few to flood a message."""
    text = " ".join(argv)
    return text if len(text) <= 120 else text[:117] + "..."
