"""From routes to nginx's configuration. Pure.

A server block is a host; what is done at a location is in :mod:`haneul.ingress.locations`. Where requests go is not in
here but in the table that nginx's Lua reads, so that endpoints come and go without a reload. Nothing in the text
depends on an order in which objects were seen: the same routes are the same text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from haneul.ingress.asking import GATE, Gate, cookie_maps
from haneul.ingress.directives import Lua, Node, Pattern, Text, Word, block, line, render
from haneul.ingress.grammar import Network
from haneul.ingress.locations import HttpParts, location_nodes, request_headers
from haneul.ingress.model import ANY_HOST, BOTH, Certificate, Routes, Scheme, Server
from haneul.ingress.ports import Configuration

_CIPHERS: Final = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
_TEMPORARY: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True)
class Site:
    """Where nginx listens, and what it has on its machine. ``http`` and ``https`` are as its ``listen`` takes them."""

    http: tuple[str, ...]
    https: tuple[str, ...]
    #: The port at which clients reach HTTPS; redirects name it.
    https_port: int
    #: For hosts without a certificate, and clients that name none.
    certificate: Certificate
    #: nginx's own folder, and the one with its Lua.
    folder: str
    lua: str
    modules: str = "/usr/lib/nginx/modules"
    #: Whom workers run as; empty if nginx is not started by root.
    user: str = ""
    workers: int = 2
    #: Balancers before nginx, whose word on the client's address and protocol counts.
    trusted: tuple[Network, ...] = ()
    proxy_protocol: bool = False
    gate: Gate | None = None
    #: Seconds that connections have to end when routes change.
    drain: int = 600
    access_log: str = ""
    #: ModSecurity's configuration; without it nginx looks at no request.
    audit_rules: str = ""
    error_log: str = "error.log"
    #: The folder, in nginx's own, for what it writes there itself; else such files lie beside what it is told.
    scratch: str = ""

    @property
    def socket(self) -> str:
        """Return the socket by which nginx is told things."""
        return f"{self.folder}/{self.scratch or 'private'}/control.sock"

    @property
    def number(self) -> str:
        """Return the file of the master's number."""
        return f"{self.scratch}/nginx.pid" if self.scratch else "nginx.pid"


def render_configuration(routes: Routes, site: Site) -> Configuration:
    """Return what nginx serves these routes with."""
    parts = HttpParts(watched=bool(site.audit_rules))
    files = _certificate_files(site.certificate)
    servers: list[Node] = []
    hosts = {server.host for server in routes.servers}
    for server in sorted([*routes.servers, *_nobodys(routes)], key=_order):
        certificate = server.certificate or site.certificate
        files |= _certificate_files(certificate)
        servers.append(_server(server, site, certificate, parts))
    files |= parts.files
    gate = [_gate(site.gate)] if site.gate else []
    redirects = {name for name, rule in routes.rules.items() if rule.redirect}
    upstreams = [_upstream(name) for name in sorted({*routes.upstreams, *routes.rules} - redirects)]
    served = [*_http(site, len(hosts)), *parts.nodes, *gate, *upstreams, *servers]
    generation = hashlib.sha256(render([*_main(site), *served]).encode()).hexdigest()[:32]
    text = render([*_main(site), block("http", inside=[*served, _control(site.socket, generation)])])
    return Configuration(text, generation, files, idle=not routes.servers)


def _main(site: Site) -> Iterator[Node]:
    yield line("load_module", Text(f"{site.modules}/ndk_http_module.so"))
    yield line("load_module", Text(f"{site.modules}/ngx_http_lua_module.so"))
    if site.audit_rules:
        yield line("load_module", Text(f"{site.modules}/ngx_http_modsecurity_module.so"))
    if site.user:
        yield line("user", Text(site.user))
    yield line("worker_processes", site.workers)
    yield line("worker_shutdown_timeout", f"{site.drain}s")
    yield line("pid", site.number)
    yield line("error_log", Text(site.error_log), "warn")
    yield block("events", inside=[line("worker_connections", 8192), line("multi_accept", "on")])


