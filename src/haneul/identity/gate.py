"""The gate of the REST API: who calls, what they may, and the record of changes and refusals.

Routers of every product depend on it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from fastapi import Request

from haneul.identity.audit import ASKED, AuditLog
from haneul.identity.callers import Callers
from haneul.identity.model import Caller, Origin, Role
from haneul.identity.rights import PlatformRight, demand, demand_a_person, may
from haneul.identity.service import Identity
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ForbiddenError, HaneulError, UnauthenticatedError

_CHANGES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_PREFIX: Final = "/api/v1"
#: From this HTTP status on it is not the request that was wrong (RFC 9110, section 15.6).
_FAILURES: Final = 500


class Gate:
    """Signs callers in and records what they change, and what they are refused."""

    def __init__(self, callers: Callers, identity: Identity, *, audit: AuditLog, clock: Clock) -> None:
        self._callers = callers
        self._identity = identity
        self._audit = audit
        self._clock = clock

    async def caller(self, request: Request) -> Caller:
        """Return who is behind the request. Raises UnauthenticatedError."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthenticatedError("the request carries no token", hint="run 'haneul login'")
        caller = await self._callers.authenticate(token)
        request.state.caller = caller
        return caller

    def now(self) -> datetime:
        """Return the moment that changes are recorded with."""
        return self._clock.now()

    async def require(self, caller: Caller, project: str, least: Role) -> Role:
        """Return the caller's role in a project, at least ``least``."""
        return await self._identity.require(caller, project, least)

    async def manage(self, caller: Caller, project: str) -> None:
        """Let through who manages a project: an owner in person."""
        await self._identity.require(caller, project, Role.OWNER)
        demand_a_person(caller)

    async def read_audit(self, caller: Caller, project: str) -> datetime | None:
        """Let through who may read the record of a project, or of everything where no project is named.

        Returns since when, for owners: an earlier project of the name was none of theirs.
        """
        if may(PlatformRight.READ_AUDIT, caller.platform_roles):
            return None
        if not project:
            demand(PlatformRight.READ_AUDIT, caller)
        await self.manage(caller, project)
        return await self._identity.created(project)

    @asynccontextmanager
    async def recording(
        self, request: Request, caller: Caller, action: str, target: str, project: str = ""
    ) -> AsyncIterator[None]:
        """Record a change that another product makes: that it is asked for, before it begins, and how it ended.

        The change and the record are kept in two places, which no transaction spans. If the process is killed between
        them, the record of the asking stays, without a result. A refusal is recorded by :meth:`refusals`.
        """
        origin = self.origin(request, caller)
        await self._audit.record(origin, action, target, project, ASKED)
        try:
            yield
        except HaneulError as error:
            if error.http_status >= _FAILURES:
                await self._audit.record(origin, action, target, project, f"failed: {error.code}")
            raise
        await self._audit.record(origin, action, target, project)

    @staticmethod
    def origin(request: Request, caller: Caller) -> Origin:
        """Return what the audit record says of where a change comes from."""
        return origin_of(request, caller.person)

    async def refusals(self, request: Request) -> AsyncIterator[None]:
        """Record every change that a known caller was refused, and every look that they may not take.

        Requests of nobody known are not recorded: anybody could fill the record with them. A refusal's action is named
        after its route, ``create_cluster`` as ``cluster.create``.
        """
        try:
            yield
        except HaneulError as error:
            caller = getattr(request.state, "caller", None)
            told = request.method in _CHANGES or isinstance(error, ForbiddenError)
            if caller is not None and told and error.http_status < _FAILURES:
                verb, _, noun = request.scope["route"].name.partition("_")
                await self._audit.record(
                    self.origin(request, caller),
                    f"{noun}.{verb}",
                    request.url.path.removeprefix(_PREFIX),
                    request.path_params.get("project", ""),
                    f"refused: {error.code}",
                )
            raise


def origin_of(request: Request, person: str) -> Origin:
    """Return where a request comes from: its address, its user agent, its id."""
    return Origin(
        person=person,
        source=request.client.host if request.client else "",
        agent=request.headers.get("User-Agent", ""),
        request_id=request.state.request_id,
    )
