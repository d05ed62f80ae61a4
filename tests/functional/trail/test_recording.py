"""Records of a real nginx with ModSecurity and the Core Rule Set, from the request to the ring and the store."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from haneul.app.trail import Policies, catalogue_of, recording, store_of, write_rules
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
SQL = "/?id=1%27%20OR%201=1--%20-"
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


@contextlib.asynccontextmanager
async def watched(folder: Path, **settings: object) -> AsyncIterator[Watched]:
    """Yield a nginx with one application and an Ingress for it."""
    if not MODULE.exists():
        pytest.skip("nginx with ModSecurity is not here: 'make system-packages'")
    told = TrailSettings.model_validate({"store": folder / "store", "keep": "all", "flush_seconds": 0.1, **settings})
    async with ground() as here, Application("web").running() as web:
        here.processes.prepare()
        here.site = replace(here.site, audit_rules=str(write_rules(told, here.folder)))
        here.see(ingress())
        here.point("web", web)
        policies = Policies(told.policy)
        try:
            clock = SystemClock()
            async with recording(told, here.folder, policies, cluster=CLUSTER, user=USER, clock=clock) as recorder:
                await here.route()
                policies.heed(here.routes)
                yield Watched(here, recorder, policies, told)
        finally:
            await here.processes.end()
            await unmount_memory(here.folder / "spool")


async def test_an_attack_passes_and_its_record_has_four_parts(tmp_path: Path) -> None:
    async with watched(tmp_path) as site:
        answer = await site.ground.ask(SQL, headers={"X-Request-ID": "incident-0001"})
        assert answer.status == 200
        (record,) = await site.seen(1)
        assert {SEES_SQL, WOULD_REFUSE} <= set(record.rules)
        assert record.request_id == answer.said["headers"]["x-request-id"] == "incident-0001"
        assert (record.host, record.path, record.status) == ("www.example.com", "/", 200)
        assert record.transaction["ingress"] == "shop/web"
        assert record.audit_data["kept"] == "sample"
        assert json.loads(record.line()).keys() == {"transaction", "request", "response", "audit_data"}


async def test_repeated_headers_and_bytes_stay(tmp_path: Path) -> None:
    async with watched(tmp_path) as site:
        async with site.ground.session() as session:
            headers = [("Host", "www.example.com"), ("X-Twice", "1"), ("X-Twice", "2")]
            async with session.get(site.ground.url("/a"), headers=headers) as answer:
                assert answer.status == 200
        (record,) = await site.seen(1)
        assert [value for name, value in record.request["headers"] if name == "X-Twice"] == ["1", "2"]


async def test_secrets_are_neither_in_the_ring_nor_in_the_store_nor_in_logs(tmp_path: Path) -> None:
    secret = "hunter2-OR-1=1"
    async with watched(tmp_path) as site:
        headers = {"Authorization": f"Bearer {secret}", "Cookie": f"sid={secret}", "Accept": "*/*"}
        await site.ground.ask(f"/?password={secret}", headers=headers)
        await site.ground.ask("/", method="POST", data={"password": secret, "q": "<script>alert(1)</script>"})
        await site.ground.ask("/", method="POST", json={"token": secret, "q": "1' OR 1=1--"})
        records = await site.seen(3)
        assert not [record for record in records if secret.encode() in record.line()]
        found = await search(store_of(site.settings), catalogue_of(site.ground.folder), question())
        assert all(secret.encode() not in record.line() for record in found)
        assert secret not in site.ground.log()


async def test_a_large_upload_passes_whole(tmp_path: Path) -> None:
    async with watched(tmp_path) as site:
        body = b"x" * 900_000
        answer = await site.ground.ask("/", method="POST", data=body)
        assert answer.said["bytes"] == len(body)
        await site.seen(1)


async def test_what_was_kept_is_found(tmp_path: Path) -> None:
    async with watched(tmp_path) as site:
        for number in range(5):
            await site.ground.ask(f"/item/{number}", headers={"X-Request-ID": f"request-{number:04}"})
        await site.seen(5)
        store, catalogue = store_of(site.settings), catalogue_of(site.ground.folder)

        async def all_there() -> bool:
            return len(await search(store, catalogue, question())) == 5

        await until(all_there, "five records in the store")
        (found,) = await search(store, catalogue, replace(question(), request_id="request-0003"))
        assert found.path == "/item/3"


def question() -> Question:
    return Question(CLUSTER, 0, 1 << 50)
