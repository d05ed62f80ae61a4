"""Which etcd member may be changed now, so that the others stay a majority. Pure.

A change of a StatefulSet's pod restarts its member. All that is rendered anew (certificates, authorities, images,
settings) therefore reaches one member that votes at a time, and only while all others that vote work as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

from haneul.dkos.etcd_members import TEMPLATE_ANNOTATION
from haneul.dkos.etcd_slots import Slot
from haneul.kernel.kube import Manifest


def next_changes(
    wanted: Mapping[int, Manifest], live: Mapping[int, Manifest], slots: Mapping[int, Slot]
) -> tuple[list[Manifest], bool]:
    """Return the sets to apply now, and whether something is left for later.

    ``wanted`` and ``live`` are StatefulSets by the number of their place. One that is not there, whose pod does not
    change, that has or gets no pod, or whose member does not vote, restarts nobody who is needed.
    """
    now: list[Manifest] = []
    waiting: list[int] = []
    for index, manifest in wanted.items():
        found = live.get(index)
        changes = found is not None and _template(found) != _template(manifest)
        rests = not manifest["spec"]["replicas"] or (found is not None and not found["spec"].get("replicas"))
        if changes and not rests and slots[index].published:
            waiting.append(index)
        else:
            now.append(manifest)
    others = {index for index, slot in slots.items() if slot.published}
    for index in waiting:
        if all(is_steady(live.get(other)) for other in others - {index}):
            now.append(wanted[index])
            return now, True
    return now, bool(waiting) or not all(is_steady(live.get(index)) for index in others)


def is_steady(found: Manifest | None) -> bool:
    """Say whether a set's pod is made as it says, and ready."""
    return is_made(found) and (found or {}).get("status", {}).get("readyReplicas", 0) == 1


def is_made(found: Manifest | None) -> bool:
    """Say whether a set's controller has made its pod as it says."""
    if found is None:
        return False
    status = found.get("status", {})
    return bool(
        status.get("observedGeneration") == found["metadata"]["generation"]
        and status.get("replicas", 0) == 1
        and status.get("updatedReplicas", 0) == 1
    )


def _template(workload: Manifest) -> str:
    return str((workload["metadata"].get("annotations") or {}).get(TEMPLATE_ANNOTATION, ""))
