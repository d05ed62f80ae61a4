"""nginx in front of a small app and the gate, in processes of their own, and a browser that finds them by name."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2

from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf
from haneul.signon.nginx import gate_part, http_part, open_part, protected_part, server_part
from haneul.signon.rules import rule_of
from haneul.signon.settings import read_settings
from tests.processes import end_all

DOMAIN = "apps.test"
HOSTS = ("auth", "wiki", "docs")
DEADLINE = 120.0


class _Echo(BaseHTTPRequestHandler):
    """Answers with what it got: that is what the app sees."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers: dict[str, list[str]] = {}
        for name, value in self.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        content = json.dumps({"path": self.path, "headers": headers, "body": len(body)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Set-Cookie", "theme=dark; Path=/")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _answer  # noqa: N815 - the library's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        pass


class Front:
    """nginx, the gate and the app."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.url = f"https://auth.{DOMAIN}:{port}"
        self.config = folder / "auth.yaml"
        self.listen = f"unix:{folder}/socket"
        self.authority = folder / "ca.crt"
        self.gate: subprocess.Popen[bytes] | None = None

    def site(self, host: str, path: str = "/") -> str:
        return f"https://{host}.{DOMAIN}:{self.port}{path}"

    def browser(self, *authorities: Path) -> httpx2.Client:
        """Return a browser that trusts this nginx and others; names of the domain lead here."""
        context = ssl.create_default_context(cadata="".join(one.read_text() for one in (self.authority, *authorities)))
        return httpx2.Client(transport=_Named(context), timeout=30, headers={"Accept": "text/html,*/*"})

    def start_gate(self) -> None:
        command = [sys.executable, "-m", "haneul.app.main", "auth", "serve", "--config", str(self.config)]
        with (self.folder / "gate.log").open("ab") as log:
            self.gate = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + DEADLINE
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(self.listen.removeprefix("unix:")) == 0:
                    return
            said = (self.folder / "gate.log").read_text()
            assert self.gate.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.02)

    def stop_gate(self) -> None:
        if self.gate is not None:
            end_all(self.gate)

    def raw(self, request: bytes, host: str = "wiki") -> bytes:
        """Send bytes over TLS, whatever they are; return the head of the answer."""
        context = ssl.create_default_context(cafile=str(self.authority))
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname=f"{host}.{DOMAIN}") as tls,
        ):
            # What is too long may be refused before all of it is sent; the answer is there all the same.
            with contextlib.suppress(OSError):
                tls.sendall(request)
            answer = b""
            # Not until the end of the connection: nginx waits for what it refused before it ends one.
            while b"\r\n\r\n" not in answer and (part := tls.recv(65536)):
                answer += part
        return answer.partition(b"\r\n\r\n")[0]


class _Named(httpx2.BaseTransport):
    """Finds every host of the domain on this machine; the address that cookies and names are for stays as it is."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._inner = httpx2.HTTPTransport(verify=context)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if not request.url.host.endswith(DOMAIN):
            return self._inner.handle_request(request)
        found = httpx2.Request(
            request.method,
            request.url.copy_with(host="127.0.0.1"),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": request.url.host},
        )
        return self._inner.handle_request(found)

    def close(self) -> None:
        self._inner.close()


@contextlib.contextmanager
def running_front(folder: Path, configured: Any) -> Iterator[Front]:
    """Run all three; ``configured`` writes the gate's file once it is known where browsers reach it."""
    with contextlib.ExitStack() as stack:
        app = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
        stack.callback(app.server_close)
        thread = threading.Thread(target=app.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        stack.callback(thread.join)
        stack.callback(app.shutdown)
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        front = Front(folder, listening.getsockname()[1])
        configured(front)
        _write(front, app.server_address[1])
        front.start_gate()
        stack.callback(front.stop_gate)
        command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "nginx.log")]
        number = listening.fileno()
        # nginx takes a socket that is there already by this variable, as it does when its program is replaced: so
        # nobody else can have taken the port.
        nginx = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=[number], env={**os.environ, "NGINX": f"{number};"}
        )
        stack.callback(end_all, nginx)
        listening.close()
        yield front


def _write(front: Front, app: int) -> None:
    now = datetime.now(UTC)
    authority = issue_authority("the front's authority", now=now)
    names = tuple(f"{host}.{DOMAIN}" for host in HOSTS)
    leaf = issue_leaf(authority, LeafProfile("front", dns_names=names, server=True), now=now, life=timedelta(hours=2))
    front.authority.write_bytes(authority.certificate)
    (front.folder / "tls.crt").write_bytes(leaf.certificate)
    (front.folder / "tls.key").write_bytes(leaf.key)
    settings = read_settings(front.config)
    common = f"listen 127.0.0.1:{front.port} ssl; ssl_certificate tls.crt; ssl_certificate_key tls.key;"
    parts = {
        "open": open_part(),
        "anyone": protected_part(rule_of(anyone=True)),
        "shop": protected_part(rule_of(projects=["shop"])),
        "ops": protected_part(rule_of(groups=["ops"], people=["mallory"])),
        "unset": protected_part(rule_of(anyone=True)).replace('set $haneul_rule "anyone";', ""),
    }
    locations = "".join(
        f"location {'/' if name == 'anyone' else f'/{name}/'} {{ proxy_pass http://127.0.0.1:{app};\n{part}}}\n"
        for name, part in parts.items()
    )
    (front.folder / "nginx.conf").write_text(
        f"""\
user root;
daemon off;
worker_processes 1;
pid {front.folder}/nginx.pid;
error_log {front.folder}/nginx.log;
events {{ worker_connections 256; }}
http {{
access_log off;
client_body_temp_path {front.folder}/bodies;
proxy_temp_path {front.folder}/answers;
fastcgi_temp_path {front.folder}/none;
uwsgi_temp_path {front.folder}/none;
scgi_temp_path {front.folder}/none;
{http_part(settings.listen)}
server {{ {common}
{gate_part(settings.sites)}}}
server {{ {common} server_name wiki.{DOMAIN} docs.{DOMAIN};
{server_part()}{locations}}}
}}
"""
    )
