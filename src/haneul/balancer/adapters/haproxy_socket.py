"""HAProxy's command line on its sockets ("Management Guide", section 9.3): a question, its answer, a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from haneul.kernel.errors import UnavailableError

_SECONDS: Final = 10.0
#: Octets of a line; HAProxy's own bound is its buffer's 16,384.
_LONGEST_LINE: Final = 8_000


async def ask(socket: Path, command: str) -> str:
    """Return the answer to a command. Raises UnavailableError."""
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(socket), limit=1 << 20)
            try:
                writer.write(f"{command}\n".encode("ascii"))
                # The end of the commands: the master's socket would wait for another one.
                writer.write_eof()
                return (await reader.read(-1)).decode(errors="replace")
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError) as error:
        raise UnavailableError(
            f"HAProxy does not answer on {socket}: {str(error) or type(error).__name__}",
            hint="does it run, and as whom? Only its own user and root reach it",
        ) from error


async def order(socket: Path, commands: Sequence[str]) -> str:
    """Give orders, in as few lines as they fit into, and return all that was said. Raises UnavailableError."""
    said = []
    line: list[str] = []
    for command in commands:
        if line and sum(map(len, line)) + 2 * len(line) + len(command) > _LONGEST_LINE:
            said.append(await ask(socket, "; ".join(line)))
            line = []
        line.append(command)
    if line:
        said.append(await ask(socket, "; ".join(line)))
    return " ".join(" ".join(said).split())


def table(answer: str) -> list[dict[str, str]]:
    """Return the rows of ``show servers state``: columns are named in the line that begins with ``#``."""
    names: list[str] = []
    rows = []
    for line in answer.splitlines():
        fields = line.split()
        if fields and fields[0] == "#":
            names = fields[1:]
        elif names and len(fields) == len(names):
            rows.append(dict(zip(names, fields, strict=True)))
    return rows


def comma_table(answer: str) -> list[dict[str, str]]:
    """Return the rows of ``show stat``."""
    return list(csv.DictReader(io.StringIO(answer.removeprefix("# ").strip())))


def field(answer: str, name: str) -> str:
    """Return a field of ``show info``; nothing if it has none of this name."""
    start = f"{name}: "
    return next((line.removeprefix(start).strip() for line in answer.splitlines() if line.startswith(start)), "")
