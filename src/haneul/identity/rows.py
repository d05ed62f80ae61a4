"""What all services of identity do with rows."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


async def first_row(connection: AsyncConnection, table: Any, **equal: str) -> RowMapping | None:
    """Return the first row whose columns have these values."""
    query = select(table)
    for column, value in equal.items():
        query = query.where(table.c[column] == value)
    return (await connection.execute(query)).mappings().first()


async def all_rows(engine: AsyncEngine, query: Any) -> list[RowMapping]:
    """Return everything that a query finds."""
    async with engine.connect() as connection:
        return list((await connection.execute(query)).mappings())