def _http(site: Site, hosts: int) -> Iterator[Node]:
    yield from (line(f"{name}_temp_path", f"{site.scratch or 'temporary'}/{name}") for name in _TEMPORARY)
    yield line("lua_package_path", Text(f"{site.lua}/?.lua;;"))
    yield line("lua_shared_dict", "haneul", "64m")
    yield Lua("init_by_lua_block", 'require("haneul").start()')
    yield Lua("init_worker_by_lua_block", "math.randomseed(ngx.now() * 1000 + ngx.worker.pid())")
    # Applications set no cookie of the gate's, in no answer: an internal redirect would keep one for another location.
    yield Lua("header_filter_by_lua_block", 'require("haneul").guard()')
    for protocol in ("proxy", "grpc"):
        yield line(f"{protocol}_ignore_headers", "X-Accel-Redirect")
    yield line("server_tokens", "off")
    yield line("absolute_redirect", "off")
    yield line("default_type", "text/plain")
    yield line("tcp_nodelay", "on")
    yield line("sendfile", "on")
    yield line("reset_timedout_connection", "on")
    yield line("client_header_timeout", "60s")
    yield line("large_client_header_buffers", 4, "16k")
    yield line("server_names_hash_bucket_size", 512)
    yield line("server_names_hash_max_size", max(1024, 1 << (4 * hosts).bit_length()))
    yield line("map_hash_bucket_size", 1024)
    yield line("variables_hash_max_size", 8192)
    yield line("variables_hash_bucket_size", 256)
    yield line("proxy_headers_hash_max_size", 1024)
    yield line("proxy_headers_hash_bucket_size", 256)
    yield line("limit_req_status", 429)
    yield line("limit_conn_status", 429)
    if site.audit_rules:
        yield line("modsecurity_rules_file", Text(site.audit_rules))
    yield from _tls()
    yield from _clients(site)
    if site.access_log:
        yield _log_format()
        yield line("access_log", Text(site.access_log), "haneul")
    else:
        yield line("access_log", "off")


def _control(socket: str, generation: str) -> Node:
    """Return the server that whoever runs nginx talks to, behind a socket that nobody else may reach."""
    room = [line("client_max_body_size", "64m"), line("client_body_buffer_size", "64m")]
    point: list[Node] = [*room, Lua("content_by_lua_block", 'require("haneul").point()')]
    inside: list[Node] = [
        line("listen", Text(f"unix:{socket}")),
        block("location", "=", "/generation", inside=[line("return", 200, generation)]),
        block("location", "=", "/state", inside=[Lua("content_by_lua_block", 'require("haneul").state()')]),
        block("location", "=", "/table", inside=point),
    ]
    return block("server", inside=inside)


def _tls() -> Iterator[Node]:
    yield line("ssl_protocols", "TLSv1.2", "TLSv1.3")
    yield line("ssl_ciphers", _CIPHERS)
    yield line("ssl_session_cache", "shared:haneul_tls:10m")
    yield line("ssl_session_timeout", "10m")
    yield line("ssl_session_tickets", "off")


def _clients(site: Site) -> Iterator[Node]:
    """Yield what makes out who asks, by which protocol, for which host."""
    for network in site.trusted:
        yield line("set_real_ip_from", str(network))
    if site.trusted:
        yield line("real_ip_header", "proxy_protocol" if site.proxy_protocol else "X-Forwarded-For")
        yield line("real_ip_recursive", "on")
    # Who speaks the PROXY protocol passes on headers as clients wrote them.
    trusted = [] if site.proxy_protocol else [line(str(network), 1) for network in site.trusted]
    yield block("geo", "$realip_remote_addr", "$haneul_trusted", inside=[line("default", 0), *trusted])
    said = [line("default", "$scheme"), line("1:https", "https"), line("1:http", "http")]
    yield block("map", "$haneul_trusted:$http_x_forwarded_proto", "$haneul_scheme", inside=said)
    ports = [line("default", "$server_port"), line("https", site.https_port)]
    yield block("map", "$haneul_scheme", "$haneul_port", inside=ports)
    # The port that a client named is kept if the rest is the host that its server was chosen by.
    same = line(Pattern(r"~*^([^|]+)\|\1(:[0-9]+)?$"), "$http_host")
    yield block("map", "$host|$http_host", "$haneul_host", inside=[line("default", "$host"), same])
    yield block("map", "$http_upgrade", "$haneul_connection", inside=[line("default", "upgrade"), line("", "")])
    given = line(Pattern(r"~^[A-Za-z0-9_.-]{8,64}$"), "$http_x_request_id")
    yield block("map", "$http_x_request_id", "$haneul_request_id", inside=[line("default", "$request_id"), given])
    yield from cookie_maps()
    for protocol in ("proxy", "grpc"):
        yield from request_headers(protocol)
    yield line("proxy_http_version", "1.1")
    # No answer lies on the disk: what does not fit into memory is read as fast as the client reads.
    yield line("proxy_max_temp_file_size", 0)


