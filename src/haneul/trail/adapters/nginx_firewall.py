"""The port ``Firewall``: nginx with ModSecurity and the Core Rule Set in a folder of its own, for one run.

It answers everything by itself and listens at a socket in that folder, which nobody else may enter. Requests are sent
as they were recorded, headers in their order and repeated ones too; only what frames a body is made anew. What rules
say is read from the spool, as it is in earnest.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from haneul.kernel.clock import Clock
from haneul.kernel.errors import CommandFailedError, InvalidInputError, UnavailableError
from haneul.kernel.process import run
from haneul.kernel.processes import send_if, title
from haneul.kernel.waiting import wait_for
from haneul.trail.adapters.spool import Spool
from haneul.trail.model import Record, UnreadableError, parse_record
from haneul.trail.ports import Verdict
from haneul.trail.rules import RuleSite, render_rules

_SECONDS: Final = 60.0
_ANSWER: Final = 20.0
_AT_ONCE: Final = 8
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection", "expect", "x-haneul-replay"})
#: Records of one run that lie in the spool before they are read.
_BATCH: Final = 500


class RulesRefusedError(InvalidInputError):
    """ModSecurity does not take rules that somebody proposes."""

    code = "trail-rules-refused"
    title = "ModSecurity refuses the rules"


class NginxFirewall:
    """``user`` is whom workers run as if root starts nginx."""

    def __init__(self, *, program: str, modules: str, user: str, clock: Clock) -> None:
        self._program = program
        self._modules = modules
        self._user = user
        self._clock = clock

    async def verdicts(self, records: Sequence[Record], exclusions: str) -> list[Verdict | None]:
        """Send each record's request. Raises RulesRefusedError, UnavailableError."""
        found: list[Verdict | None] = [None] * len(records)
        async with self._running(exclusions) as (socket, spool):
            for begin in range(0, len(records), _BATCH):
                batch = records[begin : begin + _BATCH]
                turns = asyncio.Semaphore(_AT_ONCE)
                spool.tend()
                answered = await asyncio.gather(
                    *(self._send(socket, record, begin + number, turns) for number, record in enumerate(batch))
                )
                wanted = sum(answered)

                async def all_there(wanted: int = wanted) -> bool:
                    # nginx writes a record after it answered.
                    return sum(1 for _ in spool.names()) >= wanted

                with contextlib.suppress(UnavailableError):
                    await wait_for(all_there, what="records", timeout=_ANSWER, clock=self._clock, interval=0.02)
                for written in spool.take(2 * _BATCH).written:
                    with contextlib.suppress(UnreadableError, ValueError, IndexError):
                        record = parse_record(written.content, ended=written.ended, ingresses={})
                        found[int(record.request_id)] = _verdict(record)
        return found

    async def _send(self, socket: Path, record: Record, number: int, turns: asyncio.Semaphore) -> bool:
        """Send a request; return whether it was answered."""
        async with turns:
            try:
                async with asyncio.timeout(_ANSWER):
                    reader, writer = await asyncio.open_unix_connection(str(socket))
                    try:
                        writer.write(request_bytes(record, number))
                        await writer.drain()
                        return (await reader.read()).startswith(b"HTTP/1.1 ")
                    finally:
                        writer.close()
            except (OSError, TimeoutError):
                return False

    @contextlib.asynccontextmanager
    async def _running(self, exclusions: str) -> AsyncIterator[tuple[Path, Spool]]:
        folder = Path(tempfile.mkdtemp(prefix="haneul-replay-"))
        try:
            # Workers have to get to the spool; the socket's folder is the owner's.
            folder.chmod(0o711)
            for name, mode in (("private", 0o700), ("temporary", 0o755)):
                (folder / name).mkdir(mode=mode)
            spool = Spool(folder / "spool", user=self._user, room=1 << 30, clock=self._clock)
            spool.prepare()
            site = RuleSite(spool=str(folder / "spool"), temporary=str(folder / "temporary"))
            (folder / "private" / "rules.conf").write_text(render_rules(site, exclusions))
            configuration = folder / "private" / "nginx.conf"
            configuration.write_text(self._configuration(folder))
            command = [self._program, "-p", f"{folder}/", "-c", str(configuration)]
            try:
                await run([*command, "-t", "-q"], timeout=_SECONDS)
            except CommandFailedError as error:
                said = error.detail.partition("\n")[2].replace(str(folder), "").strip()
                raise RulesRefusedError(said or error.detail, hint="the exclusions are a file of SecRule…") from error
            except FileNotFoundError as error:
                raise UnavailableError(f"{self._program} is not here", hint="'make system-packages'") from error
            try:
                await run(command, timeout=_SECONDS)
                yield folder / "private" / "replay.sock", spool
            finally:
                await self._end(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _end(self, folder: Path) -> None:
        try:
            master = int((folder / "nginx.pid").read_text())
        except (OSError, ValueError):
            return
        send_if(master, signal.SIGTERM, lambda: f"{folder}/" in title(master))

        async def gone() -> bool:
            # nginx removes the file as the last thing that it does.
            return not (folder / "nginx.pid").exists()

        await wait_for(gone, what="nginx to end", timeout=_SECONDS, clock=self._clock, interval=0.02)

    def _configuration(self, folder: Path) -> str:
        modules = ("ndk_http_module", "ngx_http_lua_module", "ngx_http_modsecurity_module")
        temporary = "".join(
            f"{name}_temp_path temporary/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return f"""\
{"".join(f"load_module {self._modules}/{name}.so;" for name in modules)}
{f"user {self._user};" if self._user else ""}
worker_processes 1;
pid nginx.pid;
error_log error.log error;
events {{ worker_connections 512; }}
http {{
    access_log off;
    {temporary}
    client_max_body_size 64m;
    large_client_header_buffers 8 64k;
    underscores_in_headers on;
    modsecurity_rules_file {folder}/private/rules.conf;
    server {{
        listen unix:{folder}/private/replay.sock;
        location / {{
            modsecurity on;
            modsecurity_transaction_id "$msec~$request_id~$http_x_haneul_replay~";
            content_by_lua_block {{ ngx.exit(204) }}
        }}
    }}
}}
"""


def request_bytes(record: Record, number: int) -> bytes:
    """Return a record's request as it goes over a connection, which ends with the answer."""
    request = record.request
    body = _bytes(request.get("body", ""))
    lines = [f"{request.get('method') or 'GET'} {request.get('uri') or '/'} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.get("headers", ()) if name.lower() not in _FRAMING]
    lines += [f"X-Haneul-Replay: {number}", "Connection: close"]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    # A line break inside of what was recorded would make another request of it.
    head = b"\r\n".join(_bytes(line).replace(b"\r", b" ").replace(b"\n", b" ") for line in lines)
    return head + b"\r\n\r\n" + body


def _bytes(text: str) -> bytes:
    return str(text).encode("utf-8", "surrogateescape")


def _verdict(record: Record) -> Verdict:
    messages = record.audit_data["messages"]
    return Verdict(frozenset(record.rules), {one["rule"]: str(one.get("message", "")) for one in messages})
