"""The port ``Proxy`` kept in memory: for dry runs and tests of whatever decides what is served."""

from __future__ import annotations

from haneul.ingress.ports import Configuration, ConfigurationRefusedError
from haneul.ingress.table import Table


class MemoryProxy:
    """Remembers what it was told last; refuses configurations that have a text in them, if one is named."""

    def __init__(self, *, refuses: str = "") -> None:
        self.refuses = refuses
        self.configuration: Configuration | None = None
        self.table = Table()
        self.reloads = 0

    async def check(self, configuration: Configuration) -> None:
        """Refuse what has the text."""
        if self.refuses and self.refuses in configuration.text:
            raise ConfigurationRefusedError(f"{self.refuses!r} is not taken")

    async def route(self, configuration: Configuration, table: Table) -> None:
        """Take both."""
        await self.check(configuration)
        if self.configuration is None or self.configuration.generation != configuration.generation:
            self.reloads += 1
        self.configuration, self.table = configuration, table

    async def point(self, table: Table) -> None:
        """Take the table."""
        self.table = table
