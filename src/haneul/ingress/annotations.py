"""What an Ingress asks for in annotations: a table of names, grammars and meanings. Pure.

An annotation is taken under the prefix ``haneul.dev/`` and, where ingress-nginx has it too, under
``nginx.ingress.kubernetes.io/``; ours goes first. Whoever restricts access with one that is wrong, or that is not
supported here, did not want everybody to get in: what such an annotation is on is closed. All others that are wrong are
left out. There are none that carry configuration as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from haneul.ingress import grammar
from haneul.ingress.grammar import Network, Origin, Rewriting, Url

PREFIX: Final = "haneul.dev/"
OTHER_PREFIX: Final = "nginx.ingress.kubernetes.io/"
#: Of ingress-nginx; each restricts who gets in, and none is supported.
CLOSING: Final = (
    "auth-cache-key",
    "auth-proxy-set-headers",
    "auth-snippet",
    "auth-tls-match-cn",
    "auth-tls-secret",
    "auth-tls-verify-client",
    "configuration-snippet",
    "enable-global-auth",
    "enable-modsecurity",
    "enable-owasp-core-rules",
    "modsecurity-snippet",
    "satisfy",
    "server-snippet",
    "ssl-passthrough",
    "stream-snippet",
)
#: The largest body of a request, in bytes, that may lie on the proxy's disk.
LARGEST_GATHERED: Final = 64 << 20
#: Old names, and what they are called here.
_ALIASES: Final = {"allowlist-source-range": "whitelist-source-range", "limit-allowlist": "limit-whitelist"}

#: What ingress-nginx lets scripts send if nothing is written.
_CORS_HEADERS: Final = (
    "DNT",
    "Keep-Alive",
    "User-Agent",
    "X-Requested-With",
    "If-Modified-Since",
    "Cache-Control",
    "Content-Type",
    "Range",
    "Authorization",
)

_Flag = Annotated[bool, BeforeValidator(grammar.parse_flag)]
_Switch = Annotated[bool, BeforeValidator(grammar.parse_switch)]
_Seconds = Annotated[int, BeforeValidator(grammar.parse_seconds)]
_Size = Annotated[int, BeforeValidator(grammar.parse_size)]
_Networks = Annotated[tuple[Network, ...], BeforeValidator(grammar.parse_networks)]
_Url = Annotated[Url | None, BeforeValidator(grammar.parse_url)]
_Tokens = Annotated[tuple[str, ...], BeforeValidator(grammar.parse_tokens)]
_Members = Annotated[tuple[str, ...], BeforeValidator(grammar.parse_members)]
_Secret = Annotated[str, BeforeValidator(grammar.parse_secret_name)]
_Cookie = Annotated[str, BeforeValidator(grammar.parse_cookie)]


def _number(least: int, most: int) -> BeforeValidator:
    return BeforeValidator(partial(grammar.parse_number, least=least, most=most))


def _choice(*choices: str) -> BeforeValidator:
    return BeforeValidator(lambda text: grammar.parse_choice(text, *choices))


def _field(form: str, meaning: str, default: Any = None, *, restricts: bool = False, ours: bool = False) -> Any:
    """Describe an annotation; ``ours`` is one that ingress-nginx does not have."""
    return Field(default, description=meaning, json_schema_extra={"form": form, "restricts": restricts, "ours": ours})


def _name(field: str) -> str:
    return field.replace("_", "-")


class Wishes(BaseModel):
    """Every annotation, as a value. What is not written has the value that holds then."""

    model_config = ConfigDict(
        alias_generator=_name, extra="forbid", frozen=True, arbitrary_types_allowed=True, validate_default=False
    )

    auth: Annotated[str, _choice("required")] = _field(
        "`required`", "only who is signed on at the gate gets in", "", restricts=True, ours=True
    )
    auth_projects: _Members = _field("names", "of these projects' members only", (), restricts=True, ours=True)
    auth_groups: _Members = _field("names", "or of these groups' members", (), restricts=True, ours=True)
    auth_people: _Members = _field("names", "or these people", (), restricts=True, ours=True)
    auth_emails: _Members = _field("names", "or people with these addresses", (), restricts=True, ours=True)

    audit: Annotated[str, BeforeValidator(grammar.parse_audit)] = _field(
        "[words](audit-trail.md#what-is-kept)", "which requests the audit trail keeps", "", ours=True
    )

    auth_type: Annotated[str, _choice("basic")] = _field("`basic`", "asks for name and password", "", restricts=True)
    auth_secret: _Secret = _field(
        "name of a Secret", "whose `auth` has lines of `htpasswd`, hashed; of the same namespace", "", restricts=True
    )
    auth_realm: Annotated[str, BeforeValidator(grammar.parse_words)] = _field(
        "plain words", "what browsers show as they ask", "Sign in"
    )
    auth_url: _Url = _field(
        "address", "a Service of the same namespace is asked whether a request gets in", restricts=True
    )
    auth_signin: _Url = _field("address", "where browsers go that it does not let in")
    auth_response_headers: Annotated[tuple[str, ...], BeforeValidator(grammar.parse_answered)] = _field(
        "names", "headers of its answer that the application gets", ()
    )

    use_regex: _Flag = _field("flag", "paths are [expressions](#expressions)", default=False)
    rewrite_target: Annotated[Rewriting | None, BeforeValidator(grammar.parse_rewriting)] = _field(
        "path with `$1` to `$9`", "what the path becomes; paths are expressions then"
    )
    app_root: Annotated[str, BeforeValidator(grammar.parse_reference)] = _field(
        "path", "where `/` is redirected to", ""
    )
    permanent_redirect: _Url = _field("address", "everything is redirected there, with 301")
    permanent_redirect_code: Annotated[int, _number(300, 308)] = _field("300 to 308", "instead of 301", 301)
    temporal_redirect: _Url = _field("address", "everything is redirected there, with 302")
    temporal_redirect_code: Annotated[int, _number(300, 308)] = _field("300 to 308", "instead of 302", 302)
    ssl_redirect: _Flag = _field(
        "flag", "whether HTTP is redirected to HTTPS where there is a certificate", default=True
    )
    force_ssl_redirect: _Flag = _field("flag", "and where there is none", default=False, restricts=True)
    server_alias: Annotated[tuple[str, ...], BeforeValidator(grammar.parse_hosts)] = _field(
        "hosts", "have the same paths", ()
    )

    proxy_body_size: _Size = _field("size", "largest body of a request; 0 is no limit", 1 << 20)
    proxy_connect_timeout: _Seconds = _field("seconds", "until an endpoint takes a connection", 5)
    proxy_send_timeout: _Seconds = _field("seconds", "between two parts of a request", 60)
    proxy_read_timeout: _Seconds = _field("seconds", "between two parts of an answer", 60)
    proxy_buffering: _Switch = _field("switch", "whether answers are gathered", default=False)
    proxy_request_buffering: _Switch = _field(
        "switch", "whether requests are gathered first; never those that may be larger than `64m`", default=True
    )
    proxy_next_upstream_tries: Annotated[int, _number(1, 10)] = _field(
        "1 to 10", "endpoints that are tried while none took the request", 3
    )

    enable_cors: _Flag = _field("flag", "scripts of other origins may ask", default=False)
    cors_allow_origin: Annotated[tuple[Origin, ...], BeforeValidator(grammar.parse_origins)] = _field(
        "origins or `*`", "whose scripts", ()
    )
    cors_allow_methods: Annotated[tuple[str, ...], BeforeValidator(grammar.parse_methods)] = _field(
        "methods", "by which methods", ("GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS")
    )
    cors_allow_headers: _Tokens = _field(
        "names",
        "with which headers",
        _CORS_HEADERS,
    )
    cors_expose_headers: _Tokens = _field("names", "which headers of the answer they see", ())
    cors_allow_credentials: _Flag = _field("flag", "whether cookies are sent along", default=True)
    cors_max_age: Annotated[int, _number(0, 86400)] = _field("0 to 86400", "seconds that this is remembered", 86400)

    certificate: Annotated[str, _choice("acme")] = _field(
        "`acme`", "its hosts get certificates from the issuer that whoever runs this has named", "", ours=True
    )

    whitelist_source_range: _Networks = _field("networks", "only clients there get in", (), restricts=True)
    denylist_source_range: _Networks = _field("networks", "clients there do not", (), restricts=True)
    limit_rps: Annotated[int, _number(1, 1000000)] = _field(
        "number", "requests a second of one client", 0, restricts=True
    )
    limit_rpm: Annotated[int, _number(1, 1000000)] = _field(
        "number", "requests a minute of one client", 0, restricts=True
    )
    limit_burst_multiplier: Annotated[int, _number(1, 1000)] = _field("number", "times the limit at once", 5)
    limit_connections: Annotated[int, _number(1, 65535)] = _field(
        "number", "connections of one client at once", 0, restricts=True
    )
    limit_whitelist: _Networks = _field("networks", "clients without these limits", ())

    backend_protocol: Annotated[str, _choice("HTTP", "HTTPS", "GRPC", "GRPCS")] = _field(
        "`HTTP`, `HTTPS`, `GRPC` or `GRPCS`", "what endpoints speak", "HTTP", restricts=True
    )
    upstream_vhost: Annotated[str, BeforeValidator(grammar.parse_plain_host)] = _field(
        "host", "what endpoints see as `Host`", ""
    )
    x_forwarded_prefix: Annotated[str, BeforeValidator(grammar.parse_reference)] = _field(
        "path", "the header `X-Forwarded-Prefix`", ""
    )
    proxy_ssl_secret: _Secret = _field(
        "name of a Secret", "whose `ca.crt` signs endpoints' certificates; of the same namespace", "", restricts=True
    )
    proxy_ssl_verify: _Switch = _field(
        "switch", "whether endpoints' certificates are verified", default=False, restricts=True
    )
    proxy_ssl_name: Annotated[str, BeforeValidator(grammar.parse_plain_host)] = _field(
        "host", "the name in them", "", restricts=True
    )

    affinity: Annotated[str, _choice("cookie")] = _field("`cookie`", "one client stays at one endpoint", "")
    session_cookie_name: _Cookie = _field("name", "of the cookie", "INGRESSCOOKIE")
    session_cookie_path: Annotated[str, BeforeValidator(grammar.parse_cookie_path)] = _field(
        "path", "of the cookie", "/"
    )
    session_cookie_max_age: _Seconds = _field("seconds", "how long it is kept; else with the browser", 0)
    session_cookie_samesite: Annotated[str, _choice("None", "Lax", "Strict")] = _field(
        "`None`, `Lax` or `Strict`", "of the cookie", ""
    )
    session_cookie_secure: _Flag = _field("flag", "even where the request was plain HTTP", default=False)

    canary: _Flag = _field("flag", "this Ingress takes a part of another one's requests", default=False, restricts=True)
    canary_by_header: Annotated[str, BeforeValidator(grammar.parse_token)] = _field(
        "name", "a header that decides: `always`, `never`", ""
    )
    canary_by_header_value: Annotated[str, BeforeValidator(grammar.parse_header_value)] = _field(
        "text", "what it has to be instead", ""
    )
    canary_by_cookie: _Cookie = _field("name", "a cookie that decides: `always`, `never`", "")
    canary_weight: Annotated[int, _number(0, 1000000)] = _field("number", "how many of `canary-weight-total`", 0)
    canary_weight_total: Annotated[int, _number(1, 1000000)] = _field("number", "of how many", 100)

    @property
    def gathers_requests(self) -> bool:
        """Say whether requests are gathered, on the proxy's disk, before they are sent on."""
        return self.proxy_request_buffering and 0 < self.proxy_body_size <= LARGEST_GATHERED

    @property
    def limits(self) -> int:
        """Return how many things of one client are limited; each takes shared memory of the proxy."""
        return sum(map(bool, (self.limit_rps, self.limit_rpm, self.limit_connections)))


