"""What ``haneul bench audit`` measures: nginx with and without ModSecurity, the reader of its records, and a search.

The two sides are two paths of one nginx. The reader is what runs in a controller; it runs in this process, whose time
it takes. What is searched is a store of its own, of invented records.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from haneul.app.trail import Policies, TrailPlace, catalogue_of, end_recording, recording, store_of
from haneul.bench.audit_figures import SIDES, WITH, WITHOUT, AuditFigures, AuditPlan, AuditRound, Kept, Searched, Stored
from haneul.bench.machine import machine_facts
from haneul.bench.process_usage import HostProcesses
from haneul.bench.statistics import percentile
from haneul.cli.progress import TerminalProgress
from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.errors import CommandFailedError, HostNotReadyError, UnavailableError
from haneul.kernel.process import run
from haneul.kernel.waiting import wait_for
from haneul.trail.adapters.memory_folder import clear_abandoned
from haneul.trail.chunks import parse_key
from haneul.trail.keeping import CHUNK, Keeper, Lines
from haneul.trail.model import Record
from haneul.trail.ports import Question
from haneul.trail.recorder import Recorder
from haneul.trail.rules import RuleSite, render_rules
from haneul.trail.searching import search
from haneul.trail.settings import TrailSettings

_ADDRESS: Final = "127.0.0.1"
_CLUSTER: Final = "bench"
_HOST: Final = "www.example.com"
_MODULES: Final = Path("/usr/lib/nginx/modules")
_START_SECONDS: Final = 60.0
_GRACE: Final = 60.0
_PATHS: Final = {WITHOUT: "/without", WITH: "/with"}
#: What clients ask in the mixed part, and how many of a hundred ask it.
_MIXED: Final = (("/with/cart?id=7&sort=asc", 97), ("/missing", 1), ("/with?id=1%27%20OR%201=1--%20-", 2))
_BROWSER: Final = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36"
#: Of invented records: seconds between two, and how many hosts, clients and paths there are.
_STEP: Final = 0.02
_HOSTS, _CLIENTS, _ITEMS = 40, 20_000, 50_000
#: Has a twentieth of all requests, but none of a path that a third of all have.
_NO_CARTS: Final = "host-0.example.com"


async def run_audit_bench(plan: AuditPlan, figures: AuditFigures, machine: dict[str, str], data: Path | None) -> None:
    """Measure both sides in turn, then what is kept of mixed requests, then the search."""
    if not (_MODULES / "ngx_http_modsecurity_module.so").exists():
        raise HostNotReadyError("nginx with ModSecurity is not installed", hint="'make system-packages'")
    clock, progress = SystemClock(), TerminalProgress()
    machine |= machine_facts() | {"nginx": (await run(["nginx", "-v"], timeout=20)).stderr.strip().rpartition("/")[2]}
    # A measurement that was killed leaves a file system in memory.
    await clear_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix="haneul-bench-") as name:
        folder = Path(name)
        async with _running(folder, clock) as (port, master, recorder):
            for side in SIDES:
                await _load(_job(plan, port, _PATHS[side]) | {"seconds": 1.0})
            with progress.stage("requests, in turn", expected_seconds=2 * plan.rounds * (plan.seconds + 1)):
                for turn in range(plan.rounds):
                    for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
                        measured = await _measured(_job(plan, port, _PATHS[side]), master)
                        figures.rounds.setdefault(side, []).append(measured)
            figures.kept = await _mixed(plan, port, recorder, folder)
        machine["load after"] = machine_facts()["load before"]
        place = data or folder / "search"
        with progress.stage("records to search", expected_seconds=plan.store / (12 << 20)):
            figures.stored = await _fill(plan.store, place, clock)
        await _search(plan, figures, place)


async def _measured(job: dict[str, Any], master: int) -> AuditRound:
    nginx, reader = _cpu(master), time.process_time()
    load = await _load(job)
    times = [1000 * one for one in load["latencies"]]
    if not times:
        raise CommandFailedError(f"nothing was answered: {load['failures']}")
    return AuditRound(
        answers=len(times),
        p50=percentile(times, 0.5),
        p99=percentile(times, 0.99),
        nginx=1000 * (_cpu(master) - nginx) / len(times),
        reader=1000 * (time.process_time() - reader) / len(times),
        failures=load["failures"],
    )


async def _mixed(plan: AuditPlan, port: int, recorder: Recorder, folder: Path) -> Kept:
    """Send mixed requests; return what was kept of them."""
    await asyncio.to_thread(_drained, recorder)
    before = (recorder.figures.seen, recorder.figures.seen_bytes, recorder.figures.kept, recorder.figures.kept_bytes)
    stored = _size(folder / "store", ".jsonl.gz")
    jobs = [_job(plan, port, path) | {"rate": plan.rate * share / 100} for path, share in _MIXED]
    await asyncio.gather(*map(_load, jobs))
    await recorder.close()
    after = (recorder.figures.seen, recorder.figures.seen_bytes, recorder.figures.kept, recorder.figures.kept_bytes)
    seen, seen_bytes, kept, kept_bytes = (one - other for one, other in zip(after, before, strict=True))
    return Kept(seen, kept, seen_bytes, kept_bytes, _size(folder / "store", ".jsonl.gz") - stored)


def _drained(recorder: Recorder) -> None:
    while recorder.turn():
        pass


async def _load(job: dict[str, Any]) -> Any:
    command = [sys.executable, "-m", "haneul.bench.steady_load"]
    said = await run(command, timeout=job["seconds"] + _GRACE, stdin=json.dumps(job).encode())
    return json.loads(said.stdout)


def _job(plan: AuditPlan, port: int, path: str) -> dict[str, Any]:
    cookie = "session=0123456789abcdef; theme=dark"
    headers = {"Host": _HOST, "User-Agent": _BROWSER, "Accept": "text/html", "Cookie": cookie}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    pace = {"rate": plan.rate, "seconds": plan.seconds, "connections": plan.connections}
    return {"address": _ADDRESS, "port": port, "request": "\r\n".join([*lines, "", ""]), **pace}


@contextlib.asynccontextmanager
async def _running(folder: Path, clock: Clock) -> AsyncIterator[tuple[int, int, Recorder]]:
    """Run nginx and the reader; yield nginx's port and process id, and the reader."""
    for name in ("private", "temporary"):
        (folder / name).mkdir()
    settings = TrailSettings(store=folder / "store", flush_seconds=1.0)
    site = RuleSite(spool=str(folder / "spool"), temporary=str(folder / "temporary"))
    (folder / "rules.conf").write_text(render_rules(site))
    policies = Policies(settings.policy)
    with socket.create_server((_ADDRESS, 0)) as listening:
        port: int = listening.getsockname()[1]
        (folder / "nginx.conf").write_text(_nginx(folder, port))
        place = TrailPlace.beside(folder)
        async with recording(settings, place, policies, cluster=_CLUSTER, user="", clock=clock) as recorder:
            with _process(folder, listening.fileno()) as master:

                async def ready() -> bool:
                    if master.poll() is not None:
                        raise UnavailableError(f"nginx ended: {(folder / 'nginx.out').read_text()[-1000:]}")
                    job = _job(AuditPlan(seconds=0.1, rate=10.0, connections=1), port, _PATHS[WITH])
                    return not (await _load(job))["failures"]

                await wait_for(ready, what="nginx", timeout=_START_SECONDS, clock=clock)
                yield port, master.pid, recorder
    await end_recording(TrailPlace.beside(folder))


