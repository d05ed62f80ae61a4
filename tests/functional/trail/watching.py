"""A real nginx with ModSecurity whose requests are recorded."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from haneul.app.trail import Policies, TrailPlace, catalogue_of, recording, store_of, write_rules
from haneul.kernel.clock import SystemClock
from haneul.trail.adapters.memory_folder import unmount_memory
from haneul.trail.model import Record, record_of_line
from haneul.trail.ports import Question
from haneul.trail.recorder import Recorder
from haneul.trail.searching import search
from haneul.trail.settings import TrailSettings
from tests.ingress_proxy import USER, Application, Ground, ground, until
from tests.unit.ingress.objects import ingress

MODULE = Path("/usr/lib/nginx/modules/ngx_http_modsecurity_module.so")
CLUSTER = "shop"
SQL = "/?id=1'%20OR%201=1--%20-"
#: ModSecurity's numbers of rules that see SQL in a parameter, and of the one that would refuse the request.
SEES_SQL, WOULD_REFUSE = "942100", "949110"


class Watched:
    """A nginx whose requests are recorded."""

    def __init__(self, here: Ground, recorder: Recorder, policies: Policies, settings: TrailSettings) -> None:
        self.ground = here
        self.recorder = recorder
        self.policies = policies
        self.settings = settings

    def records(self) -> list[Record]:
        return [record_of_line(line) for line in self.recorder.lines(0)]

    async def seen(self, count: int) -> list[Record]:
        async def there() -> bool:
            return len(self.records()) >= count

        await until(there, f"{count} records")
        return self.records()

    async def search(self, **asked: object) -> list[Record]:
        whole = Question(CLUSTER, 0, 1 << 50)
        where = store_of(self.settings), catalogue_of(self.ground.folder)
        return await search(*where, replace(whole, **asked))  # type: ignore[arg-type]

    async def kept(self, count: int) -> list[Record]:
        async def there() -> bool:
            return len(await self.search()) >= count

        await until(there, f"{count} records in the store")
        return await self.search()


@contextlib.asynccontextmanager
async def looked_at(folder: Path, **settings: object) -> AsyncIterator[tuple[Ground, TrailSettings]]:
    """Yield a nginx that does not run yet, with one application and an Ingress for it, to be looked at."""
    if not MODULE.exists():
        pytest.skip("nginx with ModSecurity is not here: 'make system-packages'")
    told = TrailSettings.model_validate({"store": folder / "store", "keep": "all", "flush_seconds": 0.1, **settings})
    async with ground() as here, Application("web").running() as web:
        here.processes.prepare()
        here.site = replace(here.site, audit_rules=str(write_rules(told, here.folder)))
        here.see(ingress())
        here.point("web", web)
        try:
            yield here, told
        finally:
            await here.processes.end()
            await unmount_memory(here.folder / "spool")


@contextlib.asynccontextmanager
async def watched(folder: Path, **settings: object) -> AsyncIterator[Watched]:
    """Yield a nginx that serves, and whose requests are recorded."""
    async with looked_at(folder, **settings) as (here, told):
        policies = Policies(told.policy)
        clock = SystemClock()
        place = TrailPlace.beside(here.folder)
        async with recording(told, place, policies, cluster=CLUSTER, user=USER, clock=clock) as recorder:
            await here.route()
            policies.heed(here.routes)
            yield Watched(here, recorder, policies, told)
