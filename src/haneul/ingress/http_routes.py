"""One HTTPRoute, read: what its rules match and what they do, as values of the route model. Pure.

A rule whose matches cannot be compared is left out; one whose filters cannot be done answers 503 instead, as the
specification wants an error where a filter would be skipped. Both are told. A backend that there is not answers 500 for
its part of the requests, and so does a rule without any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from haneul.ingress import grammar
from haneul.ingress.annotations import Wishes
from haneul.ingress.claims import Age, age
from haneul.ingress.endpoints import port_of
from haneul.ingress.grants import is_granted
from haneul.ingress.model import Backend, Location, Problem, Reason
from haneul.ingress.observed import Observed
from haneul.ingress.paths import parse_rule_path
from haneul.ingress.rules import Conditions, HeaderChanges, PathChange, Redirect, Rule, Share
from haneul.ingress.states import Condition
from haneul.kernel.kube import HTTP_ROUTES, SERVICES, Manifest
from haneul.kernel.kube_objects import Place, place_of

#: A route has no annotations: bodies have no limit and are passed on as they come.
_WISHES: Final = Wishes().model_copy(
    update={"ssl_redirect": False, "proxy_body_size": 0, "proxy_request_buffering": False}
)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
#: Fields that would change what is answered, and that nothing here does.
_LEFT_OUT: Final = ("timeouts", "retry", "sessionPersistence")


class UnsupportedError(ValueError):
    """A rule asks for what cannot be done."""


class _UnresolvedError(ValueError):
    """A backend is none; ``reason`` is the specification's."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason


@dataclass(frozen=True)
class Route:
    """An HTTPRoute; ``hosts`` are those that it names, and none if it names none."""

    place: Place
    manifest: Manifest
    born: Age
    hosts: tuple[str, ...]
    #: In the order of precedence for one path and the same conditions.
    locations: tuple[Location, ...]
    resolved: Condition
    #: What is wrong with rules, and whether no rule is left.
    broken: tuple[str, ...]
    is_useless: bool
    problems: tuple[Problem, ...]


def read_route(manifest: Manifest, observed: Observed, *, closed: str = "") -> Route:
    """Return what an HTTPRoute says; ``closed`` is why none of it may be done."""
    reader = _Reader(manifest, observed, closed)
    rules = manifest.get("spec", {}).get("rules") or [{}]
    hosts = tuple(reader.hosts())
    locations = tuple(location for number, rule in enumerate(rules) for location in reader.rule(number, rule))
    return Route(
        reader.place,
        manifest,
        age(manifest),
        hosts,
        locations,
        reader.resolved,
        tuple(reader.broken),
        is_useless=not any(not location.closed for location in locations) or not (hosts or not _named(manifest)),
        problems=tuple(reader.problems),
    )


def _named(manifest: Manifest) -> list[str]:
    return manifest.get("spec", {}).get("hostnames") or []


class _Reader:
    def __init__(self, manifest: Manifest, observed: Observed, closed: str) -> None:
        self.place = place_of(HTTP_ROUTES, manifest)
        self._manifest = manifest
        self._observed = observed
        self._closed = closed
        self.resolved = Condition("ResolvedRefs", holds=True, reason="ResolvedRefs")
        self.broken: list[str] = []
        self.problems: list[Problem] = []

    def hosts(self) -> Iterator[str]:
        for text in _named(self._manifest):
            try:
                yield grammar.parse_host(text)
            except ValueError as error:
                self._tell(Reason.HOST_REFUSED, f"{text[:100]!r}: {error}")

    def rule(self, number: int, rule: Mapping[str, Any]) -> Iterator[Location]:
        """Yield a location for each match of a rule."""
        for field in _LEFT_OUT:
            if rule.get(field):
                self._tell(Reason.FIELD_REFUSED, f"rule {number}: {field} is not supported; it is left out")
        shares = self._shares(number, rule.get("backendRefs") or [])
        for match in rule.get("matches") or [{}]:
            try:
                path, conditions = _match(match)
            except ValueError as error:
                self._break(number, f"{error}; it is left out")
                continue
            closed = self._closed
            made = None
            try:
                made, host = _made(f"{self.place} {number}", rule.get("filters") or [], path.text)
            except UnsupportedError as error:
                self._break(number, f"{error}; it is closed until then")
                closed, host = closed or str(error), ""
            if made and not made.redirect:
                made = replace(made, shares=shares)
            wishes = _WISHES.model_copy(update={"upstream_vhost": host})
            yield Location(path, self.place, wishes, closed=closed, conditions=conditions, rule=made)

    def _shares(self, number: int, references: Sequence[Mapping[str, Any]]) -> tuple[Share, ...]:
        found = []
        for reference in references:
            backend = None
            if reference.get("filters"):
                # Nobody gets what would not be as it was meant.
                self._break(number, "filters of a backendRef are not supported; it answers 500")
            else:
                try:
                    backend = self._backend(reference)
                except _UnresolvedError as error:
                    if self.resolved.holds:
                        told = str(error)
                        self.resolved = Condition("ResolvedRefs", holds=False, reason=error.reason, message=told)
                    self._tell(Reason.BACKEND_MISSING, str(error))
            found.append(Share(backend, reference.get("weight", 1)))
        return tuple(share for share in found if share.weight > 0)

    def _backend(self, reference: Mapping[str, Any]) -> Backend:
        namespace, name = reference.get("namespace") or self.place.namespace, reference.get("name", "")
        if (reference.get("group") or "", reference.get("kind") or SERVICES.kind) != ("", SERVICES.kind):
            raise _UnresolvedError("InvalidKind", f"{reference.get('kind')} {name}: only a Service can be a backend")
        service = Place(SERVICES.kind, namespace, name)
        if not is_granted(self._observed, HTTP_ROUTES, self.place.namespace, service, SERVICES):
            why = f"Service {service}: no ReferenceGrant there lets this route use it"
            raise _UnresolvedError("RefNotPermitted", why)
        found = self._observed.get(SERVICES, namespace, name)
        if found is None:
            raise _UnresolvedError("BackendNotFound", f"there is no Service {service}")
        if (found.get("spec") or {}).get("type") == "ExternalName":
            why = f"the Service {service} has no endpoints: it is of type ExternalName"
            raise _UnresolvedError("BackendNotFound", why)
        port = port_of(found, {"number": reference.get("port")})
        if port is None:
            raise _UnresolvedError("BackendNotFound", f"the Service {service} has no port {reference.get('port')}")
        return Backend(namespace, name, port)

    def _break(self, number: int, why: str) -> None:
        self.broken.append(f"rule {number}: {why}")
        self._tell(Reason.FIELD_REFUSED, f"rule {number}: {why}")

    def _tell(self, reason: Reason, message: str) -> None:
        problem = Problem(self.place, reason, message)
        if problem not in self.problems:
            self.problems.append(problem)


