"""Who can act as somebody else: whoever made them a credential has held its secret.

Read from the audit record, which forgets nothing: a credential that was revoked may have made others before.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from haneul.identity import tables
from haneul.identity.audit import DONE


class Proxies:
    """Makers of credentials, in identity's database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def behind(self, name: str) -> frozenset[str]:
        """Return everybody else who can have acted as a person or robot, also by way of others in between.

        A credential is a token, a sign-on secret, or who somebody is at the company's provider.
        """
        found, new = {name}, {name}
        async with self._engine.connect() as connection:
            while new:
                query = select(tables.audit.c.person).where(
                    or_(*map(_credential_of, new)), tables.audit.c.result == DONE
                )
                new = set((await connection.execute(query.distinct())).scalars()) - found
                found |= new
        return frozenset(found - {name})


def _credential_of(name: str) -> Any:
    """Return what is true of the records of credentials made for a person or robot."""
    audit = tables.audit.c
    if name.startswith("robot:"):
        project, _, robot = name.removeprefix("robot:").partition("/")
        made = audit.action == "robot.create", audit.object.startswith(f"{robot}=", autoescape=True)
        rotated = audit.action == "robot.rotate", audit.object.startswith(f"{robot}/", autoescape=True)
        return and_(audit.project == project, or_(and_(*made), and_(*rotated)))
    return or_(
        and_(audit.action == "token.create", audit.object.startswith(f"{name}/", autoescape=True)),
        and_(audit.action == "sign-on-secret.create", audit.object == name),
        and_(audit.action == "person.link", audit.object.startswith(f"{name}=", autoescape=True)),
    )
