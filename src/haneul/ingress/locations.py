"""What nginx does at a location: who gets in, what becomes of the request, where it goes. Pure.

What restricts access stands before what answers: a redirect or a preflight answers whoever is not let in too, but tells
nothing of the application. Locations of a host where there are expressions are all expressions, in the order of
precedence, as nginx would try its own kinds in an order of its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from haneul.ingress.annotations import Wishes
from haneul.ingress.asking import GATE_HEADERS, Gate, Helpers, auth_nodes, taken
from haneul.ingress.directives import Argument, Lua, Node, Pattern, Text, Word, block, joined, line
from haneul.ingress.grammar import Network
from haneul.ingress.model import Location, Match, Path, Server, Upstream
from haneul.ingress.rules import Rule
from haneul.ingress.watching import watching_nodes

_CLOSED: Final = "closed: its {kind} is wrong, and has events that say how"
#: Where an issuer asks who answers for a host (RFC 8555 section 8.3); nothing else is served there then.
CHALLENGES: Final = "/.well-known/acme-challenge/"
_CORS_ANSWERS: Final = (
    "Allow-Origin",
    "Allow-Credentials",
    "Allow-Methods",
    "Allow-Headers",
    "Expose-Headers",
    "Max-Age",
)


@dataclass
class HttpParts:
    """What locations need outside servers, each once, and files."""

    #: Whether ModSecurity looks at requests.
    watched: bool = False
    nodes: list[Node] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

    def once(self, name: str) -> bool:
        """Say whether something is asked for the first time."""
        new = name not in self._names
        self._names.add(name)
        return new


def request_headers(protocol: str) -> Iterator[Node]:
    """Yield what endpoints learn of a request; what clients claim of themselves is taken away."""
    name = f"{protocol}_set_header"
    yield line(name, "Host", "$haneul_host")
    if protocol == "proxy":
        yield line(name, "Upgrade", "$http_upgrade")
        yield line(name, "Connection", "$haneul_connection")
    yield line(name, "X-Request-ID", "$haneul_request_id")
    yield line(name, "X-Real-IP", "$remote_addr")
    yield line(name, "X-Forwarded-For", "$remote_addr")
    yield line(name, "X-Forwarded-Host", "$haneul_host")
    yield line(name, "X-Forwarded-Port", "$haneul_port")
    yield line(name, "X-Forwarded-Proto", "$haneul_scheme")
    yield line(name, "Proxy", "")
    yield line(name, "Cookie", "$haneul_open_cookie")
    yield from (line(name, header, "") for header in GATE_HEADERS)


def location_nodes(server: Server, gate: Gate | None, https_port: int, parts: HttpParts) -> list[Node]:
    """Return all locations of a server."""
    expressions = any(location.path.match is Match.EXPRESSION for location in server.locations)
    exact = {location.path.text for location in server.locations if location.path.match is Match.EXACT}
    nodes: list[Node] = []
    helpers = Helpers(gate)
    if server.challenged:
        answer = Lua("content_by_lua_block", 'require("haneul").challenge()')
        nodes.append(block("location", "^~", CHALLENGES, inside=[answer]))
    for spot in server.spots:
        if server.challenged and f"{spot.path.text}/".startswith(CHALLENGES):
            continue
        for words in _where(spot.path, exact, expressions=expressions):
            if spot.choice:
                inside: list[Node] = [Lua("rewrite_by_lua_block", f'require("haneul").pick("{spot.choice}")')]
            else:
                inside = _Location(spot.locations[0], https_port, server.tls, parts, helpers).nodes()
            nodes.append(block("location", *words, inside=inside))
    for location in {one.name: one for spot in server.spots if spot.choice for one in spot.locations}.values():
        inside = _Location(location, https_port, server.tls, parts, helpers).nodes()
        nodes.append(block("location", f"@{location.name}", inside=inside))
    if not any(location.path.text == "/" and location.path.match is Match.PREFIX for location in server.locations):
        nodes.append(block("location", "/", inside=[line("return", 404, "no Ingress has this")]))
    return [*nodes, *helpers.nodes]


def _where(path: Path, exact: set[str], *, expressions: bool) -> Iterator[Sequence[Argument | str]]:
    """Yield how nginx finds a location."""
    match path.match:
        case Match.EXACT:
            yield "=", Pattern(path.text)
        case Match.EXPRESSION:
            yield "~*", Pattern(f"^{path.text}")
        case Match.PREFIX if path.text == "/":
            yield (Word("~"), Pattern("^/")) if expressions else (Word("/"),)
        case Match.PREFIX if expressions:
            yield "~", Pattern(f"^{re.escape(path.text)}(?:/|$)")
        case Match.PREFIX:
            if path.text not in exact:
                yield "=", Pattern(path.text)
            # Beside an exact one of the same words: nginx takes both, and what lies below is this one's still.
            yield Word("^~"), Pattern(f"{path.text}/")


class _Location:
    def __init__(self, location: Location, https_port: int, tls: bool, parts: HttpParts, helpers: Helpers) -> None:
        self._location = location
        self._wishes = location.wishes
        self._https_port = https_port
        self._tls = tls
        self._parts = parts
        self._helpers = helpers

    def nodes(self) -> list[Node]:
        watching = watching_nodes(self._location) if self._parts.watched else ()
        return [*watching, *self._answering()]

    def _answering(self) -> list[Node]:
        if self._location.closed:
            return [line("return", 503, _CLOSED.format(kind=self._location.ingress.kind))]
        if self._location.rule:
            return list(self._ruled(self._location.rule))
        redirect = self._redirect()
        if redirect:
            return [*self._secure(), redirect]
        nodes = [*self._secure(), *self._networks(), *self._limits(), *self._cors(), *self._rewriting()]
        if self._location.upstream is None:
            return [*nodes, line("return", 503, "no endpoint")]
        return [
            *nodes,
            *auth_nodes(self._location.auth, self._helpers, self._parts.files),
            *self._proxying(self._location.upstream),
        ]

    def _ruled(self, rule: Rule) -> Iterator[Node]:
        """Yield what a rule of an HTTPRoute does; what it does exactly is in the table."""
        yield Lua("header_filter_by_lua_block", 'require("haneul").answer()')
        if rule.redirect:
            yield Lua("content_by_lua_block", f'require("haneul").redirect("{rule.name}")')
        else:
            yield from self._proxying(rule)

    def _secure(self) -> Iterator[Node]:
        wishes = self._wishes
        if wishes.force_ssl_redirect or (wishes.ssl_redirect and self._tls):
            port = "" if self._https_port == 443 else f":{self._https_port}"
            there = line("return", 308, f"https://$host{port}$request_uri")
            yield block("if", "($haneul_scheme", "=", "http)", inside=[there])

    def _redirect(self) -> Node | None:
        wishes = self._wishes
        for url, code in (
            (wishes.permanent_redirect, wishes.permanent_redirect_code),
            (wishes.temporal_redirect, wishes.temporal_redirect_code),
        ):
            if url:
                request = [Word("$request_uri")] if url.with_request else []
                return line("return", code, joined(Text(str(url)), *request))
        return None

    def _networks(self) -> Iterator[Node]:
        wishes = self._wishes
        yield from (line("deny", str(network)) for network in wishes.denylist_source_range)
        yield from (line("allow", str(network)) for network in wishes.whitelist_source_range)
        if wishes.whitelist_source_range:
            yield line("deny", "all")

    def _limits(self) -> Iterator[Node]:
        """Yield limits of one client; a zone is named by all that it depends on, as reloads keep what it has."""
        wishes, place = self._wishes, self._location.ingress
        for count, unit in ((wishes.limit_rps, "s"), (wishes.limit_rpm, "m")):
            if count:
                zone = f"haneul_{_digest(place, wishes.limit_whitelist, count, unit)}"
                if self._parts.once(zone):
                    key, rate = self._limited(wishes.limit_whitelist), f"rate={count}r/{unit}"
                    self._parts.nodes.append(line("limit_req_zone", key, f"zone={zone}:1m", rate))
                yield line("limit_req", f"zone={zone}", f"burst={count * wishes.limit_burst_multiplier}", "nodelay")
        if wishes.limit_connections:
            zone = f"haneul_{_digest(place, wishes.limit_whitelist, 'connections')}"
            if self._parts.once(zone):
                key = self._limited(wishes.limit_whitelist)
                self._parts.nodes.append(line("limit_conn_zone", key, f"zone={zone}:1m"))
            yield line("limit_conn", zone, wishes.limit_connections)

    def _limited(self, free: Sequence[Network]) -> str:
        """Return the variable that has a client's address, or nothing if it has no limits."""
        if not free:
            return "$binary_remote_addr"
        name = f"$haneul_limited_{_digest(free)}"
        if self._parts.once(name):
            inside = [line("default", 1), *(line(str(network), 0) for network in free)]
            self._parts.nodes.append(block("geo", f"{name}_it", inside=inside))
            made = [line("0", ""), line("1", "$binary_remote_addr")]
            self._parts.nodes.append(block("map", f"{name}_it", name, inside=made))
        return name

    def _cors(self) -> Iterator[Node]:
        wishes = self._wishes
        if not wishes.enable_cors:
            return
        origin = self._origin(wishes)
        yield line("add_header", "Access-Control-Allow-Origin", origin, "always")
        if origin != "*":
            yield line("add_header", "Vary", "Origin", "always")
        if wishes.cors_allow_credentials and origin != "*":
            yield line("add_header", "Access-Control-Allow-Credentials", "true", "always")
        yield line("add_header", "Access-Control-Allow-Methods", Text(", ".join(wishes.cors_allow_methods)), "always")
        yield line("add_header", "Access-Control-Allow-Headers", Text(", ".join(wishes.cors_allow_headers)), "always")
        if wishes.cors_expose_headers:
            exposed = Text(", ".join(wishes.cors_expose_headers))
            yield line("add_header", "Access-Control-Expose-Headers", exposed, "always")
        yield line("add_header", "Access-Control-Max-Age", wishes.cors_max_age, "always")
        yield block("if", "($request_method", "=", "OPTIONS)", inside=[line("return", 204)])

    def _origin(self, wishes: Wishes) -> str:
        """Return what has the origin of who asks if it is among those that may; whoever may not learns of none."""
        if not wishes.cors_allow_origin:
            return "*"
        name = f"$haneul_origin_{_digest(*map(str, wishes.cors_allow_origin))}"
        if self._parts.once(name):
            entries: list[Node] = [line("default", "")]
            for origin in wishes.cors_allow_origin:
                host = re.escape(str(origin)).replace(r"\*\.", r"[a-z0-9-]+\.", 1)
                entries.append(line(Pattern(f"~*^{host}$"), "$http_origin"))
            self._parts.nodes.append(block("map", "$http_origin", name, inside=entries))
        return name

    def _rewriting(self) -> Iterator[Node]:
        wishes, path = self._wishes, self._location.path
        if wishes.app_root and path.text == "/":
            there = line("return", 302, Text(wishes.app_root))
            yield block("if", "($uri", "=", "/)", inside=[there])
        if wishes.rewrite_target:
            parts = [Word(f"${part}") if isinstance(part, int) else Text(part) for part in wishes.rewrite_target.parts]
            expression = f"(?i)^{path.text}" if path.match is Match.EXPRESSION else "^"
            yield line("rewrite", Pattern(expression), joined(*parts), "break")

    def _proxying(self, upstream: Upstream | Rule) -> Iterator[Node]:
        wishes = self._wishes
        kind = "grpc" if upstream.protocol.startswith("GRPC") else "proxy"
        yield line("client_max_body_size", wishes.proxy_body_size)
        yield from self._headers(kind)
        if wishes.enable_cors:
            yield from (line(f"{kind}_hide_header", f"Access-Control-{answer}") for answer in _CORS_ANSWERS)
        yield line(f"{kind}_connect_timeout", f"{wishes.proxy_connect_timeout}s")
        yield line(f"{kind}_send_timeout", f"{wishes.proxy_send_timeout}s")
        yield line(f"{kind}_read_timeout", f"{wishes.proxy_read_timeout}s")
        yield line(f"{kind}_next_upstream", "error", "timeout")
        yield line(f"{kind}_next_upstream_tries", wishes.proxy_next_upstream_tries)
        if kind == "proxy":
            yield line("proxy_buffering", "on" if wishes.proxy_buffering else "off")
            yield line("proxy_request_buffering", "on" if wishes.gathers_requests else "off")
        yield from self._peer_tls(upstream, kind)
        yield Lua("access_by_lua_block", f'require("haneul").choose("{upstream.name}")')
        if upstream.affinity:
            yield Lua("header_filter_by_lua_block", 'require("haneul").remember()')
        scheme = {"HTTP": "http", "HTTPS": "https", "GRPC": "grpc", "GRPCS": "grpcs"}[upstream.protocol]
        yield line(f"{kind}_pass", f"{scheme}://{upstream.name}")

    def _headers(self, kind: str) -> Iterator[Node]:
        """Yield all headers of the request if one is other than everywhere: nginx takes all from one place."""
        wishes, auth = self._wishes, self._location.auth
        other: dict[str, Argument] = {}
        if wishes.upstream_vhost:
            other["Host"] = Text(wishes.upstream_vhost)
        if wishes.x_forwarded_prefix:
            other["X-Forwarded-Prefix"] = Text(wishes.x_forwarded_prefix)
        other |= {header: Word(variable) for header, variable in taken(auth).items()}
        if not other:
            return
        names = {name.lower() for name in other}
        for node in request_headers(kind):
            if str(getattr(node, "words", ("",))[0]).lower() not in names:
                yield node
        yield from (line(f"{kind}_set_header", Text(name), value) for name, value in other.items())

    def _peer_tls(self, upstream: Upstream | Rule, kind: str) -> Iterator[Node]:
        if upstream.protocol not in ("HTTPS", "GRPCS"):
            return
        yield line(f"{kind}_ssl_server_name", "on")
        if upstream.tls is None:
            yield line(
                f"{kind}_ssl_name", Text(self._wishes.upstream_vhost) if self._wishes.upstream_vhost else "$host"
            )
            return
        file = f"authorities/{hashlib.sha256(upstream.tls.authority).hexdigest()[:32]}.crt"
        self._parts.files[file] = upstream.tls.authority
        yield line(f"{kind}_ssl_verify", "on")
        yield line(f"{kind}_ssl_verify_depth", 5)
        yield line(f"{kind}_ssl_trusted_certificate", file)
        yield line(f"{kind}_ssl_name", Text(upstream.tls.name))


def _digest(*things: object) -> str:
    return hashlib.sha256("\0".join(map(repr, things)).encode()).hexdigest()[:16]
