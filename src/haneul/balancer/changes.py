"""What has to change in a balancer, decided purely from what is wanted and what is there.

===========  =========  ===================================================================
wanted       there      then
===========  =========  ===================================================================
no           ours       it goes
no           another's  it stays
yes          nothing    it comes
yes          ours       it is replaced, if anything differs
yes          another's  never: an address that is another's is given to nobody (allocation)
===========  =========  ===================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from haneul.balancer.model import Change, Frontend, Frontends, FrontendsChangedError, Listener, Present


def plan(wanted: Mapping[Listener, Frontend], present: Frontends, owner: str) -> list[Change]:
    """Compare what ``owner`` wants with what is there."""
    ours = {listener: there.frontend for listener, there in present.items() if there.owner == owner}
    going = [Change(frontend, None) for listener, frontend in sorted(ours.items()) if listener not in wanted]
    coming = [
        Change(ours.get(listener), frontend)
        for listener, frontend in sorted(wanted.items())
        if ours.get(listener) != frontend
    ]
    return [*going, *coming]


def carried_out(present: Frontends, owner: str, changes: Sequence[Change]) -> dict[Listener, Present]:
    """Return what is there after all changes; they do not have to be in order. Raises FrontendsChangedError."""
    result = dict(present)
    for change in changes:
        there = result.pop(change.listener, None)
        if there != (Present(change.before, owner) if change.before else None):
            raise FrontendsChangedError(f"{change.listener} is not as it was")
    for change in changes:
        if change.after is None:
            continue
        address = change.listener.address
        if any(there.owner != owner for listener, there in result.items() if listener.address == address):
            raise FrontendsChangedError(f"{address} is somebody else's")
        result[change.listener] = Present(change.after, owner)
    return result
