"""Objects of the Gateway API, as a cluster's API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from haneul.ingress.claims import CONTROLLER
from haneul.kernel.kube import GATEWAY_CLASSES, GATEWAYS, HTTP_ROUTES, REFERENCE_GRANTS, Manifest

ADMIN = "shop"


def _metadata(name: str, namespace: str, age: int) -> Manifest:
    moment = f"2026-11-27T00:00:{age:02}Z"
    return {"name": name, "namespace": namespace, "uid": f"uid-{name}", "generation": 1, "creationTimestamp": moment}


def gateway_class(name: str = "haneul", controller: str = CONTROLLER, **spec: Any) -> Manifest:
    metadata = {"name": name, "generation": 1}
    spec = {"controllerName": controller, **spec}
    return {"apiVersion": GATEWAY_CLASSES.api_version, "kind": "GatewayClass", "metadata": metadata, "spec": spec}


def listener(
    name: str = "http", host: str = "", *, secret: str = "", secret_namespace: str = "", **more: Any
) -> Manifest:
    """Return a listener for plain HTTP, or with a Secret one for HTTPS."""
    made: Manifest = {"name": name, "port": 80, "protocol": "HTTP"}
    if secret:
        reference = {"name": secret, **({"namespace": secret_namespace} if secret_namespace else {})}
        made |= {"port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [reference]}}
    if host:
        made["hostname"] = host
    return {**made, **more}


def from_all() -> Manifest:
    return {"namespaces": {"from": "All"}}


def gateway(
    name: str = "web",
    *listeners: Manifest,
    namespace: str = ADMIN,
    class_name: str = "haneul",
    age: int = 0,
    **spec: Any,
) -> Manifest:
    spec = {"gatewayClassName": class_name, "listeners": list(listeners or (listener(),)), **spec}
    metadata = _metadata(name, namespace, age)
    return {"apiVersion": GATEWAYS.api_version, "kind": "Gateway", "metadata": metadata, "spec": spec}


def match(path: str = "", kind: str = "PathPrefix", method: str = "", **more: dict[str, str]) -> Manifest:
    """Return a match; ``headers`` and ``queries`` are names and values."""
    made: Manifest = {}
    if path:
        made["path"] = {"type": kind, "value": path}
    if method:
        made["method"] = method
    for field, name in (("headers", "headers"), ("queries", "queryParams")):
        if field in more:
            made[name] = [{"name": key, "value": value} for key, value in more[field].items()]
    return made


def backend(name: str = "web", port: int = 80, **more: Any) -> Manifest:
    return {"name": name, "port": port, **more}


def rule(*matches: Manifest, to: Sequence[Manifest | str] = ("web",), filters: Sequence[Manifest] = ()) -> Manifest:
    made: Manifest = {"backendRefs": [backend(one) if isinstance(one, str) else one for one in to]}
    if matches:
        made["matches"] = list(matches)
    if filters:
        made["filters"] = list(filters)
    return made


def http_route(
    name: str = "web",
    *rules: Manifest,
    hosts: Sequence[str] = (),
    namespace: str = "shop",
    parents: Sequence[Manifest] | None = None,
    age: int = 0,
) -> Manifest:
    spec: Manifest = {"rules": list(rules or (rule(),)), "parentRefs": list(parents or ({"name": "web"},))}
    if hosts:
        spec["hostnames"] = list(hosts)
    metadata = _metadata(name, namespace, age)
    return {"apiVersion": HTTP_ROUTES.api_version, "kind": "HTTPRoute", "metadata": metadata, "spec": spec}


def grant(kind: str, group: str, namespace: str, *, to: str, name: str = "", target: str = "", into: str) -> Manifest:
    """Return a grant in namespace ``into``: objects of a kind and namespace may name objects of kind ``to`` there."""
    source = {"group": group, "kind": kind, "namespace": namespace}
    wanted = {"group": "", "kind": to, **({"name": target} if target else {})}
    metadata = {"name": name or f"from-{namespace}", "namespace": into}
    spec = {"from": [source], "to": [wanted]}
    return {"apiVersion": REFERENCE_GRANTS.api_version, "kind": "ReferenceGrant", "metadata": metadata, "spec": spec}


def redirect(**fields: Any) -> Manifest:
    return {"type": "RequestRedirect", "requestRedirect": fields}


def rewrite(**fields: Any) -> Manifest:
    return {"type": "URLRewrite", "urlRewrite": fields}


def full_path(text: str) -> Manifest:
    return {"type": "ReplaceFullPath", "replaceFullPath": text}


def prefix(text: str) -> Manifest:
    return {"type": "ReplacePrefixMatch", "replacePrefixMatch": text}


def request_headers(**changes: Any) -> Manifest:
    return {"type": "RequestHeaderModifier", "requestHeaderModifier": _changes(changes)}


def answer_headers(**changes: Any) -> Manifest:
    return {"type": "ResponseHeaderModifier", "responseHeaderModifier": _changes(changes)}


def _changes(changes: dict[str, Any]) -> Manifest:
    return {
        kind: [{"name": name, "value": value} for name, value in entries.items()]
        if isinstance(entries, dict)
        else entries
        for kind, entries in changes.items()
    }
