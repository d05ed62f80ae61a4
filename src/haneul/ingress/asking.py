"""What nginx does to find out who gets in: asks the gate, asks a Service, or for a name and a password. Pure.

The gate's words: it is asked at ``/auth`` with the rule that a path has (``X-Haneul-Rule``: ``anyone``,
``project:NAME``, ``group:NAME``, ``person:NAME``, ``email:ADDRESS``), answers who somebody is, and which cookies and
which authorization the application may see; ``/denied`` answers clients that do not get in, and sends browsers to sign
on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from haneul.ingress.directives import Lua, Node, Pattern, Text, Word, block, joined, line
from haneul.ingress.model import AskedAuth, Auth, PasswordAuth, PeopleAuth

#: The upstream of the gate.
GATE: Final = "haneul_gate"
#: What clients may not say: the gate does, or this proxy to the gate.
GATE_HEADERS: Final = tuple(
    f"X-Haneul-{name}"
    for name in ("User", "Email", "Groups", "Projects", "Cookie", "Authorization", "Rule", "Sign-On", "Problem")
)
#: The cookie of the gate's sessions, which no application gets to see: it would be good for all others.
SESSION_COOKIE: Final = "__Secure-haneul-session"
#: What an application gets of the gate's answer, by the header that it gets it in.
_IDENTITY: Final = {
    **{name: name for name in GATE_HEADERS[:4]},
    "Cookie": "X-Haneul-Cookie",
    "Authorization": "X-Haneul-Authorization",
}
_AWAY: Final = "Sign-on is not available at the moment; nobody is let through meanwhile."


@dataclass(frozen=True)
class Gate:
    """Where people sign on: ``address`` is its host and port."""

    address: str


@dataclass
class Helpers:
    """Locations that only other locations of the same server lead to, each once."""

    gate: Gate | None
    nodes: list[Node] = field(default_factory=list)
    _made: set[str] = field(default_factory=set)

    def add(self, name: str, node: Node) -> None:
        """Add a location if there is none of its name."""
        if name not in self._made:
            self._made.add(name)
            self.nodes.append(node)


def cookie_maps() -> Iterator[Node]:
    """Yield variables with a request's cookies less the gate's session, and less all where it comes twice.

    And one with the cookie of an answer, unless it is of the gate's names.
    """
    names = ("$http_cookie", "$haneul_less_cookie", "$haneul_open_cookie")
    inside = [
        line("default", names[0]),
        line(
            Pattern(rf"~*^(?<haneul_before>.*?){SESSION_COOKIE}=[^;]*(?:;\s*)?(?<haneul_after>.*)$"),
            "$haneul_before$haneul_after",
        ),
    ]
    yield block("map", names[0], names[1], inside=inside)
    last = [line("default", names[1]), line(Pattern("~*__Secure-haneul-"), "")]
    yield block("map", names[1], names[2], inside=last)
    # A Service that is asked who gets in sets no cookie of the gate's.
    others = [line("volatile"), line("default", "$upstream_http_set_cookie")]
    others.append(line(Pattern(r"~*^[\s=]*__(?:Secure|Host)-haneul-"), ""))
    yield block("map", "$upstream_http_set_cookie", "$haneul_others_cookie", inside=others)


def taken(auth: Auth | None) -> Mapping[str, str]:
    """Return the headers that an application gets of an answer, each with the variable that has it."""
    return {header: f"$haneul_answer_{number}" for number, header in enumerate(_answers(auth))}


def auth_nodes(auth: Auth | None, helpers: Helpers, files: dict[str, bytes]) -> Iterator[Node]:
    """Yield what stands in a location, and add what it needs beside it."""
    match auth:
        case PasswordAuth(realm, passwords):
            file = f"passwords/{hashlib.sha256(passwords).hexdigest()[:32]}"
            files[file] = passwords
            yield line("auth_basic", Text(realm))
            yield line("auth_basic_user_file", file)
        case PeopleAuth():
            yield from _people(auth, helpers)
        case AskedAuth():
            yield from _asked(auth, helpers)


def _answers(auth: Auth | None) -> Mapping[str, str]:
    if isinstance(auth, PeopleAuth):
        return _IDENTITY
    return {header: header for header in auth.headers} if isinstance(auth, AskedAuth) else {}


def _people(auth: PeopleAuth, helpers: Helpers) -> Iterator[Node]:
    if helpers.gate is None:
        raise ValueError("people are asked for where there is no gate")
    name = f"haneul_gate_{_digest(auth)}"
    question = [*_question("$http_cookie"), *_gate_question(auth, helpers.gate)]
    asking: list[Node] = [line("internal"), *question, line("proxy_pass", f"http://{GATE}/auth")]
    helpers.add(name, block("location", "=", f"/_{name}", inside=asking))
    denying: list[Node] = [
        line("rewrite", "^", "/denied?", "break"),
        *question,
        # It is the gate that answers here, and sets its own cookies.
        Lua("header_filter_by_lua_block", "return"),
        # The first answer's has been taken over already.
        line("proxy_hide_header", "WWW-Authenticate"),
        line("proxy_pass", f"http://{GATE}"),
    ]
    helpers.add(f"@{name}", block("location", f"@{name}", inside=denying))
    yield from _answered(auth, f"/_{name}", "$upstream_http_set_cookie")
    yield line("auth_request_set", "$haneul_problem", "$upstream_http_x_haneul_problem")
    yield line("error_page", 401, 403, "=", f"@{name}")
    away = "@haneul_gate_away"
    helpers.add(away, block("location", away, inside=_away(f"{_AWAY} $haneul_problem")))
    yield line("error_page", 500, "=", away)


def _asked(auth: AskedAuth, helpers: Helpers) -> Iterator[Node]:
    name = f"haneul_auth_{_digest(auth)}"
    place = joined(Word(f"{auth.url.scheme}://{auth.upstream.name}"), Text(auth.url.rest or "/"))
    asking: list[Node] = [
        line("internal"),
        *_question("$haneul_open_cookie"),
        line("proxy_set_header", "X-Haneul-Rule", ""),
        line("proxy_set_header", "Host", Text(auth.url.host)),
        # Subrequests have no access phase.
        Lua("rewrite_by_lua_block", f'require("haneul").choose("{auth.upstream.name}")'),
        line("proxy_pass", place),
    ]
    helpers.add(name, block("location", "=", f"/_{name}", inside=asking))
    yield from _answered(auth, f"/_{name}", "$haneul_others_cookie")
    if auth.sign_in:
        denying: list[Node] = [
            line("set", "$haneul_sign_in", Text(str(auth.sign_in))),
            Lua("content_by_lua_block", 'require("haneul").sign_in()'),
        ]
        helpers.add(f"@{name}", block("location", f"@{name}", inside=denying))
        yield line("error_page", 401, "=", f"@{name}")
    away = "@haneul_auth_away"
    helpers.add(away, block("location", away, inside=_away(_AWAY)))
    yield line("error_page", 500, "=", away)


def _answered(auth: Auth, place: str, cookie: str) -> Iterator[Node]:
    yield line("auth_request", place)
    for number, answer in enumerate(_answers(auth).values()):
        yield line("auth_request_set", f"$haneul_answer_{number}", _upstream_variable(answer))
    yield line("auth_request_set", "$haneul_answer_cookie", cookie)
    yield line("add_header", "Set-Cookie", "$haneul_answer_cookie", "always")


def _away(said: str) -> list[Node]:
    return [
        line("add_header", "Retry-After", 10, "always"),
        line("add_header", "Cache-Control", "no-store", "always"),
        line("return", 503, said),
    ]


def _gate_question(auth: PeopleAuth, gate: Gate) -> Iterator[Node]:
    yield line("proxy_set_header", "Host", Text(gate.address))
    yield line("proxy_set_header", "X-Haneul-Rule", Text(auth.rule))


def _question(cookies: str) -> Iterator[Node]:
    """Yield what is told of a request to whoever is asked: its headers and cookies, but not its body."""
    yield line("proxy_method", "GET")
    yield line("proxy_pass_request_body", "off")
    # Answers carry cookies, and those are long.
    yield line("proxy_buffer_size", "32k")
    yield line("proxy_buffers", 4, "32k")
    yield line("proxy_busy_buffers_size", "64k")
    yield line("proxy_connect_timeout", "2s")
    yield line("proxy_read_timeout", "20s")
    yield line("proxy_set_header", "Content-Length", "")
    yield line("proxy_set_header", "Connection", "")
    yield line("proxy_set_header", "Cookie", cookies)
    yield line("proxy_set_header", "X-Original-Method", "$request_method")
    yield line("proxy_set_header", "X-Original-URL", "$haneul_scheme://$haneul_host$request_uri")
    yield line("proxy_set_header", "X-Original-URI", "$request_uri")
    yield line("proxy_set_header", "X-Original-Host", "$haneul_host")
    yield line("proxy_set_header", "X-Request-ID", "$haneul_request_id")
    yield line("proxy_set_header", "X-Real-IP", "$remote_addr")
    yield line("proxy_set_header", "X-Forwarded-For", "$remote_addr")
    yield line("proxy_set_header", "X-Forwarded-Proto", "$haneul_scheme")
    yield line("proxy_set_header", "X-Forwarded-Host", "$haneul_host")
    yield line("proxy_set_header", "Proxy", "")
    yield from (line("proxy_set_header", header, "") for header in GATE_HEADERS if header != "X-Haneul-Rule")


def _upstream_variable(header: str) -> str:
    return f"$upstream_http_{header.lower().replace('-', '_')}"


def _digest(auth: Auth) -> str:
    return hashlib.sha256(repr(auth).encode()).hexdigest()[:16]
