"""What nginx needs in its configuration to ask the gate, as text that can be included. Pure.

Four parts: one for the block ``http``, one for each ``server`` with protected paths, one for each protected
``location``, one for the gate's own host. A location's headers replace those of its server in nginx, so the lines that
take away what a client must not say stand in each location, in open ones too.
"""

from __future__ import annotations

from typing import Final

from haneul.signon.addresses import Sites
from haneul.signon.cookies import SESSION
from haneul.signon.model import (
    AUTHORIZATION,
    COOKIE,
    EMAIL,
    GROUPS,
    ORIGINAL_METHOD,
    ORIGINAL_URL,
    PROBLEM,
    PROJECTS,
    RULE,
    SIGN_ON,
    USER,
)
from haneul.signon.rules import Rule

_IDENTITY: Final = (USER, EMAIL, GROUPS, PROJECTS)
#: Of the gate's own words, none reaches an app from a client.
_GATES: Final = (COOKIE, AUTHORIZATION, RULE, SIGN_ON, PROBLEM)
_UPSTREAM: Final = "haneul_auth"
_AWAY: Final = "Sign-on is not available at the moment; nobody is let through meanwhile."

_ASKING: Final = f"""\
proxy_pass_request_body off;
proxy_http_version 1.1;
proxy_method GET;
proxy_set_header Connection "";
proxy_set_header Content-Length "";
proxy_set_header Host $host;
proxy_set_header {RULE} $haneul_rule;
proxy_set_header {ORIGINAL_URL} $scheme://$http_host$request_uri;
proxy_set_header {ORIGINAL_METHOD} $request_method;
proxy_buffer_size 32k;
proxy_buffers 4 32k;
proxy_busy_buffers_size 64k;
proxy_connect_timeout 2s;
proxy_read_timeout 20s;
"""


def http_part(listen: str) -> str:
    """Return what stands in ``http``: where the gate listens, and connections that are kept."""
    return f"""\
upstream {_UPSTREAM} {{
    server {listen};
    keepalive 32;
}}
# Cookies for apps that nobody guards: without the session, and without any where it comes more than once.
map $http_cookie $haneul_less_cookie {{
    default $http_cookie;
    "~*^(?<haneul_before>.*?){SESSION}=[^;]*(?:;\\s*)?(?<haneul_after>.*)$" "$haneul_before$haneul_after";
}}
map $haneul_less_cookie $haneul_open_cookie {{
    default $haneul_less_cookie;
    "~*__Secure-haneul-" "";
}}
"""


def server_part() -> str:
    """Return what stands in each ``server`` that has protected paths."""
    return f"""\
location = /.haneul/auth {{
    internal;
    proxy_pass http://{_UPSTREAM}/auth;
{_indented(_ASKING)}}}
location @haneul_denied {{
    internal;
    rewrite ^ /denied break;
    proxy_pass http://{_UPSTREAM};
    # auth_request has taken it over from the gate's first answer.
    proxy_hide_header WWW-Authenticate;
{_indented(_ASKING)}}}
location @haneul_away {{
    internal;
    default_type text/plain;
    add_header Retry-After 10 always;
    add_header Cache-Control no-store always;
    return 503 "{_AWAY} $haneul_problem\\n";
}}
"""


def protected_part(rule: Rule) -> str:
    """Return what stands in a ``location`` that a rule guards, beside its own ``proxy_pass``."""
    asked = [("problem", PROBLEM), ("cookie", COOKIE), ("authorization", AUTHORIZATION)]
    asked += [(name.removeprefix("X-Haneul-").lower(), name) for name in _IDENTITY]
    lines = [f'set $haneul_rule "{rule.words()}";', "auth_request /.haneul/auth;"]
    lines += [f"auth_request_set $haneul_{name} {_upstream_variable(header)};" for name, header in asked]
    lines += [
        "auth_request_set $haneul_new_session $upstream_http_set_cookie;",
        "add_header Set-Cookie $haneul_new_session always;",
        "error_page 401 403 = @haneul_denied;",
        "error_page 500 =503 @haneul_away;",
        *(f"proxy_set_header {name} $haneul_{name.removeprefix('X-Haneul-').lower()};" for name in _IDENTITY),
        "proxy_set_header Cookie $haneul_cookie;",
        "proxy_set_header Authorization $haneul_authorization;",
        *(f'proxy_set_header {name} "";' for name in _GATES),
    ]
    return "\n".join(lines) + "\n"


def open_part() -> str:
    """Return what stands in a ``location`` that nobody guards: no client says there who it is."""
    lines = [f'proxy_set_header {name} "";\n' for name in (*_IDENTITY, *_GATES)]
    return "".join([*lines, "proxy_set_header Cookie $haneul_open_cookie;\n"])


def gate_part(sites: Sites) -> str:
    """Return what stands in the ``server`` of the gate's own host, beside its certificate."""
    return f"""\
server_name {sites.host};
location ~ ^/(start|callback|sign-out|style\\.css)?$ {{
    proxy_pass http://{_UPSTREAM};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_buffer_size 32k;
    proxy_buffers 4 32k;
    proxy_busy_buffers_size 64k;
    proxy_connect_timeout 2s;
    proxy_read_timeout 20s;
    client_max_body_size 4k;
}}
location / {{
    return 404;
}}
"""


def _upstream_variable(header: str) -> str:
    return f"$upstream_http_{header.lower().replace('-', '_')}"


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())
