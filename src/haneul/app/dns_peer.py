"""CoreDNS as the peer of the benchmark of names: a process of its own that answers a zone from its memory."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from haneul.app.installation import component_store
from haneul.dns.adapters.asking import ask
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HostNotReadyError, UnavailableError
from haneul.kernel.progress import Progress
from haneul.kernel.waiting import wait_for

_COMPONENT: Final = "coredns"
_ADDRESS: Final = "127.0.0.1"
_START_SECONDS, _END_SECONDS = 60.0, 20.0
_TRIES: Final = 3


async def built(progress: Progress) -> Path:
    """Return the program, which is built if it is not there yet."""
    store = component_store()
    await store.build([_COMPONENT], progress)
    return store.program(_COMPONENT)


def corefile(zone: str, file: Path, *, port: int) -> str:
    """Return the configuration of a server that answers one zone (CoreDNS manual "Configuration", plugin "file")."""
    return f"{zone}:{port} {{\n    bind {_ADDRESS}\n    file {file}\n}}\n"


def zone_file(zone: str, addresses: Mapping[str, str]) -> str:
    """Return a zone with names and their addresses (RFC 1035 section 5)."""
    lines = [f"{zone}. 3600 IN SOA ns.{zone}. hostmaster.{zone}. 1 3600 600 86400 0", f"{zone}. 3600 IN NS ns.{zone}."]
    lines += [f"{name}. 5 IN A {address}" for name, address in addresses.items()]
    return "\n".join(lines) + "\n"


@contextlib.asynccontextmanager
async def serving(
    program: Path, folder: Path, zone: str, addresses: Mapping[str, str], *, clock: Clock
) -> AsyncIterator[tuple[str, int]]:
    """Run it, and yield address and port. Raises HostNotReadyError if it does not start."""
    (folder / "zone").write_text(zone_file(zone, addresses))
    name, address = next(iter(addresses.items()))
    for _ in range(_TRIES):
        port = _free_port()
        (folder / "Corefile").write_text(corefile(zone, folder / "zone", port=port))
        with (folder / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                program, "-conf", str(folder / "Corefile"), stdout=log, stderr=log
            )
        try:
            if await _answers(process, port, name, address, clock):
                yield _ADDRESS, port
                return
        finally:
            await _end(process)
    raise HostNotReadyError(f"CoreDNS does not start: {(folder / 'log').read_text()[-500:]}")


async def _answers(process: asyncio.subprocess.Process, port: int, name: str, address: str, clock: Clock) -> bool:
    """Wait until it answers, or ended: somebody else may have taken the port meanwhile."""

    async def probe() -> bool:
        if process.returncode is not None:
            return True
        with contextlib.suppress(UnavailableError, TimeoutError):
            async with asyncio.timeout(0.5):
                return address in (await ask(_ADDRESS, port, f"{name}.", "A")).values
        return False

    await wait_for(probe, what="CoreDNS to answer", timeout=_START_SECONDS, clock=clock, interval=0.05)
    return process.returncode is None


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _END_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


def _free_port() -> int:
    """Return a port that was free for UDP a moment ago."""
    with socket.socket(type=socket.SOCK_DGRAM) as asking:
        asking.bind((_ADDRESS, 0))
        return int(asking.getsockname()[1])