def _match(match: Mapping[str, Any]) -> tuple[Any, Conditions]:
    """Return the path of a match, and what else it asks for. Raises ValueError."""
    wanted = match.get("path") or {}
    kinds = {"Exact": "Exact", "PathPrefix": "Prefix"}
    kind, text = wanted.get("type") or "PathPrefix", wanted.get("value") or "/"
    if kind not in kinds:
        raise UnsupportedError(f"a path of type {kind} is not supported")
    try:
        path = parse_rule_path(text, kinds[kind], expressions=False)
    except ValueError as error:
        raise ValueError(f"path {text[:100]!r}: {error}") from error
    method = match.get("method") or ""
    if method and method not in _METHODS:
        raise UnsupportedError(f"there is no method {method!r}")
    headers = _pairs(match.get("headers") or [], "header", grammar.parse_field_name)
    return path, Conditions(method, headers, _pairs(match.get("queryParams") or [], "query parameter", str))


def _pairs(entries: Sequence[Mapping[str, Any]], what: str, named: Any) -> tuple[tuple[str, str], ...]:
    """Return names and values; of several with one name the first counts."""
    found: dict[str, str] = {}
    for entry in entries:
        name = entry.get("name", "")
        if (entry.get("type") or "Exact") != "Exact":
            raise UnsupportedError(f"{what} {name[:100]}: the type {entry['type']} is not supported")
        try:
            found.setdefault(named(name), grammar.parse_field_value(entry.get("value", "")))
        except ValueError as error:
            raise ValueError(f"{what} {name[:100]!r}: {error}") from error
    return tuple(found.items())


def _made(place: str, filters: Sequence[Mapping[str, Any]], prefix: str) -> tuple[Rule, str]:
    """Return what filters make of a rule, and the host that endpoints see. Raises UnsupportedError."""
    rule, host = Rule(place), ""
    for entry in filters:
        kind = entry.get("type", "")
        try:
            match kind:
                case "RequestHeaderModifier":
                    rule = replace(rule, request=_changes(entry.get("requestHeaderModifier") or {}))
                case "ResponseHeaderModifier":
                    rule = replace(rule, answer=_changes(entry.get("responseHeaderModifier") or {}))
                case "RequestRedirect":
                    rule = replace(rule, redirect=_redirect(entry.get("requestRedirect") or {}, prefix))
                case "URLRewrite":
                    wanted = entry.get("urlRewrite") or {}
                    host = grammar.parse_plain_host(wanted["hostname"]) if wanted.get("hostname") else ""
                    rule = replace(rule, path=_path_change(wanted.get("path"), prefix))
                case _:
                    raise UnsupportedError(f"the filter {kind} is not supported")
        except UnsupportedError:
            raise
        except ValueError as error:
            raise UnsupportedError(f"the filter {kind}: {error}") from error
    if rule.redirect and (rule.path or host):
        raise UnsupportedError("RequestRedirect and URLRewrite do not go together")
    return rule, host


def _changes(wanted: Mapping[str, Any]) -> HeaderChanges:
    return HeaderChanges(
        _fields(wanted.get("set") or []),
        _fields(wanted.get("add") or []),
        tuple(dict.fromkeys(grammar.parse_changed(name) for name in wanted.get("remove") or [])),
    )


def _fields(entries: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for entry in entries:
        found.setdefault(
            grammar.parse_changed(entry.get("name", "")), grammar.parse_field_value(entry.get("value", ""))
        )
    return tuple(found.items())


def _redirect(wanted: Mapping[str, Any], prefix: str) -> Redirect:
    status, scheme = wanted.get("statusCode") or 302, wanted.get("scheme") or ""
    if status not in _REDIRECTS or scheme not in ("", "http", "https"):
        raise ValueError(f"it answers {status} with the scheme {scheme or 'of the request'}, which is not supported")
    host = grammar.parse_plain_host(wanted["hostname"]) if wanted.get("hostname") else ""
    return Redirect(status, scheme, host, wanted.get("port") or 0, _path_change(wanted.get("path"), prefix))


def _path_change(wanted: Mapping[str, Any] | None, prefix: str) -> PathChange | None:
    if not wanted:
        return None
    match wanted.get("type"):
        case "ReplaceFullPath":
            return PathChange(grammar.parse_path(wanted.get("replaceFullPath") or "/"))
        case "ReplacePrefixMatch":
            to = grammar.parse_path(wanted.get("replacePrefixMatch") or "/")
            return PathChange(to.rstrip("/"), prefix.rstrip("/"))
        case kind:
            raise ValueError(f"a change of the path of type {kind} is not supported")
