"""Who may decide what, and what decisions amount to. Pure.

A way is open only by the word of a person who may approve, did not ask for it, and named exactly it:

=========================================================  ==========================================================
an approval of …                                           is …
=========================================================  ==========================================================
what no node needs now                                     refused: there is nothing to decide
another address or resource than the request's             refused: the approver looked at something else
a pool that nobody is known to have asked for              refused: whoever asked might be the approver
what the approver asked for, also by a robot of theirs     refused
what was asked by somebody who made a token of theirs,     refused: that person could act as both
or the other way round
what is approved already                                   refused: it stands
anything else                                              taken
=========================================================  ==========================================================

To deny and to revoke only takes away, so every approver may. An approval lapses as soon as nobody wants its way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from haneul.firewall.model import (
    Actor,
    Approval,
    Asker,
    Decision,
    DecisionKind,
    Resource,
    Rule,
    Site,
    SiteNode,
    State,
    WantedNode,
    Way,
    rule_of,
)
from haneul.kernel.errors import ConflictError, ForbiddenError, InvalidInputError

_STATES = {
    DecisionKind.APPROVED: State.APPROVED,
    DecisionKind.DENIED: State.DENIED,
    DecisionKind.REVOKED: State.REVOKED,
    DecisionKind.LAPSED: State.PENDING,
}


def state_of(latest: Decision | None) -> State:
    """Return how a way stands after the last decision on it."""
    return State.PENDING if latest is None else _STATES[latest.kind]


def check_named(way: Way, address: str, resource: str) -> None:
    """Raise InvalidInputError unless a decision names the address and the resource of the request, word for word."""
    if (address, resource) != (way.address, way.resource.name):
        raise InvalidInputError(
            f"request {way.id} is about {way.address} and {way.resource.name}, not about {address} and {resource}",
            hint="look at the request again: each decision is about one exact address and one resource",
        )


def check_approval(way: Way, asked: str, actor: Actor, askers: Sequence[Asker], latest: Decision | None) -> None:
    """Raise ForbiddenError or ConflictError if this actor's approval does not count; ``asked`` is the pool's digest."""
    if not any(asker.asked == asked and not asker.behind for asker in askers):
        raise ConflictError(
            f"nobody is known to have asked for pool {way.pool} of {way.cluster} as it is now",
            hint="let somebody change the pool through the platform's API, so that it is known who asks",
        )
    if any(asker.person == actor.person for asker in askers):
        raise ForbiddenError(
            f"{actor.person} asked for pool {way.pool} of {way.cluster}, or can act as who did",
            hint="another firewall approver decides on it",
        )
    if overlap := actor.behind & {asker.person for asker in askers if not asker.behind}:
        raise ForbiddenError(
            f"{', '.join(sorted(overlap))} asked for pool {way.pool} and made a token of {actor.person}",
            hint="another firewall approver decides on it",
        )
    if state_of(latest) is State.APPROVED:
        raise ConflictError(f"request {way.id} is approved already", hint="'haneul firewall history' shows by whom")


def check_revocation(way: Way, latest: Decision | None) -> None:
    """Raise ConflictError unless there is an approval to take back."""
    if state_of(latest) is not State.APPROVED:
        raise ConflictError(f"request {way.id} is not approved", hint="'haneul firewall list' shows how it stands")


def check_denial(way: Way, latest: Decision | None) -> None:
    """Raise ConflictError if the request is approved; an approval is revoked, not denied."""
    if state_of(latest) is State.APPROVED:
        raise ConflictError(f"request {way.id} is approved", hint=f"'haneul firewall revoke {way.id}' takes that back")


def lapsed(approved: Iterable[Decision], wanted: Sequence[WantedNode]) -> list[Decision]:
    """Return the approvals whose ways nobody wants any more.

    A node without an address is one whose address is not known just now: its approvals wait for it.
    """
    nodes = {(node.uid, node.pool, node.node): node for node in wanted}
    return [decision for decision in approved if not _wanted(decision.way, nodes)]


def _wanted(way: Way, nodes: Mapping[tuple[str, str, str], WantedNode]) -> bool:
    node = nodes.get((way.uid, way.pool, way.node))
    return (
        node is not None
        and node.address in ("", way.address)
        and any(resource.digest == way.resource.digest for resource in node.resources)
    )


def missing(site: Site, node: SiteNode, approvals: Iterable[Approval]) -> list[Resource]:
    """Return what a node may not reach yet; all of it while its address is not known."""
    approved = {approval.way.id for approval in approvals}
    if not node.address:
        return list(node.resources)
    return [way.resource for way in site.ways(node) if way.id not in approved]


def open_rules(site: Site, approvals: Sequence[Approval]) -> tuple[frozenset[Rule], frozenset[str]]:
    """Return what a firewall lets through, and for which addresses it keeps what it has.

    A node's ways open when all of them are approved, so that none is open to one that waits. A node that has joined
    and is to leave keeps its ways until its pods have moved.
    """
    rules: set[Rule] = set()
    leaving: set[str] = set()
    for node in site.nodes:
        if node.resources and not missing(site, node, approvals):
            rules |= {rule_of(way) for way in site.ways(node)}
        elif node.joined and node.address:
            leaving.add(node.address)
    return frozenset(rules), frozenset(leaving)
