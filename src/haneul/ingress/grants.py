"""Whether an object may refer to one of another namespace: what ReferenceGrants there say. Pure.

Source: Gateway API, ``ReferenceGrant``; a reference within a namespace needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from haneul.ingress.observed import Observed
from haneul.kernel.kube import REFERENCE_GRANTS, Resource
from haneul.kernel.kube_objects import Place


def is_granted(observed: Observed, asker: Resource, namespace: str, wanted: Place, kind: Resource) -> bool:
    """Say whether objects of a kind ``asker`` in a namespace may refer to ``wanted``, which is of a ``kind``."""
    if namespace == wanted.namespace:
        return True
    grants = (one for one in observed.all(REFERENCE_GRANTS) if one["metadata"]["namespace"] == wanted.namespace)
    return any(_grants(grant.get("spec") or {}, asker, namespace, wanted, kind) for grant in grants)


def _grants(spec: Mapping[str, Any], asker: Resource, namespace: str, wanted: Place, kind: Resource) -> bool:
    source = (asker.group, asker.kind, namespace)
    if all((one.get("group"), one.get("kind"), one.get("namespace")) != source for one in spec.get("from") or []):
        return False
    return any(
        (one.get("group") or "", one.get("kind")) == (kind.group, kind.kind) and one.get("name") in (None, wanted.name)
        for one in spec.get("to") or []
    )