def _log_format() -> Node:
    fields = {
        "time": "$time_iso8601",
        "request_id": "$haneul_request_id",
        "client": "$remote_addr",
        "host": "$host",
        "method": "$request_method",
        "uri": "$request_uri",
        "protocol": "$server_protocol",
        "status": "$status",
        "bytes": "$body_bytes_sent",
        "seconds": "$request_time",
        "endpoint": "$upstream_addr",
        "endpoint_seconds": "$upstream_response_time",
    }
    return line("log_format", "haneul", "escape=json", json.dumps(fields, separators=(",", ":")))


def _gate(gate: Gate) -> Node:
    inside = [line("server", Text(gate.address)), line("keepalive", 64)]
    return block("upstream", GATE, inside=inside)


def _nobodys(routes: Routes) -> Iterator[Server]:
    """Yield the server for hosts that nobody has, by the schemes by which nobody has any host."""
    open_to = BOTH.difference(*(server.schemes for server in routes.servers if server.host == ANY_HOST))
    if open_to:
        yield Server(ANY_HOST, (), schemes=open_to)


def _order(server: Server) -> tuple[bool, int, str, list[str]]:
    """Return what servers are sorted by: nginx takes the first of several expressions, so longer ones go first."""
    wildcard = server.host.startswith("*.")
    return wildcard, -len(server.host) if wildcard else 0, server.host, sorted(server.schemes)


def _upstream(name: str) -> Node:
    """Return a group whose members are chosen in Lua; nginx wants one all the same, and it is no address."""
    choice: list[Node] = [line("server", "0.0.0.1"), Lua("balancer_by_lua_block", 'require("haneul").balance()')]
    kept = [line("keepalive", 64), line("keepalive_timeout", "60s")]
    return block("upstream", name, inside=[*choice, *kept])


def _server(server: Server, site: Site, certificate: Certificate, parts: HttpParts) -> Node:
    first = ["default_server"] if server.host == ANY_HOST else []
    protocol = ["proxy_protocol"] if site.proxy_protocol else []
    inside: list[Node] = []
    if Scheme.HTTP in server.schemes:
        inside += [line("listen", Text(address), *first, *protocol) for address in site.http]
    if Scheme.HTTPS in server.schemes:
        inside += [line("listen", Text(address), *first, "ssl", "http2", *protocol) for address in site.https]
    inside.append(line("server_name", _server_name(server)))
    inside.append(line("ssl_certificate", f"private/{certificate.digest}.crt"))
    inside.append(line("ssl_certificate_key", f"private/{certificate.digest}.key"))
    inside += location_nodes(server, site.gate, site.https_port, parts)
    return block("server", inside=inside)


def _server_name(server: Server) -> Word | Text | Pattern:
    host = server.host
    if host == ANY_HOST:
        return Word("_")
    if host.startswith("*."):
        # A wildcard is one label (Kubernetes documentation "Ingress", "Hostname wildcards"), and any number for routes
        # (Gateway API, "Hostname"). nginx' own would go before all expressions.
        return Pattern(rf"~^{'.+' if server.for_routes else '[^.]+'}\.{re.escape(host[2:])}$")
    return Text(host)


def _certificate_files(certificate: Certificate) -> dict[str, bytes]:
    place = f"private/{certificate.digest}"
    return {f"{place}.crt": certificate.chain, f"{place}.key": certificate.key}
