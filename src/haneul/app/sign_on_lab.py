"""What ``haneul bench auth`` measures: nginx, the gate and a small app, as processes on this machine for the run.

No provider takes part: a session is sealed with the gate's own keys, as if somebody had just signed on.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import yaml

from haneul.app.auth import opened_sessions
from haneul.bench.machine import machine_facts
from haneul.bench.process_usage import HostProcesses
from haneul.bench.sign_on_figures import GUARDED, OPEN, SIDES, Round, SignOnFigures, SignOnPlan
from haneul.bench.statistics import percentile
from haneul.cli.progress import TerminalProgress
from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.errors import CommandFailedError, HostNotReadyError, UnavailableError
from haneul.kernel.process import run
from haneul.kernel.waiting import wait_for
from haneul.signon.cookies import SESSION
from haneul.signon.model import Who
from haneul.signon.nginx import http_part, open_part, protected_part, server_part
from haneul.signon.rules import rule_of
from haneul.signon.settings import read_settings

_ADDRESS: Final = "127.0.0.1"
_HOST: Final = "app.apps.test"
_START_SECONDS: Final = 180.0
_END_SECONDS: Final = 20.0
_GRACE: Final = 60.0
_SOMEBODY: Final = Who(
    "bench", "1", "alice", "alice@example.com", tuple(f"group-{n}" for n in range(10)), ("shop", "lab")
)


async def run_sign_on_bench(plan: SignOnPlan, figures: SignOnFigures, machine: dict[str, str]) -> None:
    """Measure both sides in turn."""
    clock, progress = SystemClock(), TerminalProgress()
    machine |= machine_facts() | {"nginx": await _nginx_version()}
    with tempfile.TemporaryDirectory(prefix="haneul-bench-") as name:
        async with _running(Path(name), clock) as (port, gate, cookie):
            jobs = {OPEN: _job(plan, port, "/open", ""), GUARDED: _job(plan, port, "/guarded", f"{SESSION}={cookie}")}
            for side in SIDES:
                await _load(jobs[side] | {"seconds": 1.0}, 1.0)
            with progress.stage("sign-on, in turn", expected_seconds=2 * plan.rounds * (plan.seconds + 1)):
                for turn in range(plan.rounds):
                    # Whoever was first is last the next time.
                    for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
                        figures.rounds.setdefault(side, []).append(await _measured(jobs[side], plan, gate))
            figures.memory = sum(one.rss for one in HostProcesses().read([gate]).values()) / (1 << 20)
    machine["load after"] = machine_facts()["load before"]


async def _measured(job: dict[str, Any], plan: SignOnPlan, gate: int) -> Round:
    before = _cpu(gate)
    load = await _load(job, plan.seconds)
    times = [1000 * one for one in load["latencies"]]
    if not times:
        raise CommandFailedError(f"nothing was answered: {load['failures']}")
    return Round(
        answers=len(times),
        rate=len(times) / load["seconds"],
        p50=percentile(times, 0.5),
        p99=percentile(times, 0.99),
        cpu=1000 * (_cpu(gate) - before) / len(times),
        failures=load["failures"],
    )


async def _load(job: dict[str, Any], seconds: float) -> Any:
    said = await run(
        [sys.executable, "-m", "haneul.bench.steady_load"], timeout=seconds + _GRACE, stdin=json.dumps(job).encode()
    )
    return json.loads(said.stdout)


def _job(plan: SignOnPlan, port: int, path: str, cookie: str) -> dict[str, Any]:
    lines = [f"GET {path} HTTP/1.1", f"Host: {_HOST}", "Accept: text/html", *([f"Cookie: {cookie}"] if cookie else [])]
    request = "\r\n".join([*lines, "", ""])
    pace = {"rate": plan.rate, "seconds": plan.seconds, "connections": plan.connections}
    return {"address": _ADDRESS, "port": port, "request": request, **pace}


@contextlib.asynccontextmanager
async def _running(folder: Path, clock: Clock) -> AsyncIterator[tuple[int, int, str]]:
    """Run the gate and nginx; yield nginx's port, the gate's process id, and a session's cookie."""
    file = _settings(folder)
    settings = read_settings(file)
    async with opened_sessions(settings, clock) as sessions:
        _, cookie = sessions.begin(_SOMEBODY, "")
    async with contextlib.AsyncExitStack() as stack:
        command = [sys.executable, "-m", "haneul.app.main", "auth", "serve", "--config", str(file)]
        gate = stack.enter_context(_process(command, folder / "gate.log"))
        with socket.create_server((_ADDRESS, 0)) as listening:
            port: int = listening.getsockname()[1]
            (folder / "nginx.conf").write_text(_nginx(folder, port, settings.listen))
            number = listening.fileno()
            # nginx takes the socket over, so that nobody else can have taken the port.
            stack.enter_context(
                _process(
                    ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "nginx.log")],
                    folder / "nginx.out",
                    number,
                )
            )

        async def ready() -> bool:
            job = {"address": _ADDRESS, "port": port, "rate": 10.0, "seconds": 0.1, "connections": 1}
            request = f"GET /guarded HTTP/1.1\r\nHost: {_HOST}\r\nCookie: {SESSION}={cookie}\r\n\r\n"
            if gate.poll() is not None:
                raise UnavailableError(f"the gate ended: {(folder / 'gate.log').read_text()[-1000:]}")
            return not (await _load({**job, "request": request}, 1.0))["failures"]

        await wait_for(ready, what="the gate behind nginx", timeout=_START_SECONDS, clock=clock)
        yield port, gate.pid, cookie


def _settings(folder: Path) -> Path:
    (folder / "secret").touch(0o600)
    (folder / "secret").write_text("of nobody")
    provider = {"name": "bench", "issuer": "https://127.0.0.1:9", "clientId": "bench", "clientSecretFile": "secret"}
    document = {"url": "https://auth.apps.test", "domain": "apps.test", "listen": f"unix:{folder}/socket"}
    file = folder / "auth.yaml"
    file.write_text(yaml.safe_dump({**document, "providers": [provider]}))
    return file


def _nginx(folder: Path, port: int, listen: str) -> str:
    guarded = protected_part(rule_of(projects=["shop"]))
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""\
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 512; }}
http {{
access_log off;
client_body_temp_path {folder}/bodies;
{temporary}
keepalive_requests 1000000;
{http_part(listen)}
upstream app {{ server unix:{folder}/app; keepalive 32; }}
server {{
listen unix:{folder}/app;
location / {{ default_type text/plain; return 200 "an app\\n"; }}
}}
server {{
listen {_ADDRESS}:{port};
server_name {_HOST};
proxy_http_version 1.1;
{server_part()}
location /open {{ proxy_pass http://app; proxy_set_header Connection ""; proxy_set_header Host $host;
{open_part()}}}
location /guarded {{ proxy_pass http://app; proxy_set_header Connection ""; proxy_set_header Host $host;
{guarded}}}
}}
}}
"""


@contextlib.contextmanager
def _process(command: list[str], log: Path, inherited: int | None = None) -> Any:
    environment = os.environ if inherited is None else {**os.environ, "NGINX": f"{inherited};"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            pass_fds=[] if inherited is None else [inherited],
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _nginx_version() -> str:
    if shutil.which("nginx") is None:
        raise HostNotReadyError("nginx is not installed", hint="'apt-get install nginx'")
    return (await run(["nginx", "-v"], timeout=20)).stderr.strip().rpartition("/")[2]


def _cpu(gate: int) -> float:
    return sum(one.cpu_seconds for one in HostProcesses().read([gate]).values())
