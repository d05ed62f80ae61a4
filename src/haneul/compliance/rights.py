"""Who has a right in the whole cluster, from its roles and bindings. Pure.

See Kubernetes documentation "Using RBAC Authorization". Rights within one namespace are not counted: they are what
namespaces are for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from haneul.compliance.snapshot import Snapshot

#: Groups and users behind which anybody may be.
ANYBODY: Final = ("system:authenticated", "system:unauthenticated", "system:anonymous", "system:serviceaccounts")
_BUILT_IN: Final = "kubernetes.io/bootstrapping"


@dataclass(frozen=True)
class Right:
    """Verbs on a resource; any one of the verbs is the right."""

    verbs: Sequence[str]
    group: str
    resource: str


def holders(snapshot: Snapshot, rights: Sequence[Right]) -> set[str]:
    """Return the subjects that have any of the rights in the whole cluster."""
    roles = {role["metadata"]["name"]: role.get("rules") or [] for role in snapshot.all_of("clusterroles")}
    return {
        subject_name(subject)
        for binding in snapshot.all_of("clusterrolebindings")
        if any(_gives(roles.get(binding["roleRef"]["name"], []), right) for right in rights)
        for subject in binding.get("subjects") or []
    }


def subject_name(subject: Mapping[str, Any]) -> str:
    """Return a subject's name; an account's with its namespace."""
    if subject["kind"] == "ServiceAccount":
        return f"{subject.get('namespace', '')}/{subject['name']}"
    return str(subject["name"])


def anybody(names: Iterable[str]) -> list[str]:
    """Return those names behind which anybody may be."""
    return [name for name in names if name in ANYBODY]


def own_roles(snapshot: Snapshot) -> list[Mapping[str, Any]]:
    """Return the roles that Kubernetes does not bring itself."""
    found = [*snapshot.all_of("clusterroles"), *snapshot.all_of("roles")]
    return [role for role in found if _BUILT_IN not in (role["metadata"].get("labels") or {})]


def _gives(rules: Sequence[Mapping[str, Any]], right: Right) -> bool:
    _, _, part = right.resource.partition("/")
    resources = {"*", right.resource, *({f"*/{part}"} if part else ())}
    return any(
        not rule.get("resourceNames")
        and {"*", right.group} & set(rule.get("apiGroups") or [])
        and resources & set(rule.get("resources") or [])
        and {"*", *right.verbs} & set(rule.get("verbs") or [])
        for rule in rules
    )
