"""What an audit policy writes down of a request: its rules in order, the first that matches decides. Pure.

See Kubernetes documentation "Auditing" and the API ``audit.k8s.io/v1``, kind ``Policy``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

LEVELS: Final = ("None", "Metadata", "Request", "RequestResponse")


@dataclass(frozen=True)
class AuditedRequest:
    """A request of a person whom no rule names."""

    verb: str
    group: str
    resource: str


def level(policy: Mapping[str, Any], request: AuditedRequest) -> str:
    """Return the level at which a request is written down."""
    for rule in policy.get("rules") or []:
        if _matches(rule, request):
            return str(rule["level"])
    return "None"


def _matches(rule: Mapping[str, Any], request: AuditedRequest) -> bool:
    if rule.get("users") or rule.get("userGroups") or rule.get("namespaces"):
        # It is about others, or only a part of the cluster.
        return False
    if rule.get("verbs") and request.verb not in rule["verbs"]:
        return False
    if rule.get("resources"):
        return any(_named(entry, request) for entry in rule["resources"])
    return not rule.get("nonResourceURLs")


def _named(entry: Mapping[str, Any], request: AuditedRequest) -> bool:
    if entry.get("group", "") != request.group or entry.get("resourceNames"):
        return False
    wanted = entry.get("resources") or []
    whole, _, part = request.resource.partition("/")
    accepted = {request.resource, "*", *({f"{whole}/*", f"*/{part}"} if part else ())}
    return not wanted or bool(accepted & set(wanted))
