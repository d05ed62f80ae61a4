"""Asks a DNS server as fast as it answers, with dnsperf (DNS-OARC), whose words are read here.

How many questions are under way at once is what keeps a server busy without losing what does not fit into its sockets.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from haneul.bench.dns import Load
from haneul.kernel.errors import HostNotReadyError, UnavailableError
from haneul.kernel.process import run

_PROGRAM: Final = "dnsperf"
_UNDER_WAY: Final = 100
#: Seconds after which a question counts as lost.
_ANSWER_SECONDS: Final = 2
#: Seconds beyond those that are asked for: for the last answers, and for a machine that is busy.
_PATIENCE: Final = 60.0
_WORDS: Final = {
    "answers": re.compile(r"^\s*Queries completed:\s+(\d+)", re.MULTILINE),
    "lost": re.compile(r"^\s*Queries lost:\s+(\d+)", re.MULTILINE),
    "rate": re.compile(r"^\s*Queries per second:\s+([\d.]+)", re.MULTILINE),
}
_CODES: Final = re.compile(r"^\s*Response codes:\s+(.+)$", re.MULTILINE)
_WELL: Final = re.compile(r"NOERROR (\d+)")


def program() -> str:
    """Return where dnsperf is. Raises HostNotReadyError."""
    found = shutil.which(_PROGRAM)
    if found is None:
        raise HostNotReadyError(f"{_PROGRAM} is not installed", hint=f"apt-get install {_PROGRAM}")
    return found


async def load(address: str, port: int, names: Sequence[str], *, seconds: float) -> Load:
    """Ask for the addresses of some names, again and again. Raises UnavailableError if nothing is answered."""
    with tempfile.TemporaryDirectory(prefix="haneul-bench-") as folder:
        # It reads the questions again and again, so they cannot come by its standard input.
        questions = Path(folder) / "questions"
        questions.write_text("".join(f"{name} A\n" for name in names))
        command = [program(), "-s", address, "-p", str(port), "-d", str(questions), "-l", f"{seconds:g}"]
        command += ["-t", f"{_ANSWER_SECONDS}", "-q", str(_UNDER_WAY), "-c", "8"]
        done = await run(command, timeout=seconds + _PATIENCE)
    found = read(done.stdout)
    if not found.answers:
        raise UnavailableError(f"the DNS server at {address} port {port} answers nothing")
    return found


def read(said: str) -> Load:
    """Return what dnsperf printed as values. Raises ValueError if it is not what dnsperf prints."""
    found = {what: pattern.search(said) for what, pattern in _WORDS.items()}
    if any(match is None for match in found.values()):
        raise ValueError(f"these are not the words of dnsperf: {said[-300:]!r}")
    numbers = {what: float(match[1]) for what, match in found.items() if match}
    codes = _CODES.search(said)
    well = _WELL.search(codes[1]) if codes else None
    return Load(numbers["rate"], int(numbers["answers"]), int(well[1]) if well else 0, int(numbers["lost"]))
