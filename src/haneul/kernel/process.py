"""Running external programs: an argument list, a deadline, and errors that say what the program said."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from haneul.kernel.errors import CommandFailedError, DeadlineExceededError, HostNotReadyError


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
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **env} if env is not None else None,
            cwd=cwd,
            start_new_session=True,
            limit=1 << 20,
        )
    except FileNotFoundError as error:
        raise HostNotReadyError(
            f"the program {argv[0]!r} is not installed", hint="run 'make setup' in the project's folder"
        ) from error

    async def feed() -> None:
        if stdin is not None and process.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(stdin)
                await process.stdin.drain()
            process.stdin.close()

    async def read_errors() -> str:
        assert process.stderr is not None  # noqa: S101 - a pipe was asked for above
        lines: list[str] = []
        while line := await process.stderr.readline():
            text = line.decode(errors="replace").rstrip("\n")
            lines.append(text)
            if on_line is not None:
                on_line(text)
        return "\n".join(lines)

    assert process.stdout is not None  # noqa: S101 - a pipe was asked for above
    try:
        async with asyncio.timeout(timeout):
            _, stdout, stderr = await asyncio.gather(feed(), process.stdout.read(), read_errors())
            status = await process.wait()
    except TimeoutError as error:
        raise DeadlineExceededError(f"'{_shown(argv)}' did not end within {timeout:.0f} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    completed = Completed(status, stdout.decode(errors="replace"), stderr)
    if check and status != 0:
        tail = "\n".join((completed.stderr or completed.stdout).strip().splitlines()[-15:])
        raise CommandFailedError(f"'{_shown(argv)}' ended with status {status}:\n{tail}")
    return completed


def _shown(argv: Sequence[str]) -> str:
    """Return the first words of a command: enough to know it by, too few to flood a message."""
    text = " ".join(argv)
    return text if len(text) <= 120 else text[:117] + "..."