def _nginx(folder: Path, port: int) -> str:
    modules = ("ndk_http_module", "ngx_http_lua_module", "ngx_http_modsecurity_module")
    temporary = "".join(f"{kind}_temp_path temporary/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    name = "modsecurity on; modsecurity_transaction_id $msec~$request_id~$request_id~;"
    app = 'proxy_pass http://app/; proxy_http_version 1.1; proxy_set_header Connection "";'
    return f"""\
{"".join(f"load_module {_MODULES}/{module}.so;" for module in modules)}
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log error;
events {{ worker_connections 512; }}
http {{
access_log off;
client_body_temp_path temporary/bodies;
{temporary}
keepalive_requests 1000000;
modsecurity_rules_file {folder}/rules.conf;
upstream app {{ server unix:{folder}/private/app; keepalive 32; }}
server {{
listen unix:{folder}/private/app;
location / {{ default_type text/plain; return 200 "an app\\n"; }}
}}
server {{
listen {_ADDRESS}:{port};
location /without {{ {app} }}
location /with {{ {name} {app} }}
location /missing {{ {name} return 404; }}
}}
}}
"""


@contextlib.contextmanager
def _process(folder: Path, inherited: int) -> Iterator[subprocess.Popen[bytes]]:
    command = ["nginx", "-p", f"{folder}/", "-c", str(folder / "nginx.conf")]
    with (folder / "nginx.out").open("wb") as log:
        # nginx takes the socket over, so that nobody else can have taken the port.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "NGINX": f"{inherited};"},
            pass_fds=[inherited],
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _cpu(master: int) -> float:
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return sum(one.cpu_seconds for one in HostProcesses().read([master, *map(int, children)]).values())


def _size(folder: Path, end: str) -> int:
    return sum(file.stat().st_size for file in folder.rglob(f"*{end}"))


async def _fill(size: int, place: Path, clock: Clock) -> Stored:
    """Make a store of so many bytes of records; what is there of it already is taken as it is."""
    settings = TrailSettings(store=place / "store")
    catalogue = catalogue_of(place)
    store = store_of(settings)
    keeper = Keeper(_CLUSTER, store, catalogue, clock)
    there = [name for key in await store.keys(f"{_CLUSTER}/") if (name := parse_key(key))]
    count, total = sum(name.records for name in there), sum(name.size for name in there)
    made = invented(clock.now(), count)
    while total < size:
        lines: Lines = []
        gathered = 0
        while gathered < CHUNK:
            record = next(made)
            line = record.line()
            lines.append((record, line))
            gathered += len(line)
        await keeper.write(lines, "kept", clock.now())
        count, total = count + len(lines), total + gathered
    return Stored(count, total, _size(place / "store", ".gz"), _size(place / "audit", "db"))


def invented(now: datetime, seed: int) -> Iterator[Record]:
    """Yield records that nobody sent, the newest last."""
    draw = random.Random(seed)  # noqa: S311 - figures want the same each time
    started = now.timestamp() - 86400.0
    while True:
        started += _STEP
        unique, item = f"{draw.getrandbits(128):032x}", draw.randrange(_ITEMS)
        status = draw.choices((200, 304, 404, 500), (90, 6, 3.5, 0.5))[0]
        moment = datetime.fromtimestamp(started, UTC).isoformat(timespec="milliseconds")
        host = f"host-{min(draw.randrange(_HOSTS), draw.randrange(_HOSTS))}.example.com"
        place = draw.choice(("item", "user", "api/v1/orders") if host == _NO_CARTS else ("item", "cart", "user"))
        uri = f"/{place}/{item}?page={draw.randrange(99)}&ref={unique[:12]}"
        headers = [
            ["Host", host],
            ["User-Agent", f"{_BROWSER}/{draw.randrange(400)}"],
            ["Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"],
            ["Accept-Encoding", "gzip, deflate, br, zstd"],
            ["Accept-Language", "ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7"],
            ["Cookie", "session=***; theme=***; consent=***; _ga=***"],
            ["Sec-CH-UA", '"Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"'],
            ["Sec-Fetch-Site", "same-origin"],
            ["Sec-Fetch-Mode", "navigate"],
            ["If-None-Match", f'"{draw.getrandbits(64):016x}"'],
            ["X-Request-ID", unique],
            ["Referer", f"https://{host}/{draw.randrange(_ITEMS)}?from={draw.getrandbits(64):016x}"],
            ["traceparent", f"00-{draw.getrandbits(128):032x}-{draw.getrandbits(64):016x}-01"],
        ]
        answered = [
            ["Content-Type", "text/html; charset=utf-8"],
            ["ETag", f'"{draw.getrandbits(64):016x}"'],
            ["Content-Security-Policy", "default-src 'self'; img-src 'self' data: https:; frame-ancestors 'none'"],
            ["Strict-Transport-Security", "max-age=31536000; includeSubDomains"],
            ["Set-Cookie", "session=***; Path=/; Secure; HttpOnly; SameSite=Lax"],
            ["Cache-Control", "private, max-age=0, must-revalidate"],
        ]
        client = f"198.51.{item % 100}.{draw.randrange(_CLIENTS) % 250}"
        whose = {"id": unique, "request_id": unique, "ingress": "shop/web", "client": client}
        yield Record(
            {**whose, "started": moment, "seconds": 0.1},
            {"method": "GET", "uri": uri, "protocol": "1.1", "host": host, "headers": headers, "body": ""},
            {"status": status, "headers": answered, "body": ""},
            {"messages": [_MESSAGE] * draw.choice((0, 1, 2, 3)), "producer": {}, "timing": {}, "kept": "sample"},
        )


_MESSAGE: Final = {
    "rule": "920300",
    "message": "Request Missing an Accept Header",
    "match": "Matched \"Operator `Rx' with parameter `^$' against variable `REQUEST_HEADERS:Accept' (Value: `' )",
    "file": "/usr/share/modsecurity-crs/rules/REQUEST-920-PROTOCOL-ENFORCEMENT.conf",
    "lineNumber": "1234",
    "severity": "5",
    "tags": ["application-multi", "language-multi", "platform-multi", "attack-protocol", "paranoia-level/3"],
}


async def _search(plan: AuditPlan, figures: AuditFigures, place: Path) -> None:
    settings = TrailSettings(store=place / "store")
    store, catalogue = store_of(settings), catalogue_of(place)
    everything = Question(_CLUSTER, 0, 1 << 50)
    (newest,) = await search(store, catalogue, replace(everything, limit=1))
    middle = newest.started - 1000
    questions = {
        "one request id": replace(everything, request_id=newest.request_id),
        "one client": replace(everything, client=newest.client),
        "one host, answers of 5xx": replace(everything, host=newest.host, status="5xx"),
        "one path": replace(everything, path=newest.path),
        "paths that begin so, one client": replace(everything, path="/api/v1/*", client=newest.client),
        "a second of one host": Question(_CLUSTER, middle, newest.started, host=newest.host),
        "the newest of all": everything,
        "what is common, and nowhere together": replace(everything, host=_NO_CARTS, path="/cart/*"),
    }
    for name, question in questions.items():
        seconds, found = [], 0
        for _ in range(plan.asked):
            began = time.monotonic()
            found = len(await search(store, catalogue, question))
            seconds.append(time.monotonic() - began)
        figures.searched.append(Searched(name, found, tuple(seconds)))
