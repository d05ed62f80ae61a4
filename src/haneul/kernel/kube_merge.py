"""How the Kubernetes API merges what it is sent into what it has. Pure.

Neighbours: :mod:`haneul.kernel.kube_memory` keeps the objects. Server-side apply is modelled for one field manager:
fields that it named before and names no more are taken away, all others stay (Kubernetes documentation "Server-Side
Apply", section "Merge strategy"). Which lists are maps is told here by their items, since there is no schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: Fields by which the items of a list are told apart, tried in this order.
_ITEM_KEYS: Final = ("name", "type", "mountPath", "port", "uid")


def merge_patch(target: Any, patch: Any) -> Any:
    """Return ``target`` with a JSON merge patch put in (RFC 7396 section 2)."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def merge_applied(live: Any, wanted: Any, before: Any) -> Any:
    """Return ``live`` with ``wanted`` applied by a manager that applied ``before`` the last time; None is nothing."""
    if isinstance(wanted, Mapping):
        return _merge_mappings(_mapping(live), wanted, _mapping(before))
    if isinstance(wanted, list) and (key := _item_key(wanted, live)):
        merged = _merge_mappings(_by(key, live), _by(key, wanted), _by(key, before))
        return list(merged.values())
    return wanted


def matches(labels: Mapping[str, str], selector: str) -> bool:
    """Say whether ``labels`` match a selector of ``key=value``, ``key!=value``, ``key`` and ``!key`` terms.

    Raises ValueError for set-based terms, which nothing here uses.
    """
    for term in filter(None, (part.strip() for part in selector.split(","))):
        if any(sign in term for sign in "() "):
            raise ValueError(f"the label selector term {term!r} is not understood")
        if "!=" in term:
            key, _, value = term.partition("!=")
            matched = labels.get(key) != value
        elif "=" in term:
            key, _, value = term.partition("=")
            matched = labels.get(key) == value.removeprefix("=")
        else:
            matched = term.removeprefix("!") in labels
            matched = not matched if term.startswith("!") else matched
        if not matched:
            return False
    return True


def has_fields(manifest: Mapping[str, Any], selector: str) -> bool:
    """Say whether a manifest matches a field selector of ``path=value`` terms (``spec.nodeName=default-0``)."""
    for term in filter(None, selector.split(",")):
        path, _, wanted = term.partition("=")
        value: Any = manifest
        for step in path.split("."):
            value = _mapping(value).get(step)
        if value != wanted:
            return False
    return True


def _merge_mappings(live: Mapping[str, Any], wanted: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(live)
    for key, value in before.items():
        if key not in wanted and key in result:
            rest = _without(result[key], value)
            result[key] = rest
            if not rest:
                del result[key]
    for key, value in wanted.items():
        result[key] = merge_applied(result.get(key), value, before.get(key))
    return result


def _without(live: Any, owned: Any) -> Any:
    """Return what is left of ``live`` when the fields of ``owned`` go: what others put beside them."""
    if isinstance(live, Mapping) and isinstance(owned, Mapping):
        return _merge_mappings(live, {}, owned)
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _item_key(*lists: Any) -> str:
    """Return the field that tells apart the items of all the lists; nothing if they are plain lists."""
    items = [item for entries in lists if isinstance(entries, list) for item in entries]
    if not items or not all(isinstance(item, Mapping) for item in items):
        return ""
    return next((key for key in _ITEM_KEYS if all(key in item for item in items)), "")


def _by(key: str, items: Any) -> dict[str, Any]:
    return {str(item[key]): item for item in items if key in item} if isinstance(items, list) else {}
