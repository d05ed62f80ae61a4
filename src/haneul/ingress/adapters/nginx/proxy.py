"""The port ``Proxy`` on stock nginx.

Routes: files are written, nginx checks the configuration, then the table is posted with the endpoints of both the old
and the new routes, then nginx reads its configuration anew; workers of before go on with their connections. So there is
no moment at which a route has no endpoints. Endpoints alone: the table is posted, and the next request meets it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from haneul.ingress.adapters.nginx.processes import NginxProcesses
from haneul.ingress.ports import Configuration
from haneul.ingress.table import Table
from haneul.kernel.errors import UnavailableError

#: Where the Lua is that nginx loads.
LUA_FOLDER = Path(__file__).parent
_TABLE = "private/table.json"


class NginxProxy:
    """One nginx, in one folder, found again by whoever comes later."""

    def __init__(self, folder: Path, processes: NginxProcesses) -> None:
        self._table_file = folder.absolute() / _TABLE
        self._processes = processes
        self._table: Table | None = None

    async def check(self, configuration: Configuration) -> None:
        """Let nginx read it."""
        self._processes.prepare()
        self._processes.write(configuration.files)
        await self._processes.check(configuration.text)

    async def route(self, configuration: Configuration, table: Table) -> None:
        """Serve it, in an nginx that runs or in a new one."""
        master = await self._processes.master()
        if master and await self._processes.generation() == configuration.generation:
            await self.point(table)
            return
        await self.check(configuration)
        self._processes.configure(configuration.text)
        if master is None:
            self._remember(table)
            await self._processes.start(configuration.generation)
        else:
            await self._post(table.beside(self._before()))
            await self._processes.reload(master, configuration.generation)
        self._processes.keep_only(configuration.files)
        await self.point(table)

    async def point(self, table: Table) -> None:
        """Post the table, and keep it for when nginx starts by itself."""
        await self._post(table)
        self._remember(table)

    async def lead_only_to(self, addresses: Collection[str]) -> None:
        """Take every other address out of the table, of an nginx that runs and for when it starts again.

        An address that was a cluster's is soon somebody else's: this has to be possible while the cluster says nothing.
        """
        before = self._before()
        table = before.led_only_to(addresses)
        if table != before:
            self._remember(table)
            if await self._processes.master() is not None:
                await self._post(table)

    async def end(self) -> bool:
        """Let nginx end; return False if none ran."""
        return await self._processes.end()

    async def _post(self, table: Table) -> None:
        await self._processes.ask("/table", table.text())

    def _remember(self, table: Table) -> None:
        self._processes.write({_TABLE: table.text().encode()})
        self._table = table

    def _before(self) -> Table:
        """Return the table of before, also that of a process before this one."""
        if self._table is None:
            try:
                self._table = Table(json.loads(self._table_file.read_text()))
            except FileNotFoundError:
                self._table = Table()
            except (OSError, ValueError) as error:
                raise UnavailableError(f"{self._table_file} cannot be read: {error}") from error
        return self._table
