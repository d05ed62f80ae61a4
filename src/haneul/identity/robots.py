"""Robots: programs that work in a project with tokens of their own.

A robot belongs to its project and outlives its maker's membership. Its tokens expire and may be revoked; rotating
makes a new one while the old ones go on for a while, so that nothing stands still meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import RowMapping, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from haneul.identity import tables
from haneul.identity.audit import AuditLog
from haneul.identity.guards import demand_project
from haneul.identity.model import (
    LONGEST_NAME,
    MOST_TOKEN_DAYS,
    IssuedRobotToken,
    Origin,
    Robot,
    RobotToken,
    Role,
)
from haneul.identity.rows import all_rows, first_row
from haneul.identity.secrets import SecretHasher, new_token
from haneul.kernel.clock import Clock
from haneul.kernel.database import aware
from haneul.kernel.errors import ConflictError, InvalidInputError, NotFoundError
from haneul.kernel.names import parse_label

#: What the ids of robots' tokens begin with; people's are hexadecimal.
ROBOT_MARK: Final = "r"
MOST_OVERLAP_HOURS: Final = 168


class Robots:
    """Robots in one database. Whether the caller may is decided before."""

    def __init__(self, engine: AsyncEngine, *, audit: AuditLog, hasher: SecretHasher, clock: Clock) -> None:
        self._engine = engine
        self._audit = audit
        self._hasher = hasher
        self._clock = clock

    async def create(
        self, project: str, name: str, role: Role, *, description: str, days: int, origin: Origin
    ) -> IssuedRobotToken:
        """Add a robot with its first token; the secret is in the answer and nowhere else."""
        parse_label(name, what="robot name", longest=LONGEST_NAME)
        now = self._clock.now()
        robot = Robot(project=project, name=name, role=role, description=description, maker=origin.person, created=now)
        issued, row = await self._new_token(robot, days)
        try:
            async with self._audit.change(origin, "robot.create", f"{name}={role}", project) as connection:
                await demand_project(connection, project)
                await connection.execute(insert(tables.robots).values(**robot.model_dump()))
                await connection.execute(insert(tables.robot_tokens).values(**row))
        except IntegrityError as error:
            raise ConflictError(f"{project} has a robot named {name} already", hint="choose another name") from error
        return issued

    async def list(self, project: str) -> Sequence[Robot]:
        """Return a project's robots by name."""
        table = tables.robots
        query = select(table).where(table.c.project == project).order_by(table.c.name)
        return [_robot(row) for row in await all_rows(self._engine, query)]

    async def get(self, project: str, name: str) -> Robot:
        """Return a robot. Raises NotFoundError."""
        async with self._engine.connect() as connection:
            return _robot(await self._demand(connection, project, name))

    async def tokens(self, project: str, name: str) -> Sequence[RobotToken]:
        """Return a robot's tokens, newest first."""
        table = tables.robot_tokens
        query = select(table).where(_of(project, name)).order_by(table.c.created.desc())
        return [_token(row) for row in await all_rows(self._engine, query)]

    async def rotate(
        self, project: str, name: str, *, days: int, overlap_hours: float, origin: Origin
    ) -> IssuedRobotToken:
        """Make a robot another token; the ones it has end after ``overlap_hours`` at the latest."""
        if not 0 <= overlap_hours <= MOST_OVERLAP_HOURS:
            raise InvalidInputError(
                f"old tokens go on for 0 to {MOST_OVERLAP_HOURS} hours, not {overlap_hours}", hint="choose fewer hours"
            )
        issued, row = await self._new_token(await self.get(project, name), days)
        end = self._clock.now() + timedelta(hours=overlap_hours)
        async with self._audit.change(origin, "robot.rotate", f"{name}/{issued.token.id}", project) as connection:
            await self._demand(connection, project, name)
            later = _of(project, name) & (tables.robot_tokens.c.expires > end)
            await connection.execute(update(tables.robot_tokens).where(later).values(expires=end))
            await connection.execute(insert(tables.robot_tokens).values(**row))
        return issued

    async def revoke_token(self, project: str, name: str, identity: str, *, origin: Origin) -> None:
        """Make one of a robot's tokens void, at once."""
        one = _of(project, name) & (tables.robot_tokens.c.id == identity)
        async with self._audit.change(origin, "robot-token.revoke", f"{name}/{identity}", project) as connection:
            result = await connection.execute(update(tables.robot_tokens).where(one).values(revoked=True))
            if result.rowcount == 0:
                raise NotFoundError(f"{name} has no token {identity}", hint="'haneul robot tokens' shows them")

    async def delete(self, project: str, name: str, *, origin: Origin) -> None:
        """Remove a robot with all its tokens, at once."""
        async with self._audit.change(origin, "robot.delete", name, project) as connection:
            await self._demand(connection, project, name)
            one = (tables.robots.c.project == project) & (tables.robots.c.name == name)
            await connection.execute(delete(tables.robots).where(one))

    async def _new_token(self, robot: Robot, days: int) -> tuple[IssuedRobotToken, dict[str, Any]]:
        if not 1 <= days <= MOST_TOKEN_DAYS:
            raise InvalidInputError(f"a token lives 1 to {MOST_TOKEN_DAYS} days, not {days}", hint="choose fewer days")
        identity, secret, text = new_token(mark=ROBOT_MARK)
        now = self._clock.now()
        token = RobotToken(id=identity, created=now, expires=now + timedelta(days=days))
        hashed = await asyncio.to_thread(self._hasher.hash, secret)
        row = {**token.model_dump(), "project": robot.project, "robot": robot.name, "hash": hashed}
        return IssuedRobotToken(robot=robot, token=token, secret=text), row

    async def _demand(self, connection: AsyncConnection, project: str, name: str) -> RowMapping:
        row = await first_row(connection, tables.robots, project=project, name=name)
        if row is None:
            raise NotFoundError(
                f"{project} has no robot named {name}", hint=f"'haneul robot list -p {project}' shows them"
            )
        return row


def _of(project: str, name: str) -> Any:
    return (tables.robot_tokens.c.project == project) & (tables.robot_tokens.c.robot == name)


def _robot(row: RowMapping) -> Robot:
    return Robot.model_validate({**row, "created": aware(row["created"])})


def _token(row: RowMapping) -> RobotToken:
    moments = {name: aware(row[name]) for name in ("created", "expires")}
    last_used = aware(row["last_used"]) if row["last_used"] else None
    return RobotToken(id=row["id"], revoked=row["revoked"], last_used=last_used, **moments)
