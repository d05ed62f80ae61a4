"""What people do at the firewall gate: see requests, decide on each, read what was decided.

SQL is the truth; what is published for the operator follows it. A decision is written first and published then; were
this process killed between the two, the next one publishes what the record says (:meth:`FirewallService.run`). There is
no method that decides on more than one way, and none that a program calls by itself to approve anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from haneul.firewall.decisions import (
    check_approval,
    check_denial,
    check_named,
    check_revocation,
    lapsed,
    state_of,
)
from haneul.firewall.model import (
    PLATFORM,
    Actor,
    Approval,
    Asker,
    Decision,
    DecisionKind,
    FirewallRequest,
    State,
    WantedNode,
    Way,
)
from haneul.firewall.ports import ApprovalBoard, WantedNodes
from haneul.firewall.record import Check, FirewallRecord
from haneul.kernel.errors import HaneulError, InvalidInputError, NotFoundError, UnavailableError

_log = structlog.get_logger(__name__)
_SETTLE_SECONDS: Final = 10.0


class FirewallService:
    """The requests of all projects."""

    def __init__(self, record: FirewallRecord, *, board: ApprovalBoard, wanted: WantedNodes) -> None:
        self._record = record
        self._board = board
        self._wanted = wanted
        # What is published is worked out and written by one at a time, so that an older view never comes last.
        self._publishing = asyncio.Lock()

    async def requests(self, projects: Sequence[str] | None) -> list[FirewallRequest]:
        """Return what the gated nodes of some projects, or of all, need now, and how each stands.

        Also what is approved of nodes whose address is not known just now, so that it can be revoked.
        """
        latest = await self._record.latest()
        found = []
        for node in await self._nodes(projects):
            askers = await self._record.askers(node.project)
            asked = [one for one in askers.get((node.cluster, node.pool), []) if not one.behind]
            people = tuple(dict.fromkeys(one.person for one in asked))
            found += [_request(way, latest.get(way.id), people) for way in node.ways]
        shown = {request.id for request in found}
        for identity, decision in latest.items():
            seen = projects is None or decision.way.project in projects
            if seen and decision.kind is DecisionKind.APPROVED and identity not in shown:
                found.append(_request(decision.way, decision, ()))
        return sorted(found, key=lambda one: (one.way.project, one.way.cluster, one.way.node, one.way.resource.name))

    async def request(self, identity: str, projects: Sequence[str] | None) -> FirewallRequest:
        """Return one request. Raises NotFoundError."""
        for request in await self.requests(projects):
            if request.id == identity:
                return request
        raise _unknown(identity)

    async def approve(self, actor: Actor, identity: str, *, address: str, resource: str, why: str) -> FirewallRequest:
        """Let one node at one address reach one resource."""
        node, way = await self._find(identity)

        def check(askers: Sequence[Asker], latest: Decision | None) -> None:
            check_approval(way, node.asked, actor, askers, latest)

        return await self._decide(DecisionKind.APPROVED, way, actor, address, resource, why, check)

    async def deny(self, actor: Actor, identity: str, *, address: str, resource: str, why: str) -> FirewallRequest:
        """Say no to a request; it may still be approved later."""
        _, way = await self._find(identity)
        return await self._decide(
            DecisionKind.DENIED, way, actor, address, resource, why, lambda _, latest: check_denial(way, latest)
        )

    async def revoke(self, actor: Actor, identity: str, *, address: str, resource: str, why: str) -> FirewallRequest:
        """Take an approval back; the node is emptied and taken out."""
        way = (await self.request(identity, None)).way
        return await self._decide(
            DecisionKind.REVOKED, way, actor, address, resource, why, lambda _, latest: check_revocation(way, latest)
        )

    async def history(self, projects: Sequence[str] | None, *, before: int | None, limit: int) -> list[Decision]:
        """Return all decisions there ever were, newest first."""
        return await self._record.history(projects, before=before, limit=limit)

    async def settle(self) -> None:
        """Let approvals lapse whose ways nobody wants, and publish exactly those that stand."""
        async with self._publishing:
            latest = await self._record.latest()
            published = {approval.way.id: approval for approval in await self._board.published()}
            approved = {one.way_id: one for one in latest.values() if one.kind is DecisionKind.APPROVED}
            if approved:
                for decision in lapsed(approved.values(), await self._wanted.all()):
                    await self._lapse(decision)
                    del approved[decision.way_id]
            for identity, approval in published.items():
                if identity not in approved or approval != _approval(approved[identity]):
                    await self._board.withdraw(approval)
            for identity, decision in approved.items():
                if published.get(identity) != _approval(decision):
                    await self._board.publish(_approval(decision))

    async def run(self) -> None:
        """Keep what is published as the record says, until cancelled."""
        while True:
            try:
                await self.settle()
            except Exception:
                # Whatever it was, the API goes on to serve, and what is not published lets nobody in.
                _log.exception("approvals not published")
            await asyncio.sleep(_SETTLE_SECONDS)

    async def _nodes(self, projects: Sequence[str] | None) -> list[WantedNode]:
        return [node for node in await self._wanted.all() if projects is None or node.project in projects]

    async def _find(self, identity: str) -> tuple[WantedNode, Way]:
        for node in await self._wanted.all():
            for way in node.ways:
                if way.id == identity:
                    return node, way
        raise _unknown(identity)

    async def _decide(
        self, kind: DecisionKind, way: Way, actor: Actor, address: str, resource: str, why: str, check: Check
    ) -> FirewallRequest:
        check_named(way, address, resource)
        if not why.strip():
            raise InvalidInputError("a decision needs a reason", hint="say why; it is kept for good")
        decision = await self._record.decide(kind, way, actor, why.strip(), check)
        _log.info("firewall decision", kind=kind.value, way=way.shown, person=actor.person)
        try:
            await self.settle()
        except HaneulError as error:
            raise UnavailableError(
                f"it is written down, and takes effect as soon as the management cluster answers: {error.detail}",
                hint=f"'haneul firewall list' shows request {way.id} as it stands",
            ) from error
        return _request(way, decision, ())

    async def _lapse(self, decision: Decision) -> None:
        def check(_: Sequence[Asker], latest: Decision | None) -> None:
            if latest is None or latest.number != decision.number:
                raise InvalidInputError("somebody else decided meanwhile")

        why = "its node, address or resource is not wanted any more"
        await self._record.decide(DecisionKind.LAPSED, decision.way, Actor(person=PLATFORM), why, check)


def _unknown(identity: str) -> NotFoundError:
    return NotFoundError(
        f"no node needs what request {identity!r} is about", hint="'haneul firewall list' shows the requests there are"
    )


def _request(way: Way, latest: Decision | None, askers: tuple[str, ...]) -> FirewallRequest:
    state = state_of(latest)
    if latest is None or state is State.PENDING:
        return FirewallRequest(id=way.id, state=state, way=way, askers=askers)
    return FirewallRequest(
        id=way.id,
        state=state,
        way=way,
        askers=askers,
        decided_by=latest.person,
        decided=latest.moment,
        why=latest.why,
    )


def _approval(decision: Decision) -> Approval:
    return Approval(way=decision.way, approver=decision.person, decision=decision.number, moment=decision.moment)