@dataclass(frozen=True)
class Refusal:
    """An annotation that is not taken, why, and whether what it is on is closed therefore."""

    annotation: str
    why: str
    closes: bool

    def __str__(self) -> str:
        return f"{self.annotation}: {self.why}"


def read_annotations(annotations: Mapping[str, str]) -> tuple[Wishes, tuple[Refusal, ...]]:
    """Return what an object's annotations say, and those that are not taken."""
    written, refusals = _written(annotations)
    while True:
        try:
            wishes = Wishes.model_validate({name: text for name, (_, text) in written.items()})
        except ValidationError as error:
            for name, why in {str(entry["loc"][0]): entry["msg"] for entry in error.errors()}.items():
                annotation, _ = written.pop(name)
                refusals.append(Refusal(annotation, why.removeprefix("Value error, "), _restricts(name)))
        else:
            return wishes, tuple(sorted(refusals, key=lambda refusal: refusal.annotation))


def _written(annotations: Mapping[str, str]) -> tuple[dict[str, tuple[str, str]], list[Refusal]]:
    """Return the known annotations by their names, each with the one that it was written as."""
    found: dict[str, tuple[str, str]] = {}
    refusals = []
    for prefix in (OTHER_PREFIX, PREFIX):
        for annotation in sorted(name for name in annotations if name.startswith(prefix)):
            bare = annotation.removeprefix(prefix)
            name = _ALIASES.get(bare, bare)
            field = _FIELDS.get(name)
            if field is None or (field["ours"] and prefix == OTHER_PREFIX):
                # One of ours under the other prefix means what it says: whoever wrote it wants the path guarded.
                closes = (
                    bare in CLOSING
                    or (prefix == PREFIX and bare.startswith("auth"))
                    or (field is not None and _restricts(name))
                )
                refusals.append(Refusal(annotation, "it is not supported", closes))
            elif len(annotations[annotation]) > 16 * grammar.LONGEST:
                refusals.append(Refusal(annotation, "it is too long", _restricts(name)))
            else:
                found[name] = (annotation, annotations[annotation].strip())
    return found, refusals


def _restricts(name: str) -> bool:
    return bool(_FIELDS[name]["restricts"])


def _described() -> dict[str, dict[str, Any]]:
    described = {}
    for field, info in Wishes.model_fields.items():
        extra = info.json_schema_extra
        if not isinstance(extra, dict):
            raise TypeError(f"{field} is not described")
        described[_name(field)] = {**extra, "meaning": info.description, "default": info.default}
    return described


#: Every annotation: its form, meaning and default, whether it restricts, and whether it is ours alone.
_FIELDS: Final = _described()


def reference_rows() -> list[tuple[str, str, str, str]]:
    """Return each annotation's name, form, meaning and default, for the reference."""
    return [
        (
            f"`{name}`{' ¹' if field['ours'] else ''}{' ²' if field['restricts'] else ''}",
            field["form"],
            field["meaning"],
            _shown(field["default"]),
        )
        for name, field in _FIELDS.items()
    ]


def _shown(default: Any) -> str:
    if default is None or (default in ("", (), 0) and not isinstance(default, bool)):
        return ""
    if isinstance(default, bool):
        return "true" if default else "false"
    if isinstance(default, tuple):
        return ", ".join(f"`{entry}`" for entry in default)
    return f"`{default}`" if isinstance(default, str) else str(default)
