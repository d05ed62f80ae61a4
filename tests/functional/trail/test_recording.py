"""Records of a real nginx with ModSecurity and the Core Rule Set, from the request to the ring and the store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from haneul.kernel.clock import SystemClock
from haneul.trail.adapters.memory_folder import mount_memory
from haneul.trail.adapters.spool import Spool
from tests.functional.trail.watching import SEES_SQL, SQL, WOULD_REFUSE, looked_at, watched
from tests.ingress_proxy import USER
from tests.unit.ingress.objects import ingress, path


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


async def test_secrets_are_neither_in_the_ring_nor_in_the_store_nor_in_logs(tmp_path: Path) -> None:
    secret = "hunter2-OR-1=1"
    async with watched(tmp_path) as site:
        headers = {"Authorization": f"Bearer {secret}", "Cookie": f"sid={secret}", "Accept": "*/*"}
        await site.ground.ask(f"/?password={secret}", headers=headers)
        await site.ground.ask("/", method="POST", data={"password": secret, "q": "<script>alert(1)</script>"})
        await site.ground.ask("/", method="POST", json={"token": secret, "q": "1' OR 1=1--"})
        kept = await site.kept(3)
        assert all(record.rules for record in kept[:2])
        for record in [*site.records(), *kept]:
            assert secret.encode() not in record.line()
        assert secret not in site.ground.log()


async def test_what_clients_send_passes_whole(tmp_path: Path) -> None:
    async with watched(tmp_path) as site:
        body = b"x" * 900_000
        assert (await site.ground.ask("/", method="POST", data=body)).said["bytes"] == len(body)
        async with site.ground.session() as session:
            headers = [("Host", "www.example.com"), ("X-Twice", "1"), ("X-Twice", "2")]
            async with session.get(site.ground.url("/a"), headers=headers) as answer:
                assert answer.status == 200
        twice, upload = await site.seen(2)
        assert [value for name, value in twice.request["headers"] if name == "X-Twice"] == ["1", "2"]
        # Rules see the beginning of it.
        assert upload.request["body"].endswith("characters of application/octet-stream")


async def test_what_was_kept_is_found(tmp_path: Path) -> None:
    async with watched(tmp_path) as site:
        for number in range(5):
            await site.ground.ask(f"/item/{number}", headers={"X-Request-ID": f"request-{number:04}"})
        await site.kept(5)
        (found,) = await site.search(request_id="request-0003")
        assert found.path == "/item/3"


async def test_what_an_ingress_wants_is_kept_without_a_reload(tmp_path: Path) -> None:
    async with watched(tmp_path, keep="nothing") as site:
        generation = await site.ground.processes.generation()
        await site.ground.ask("/not-kept")
        await site.seen(1)
        site.ground.see(ingress(annotations={"haneul.dev/audit": "all"}))
        configuration, _ = site.ground.made()
        assert configuration.generation == generation
        site.policies.heed(site.ground.routes)
        await site.ground.ask("/kept")
        assert [record.path for record in await site.kept(1)] == ["/kept"]


async def test_off_and_streams_are_not_looked_at(tmp_path: Path) -> None:
    async with watched(tmp_path) as site:
        annotations = {"off": {"audit": "off"}, "stream": {"proxy-request-buffering": "off"}}
        for name, one in annotations.items():
            prefixed = {f"haneul.dev/{key}": value for key, value in one.items()}
            site.ground.see(ingress(name, path(f"/{name}"), annotations=prefixed))
        await site.ground.route()
        for place in ("/off", "/stream", "/seen"):
            assert (await site.ground.ask(place)).status == 200
        assert [record.path for record in await site.seen(1)] == ["/seen"]


async def test_errors_of_nginx_itself_have_records(tmp_path: Path) -> None:
    async with watched(tmp_path, keep="errors") as site:
        site.ground.point("web")
        await site.ground.repoint()
        assert (await site.ground.ask("/")).status == 503
        assert [record.status for record in await site.kept(1)] == [503]


async def test_nginx_serves_on_when_nobody_reads(tmp_path: Path) -> None:
    """The folder fills up, and later there is none that is open: neither makes a request wait or fail."""
    room = 1 << 16
    async with looked_at(tmp_path) as (here, _):
        folder = here.folder / "spool"
        if not await mount_memory(folder, room):
            pytest.skip("nothing can be mounted here")
        spool = Spool(folder, user=USER, room=1 << 30, clock=SystemClock())
        spool.prepare()
        await here.route()
        for _ in range(60):
            assert (await here.ask("/?filler=" + "x" * 3000)).status == 200
        assert 0 < sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= room
        # The minutes that were open are over.
        for day in folder.iterdir():
            shutil.rmtree(day)
        for _ in range(20):
            assert (await here.ask(SQL)).status == 200
        assert not [file for file in folder.rglob("*") if file.is_file()]
        assert "ModSecurity" not in here.log().replace("ModSecurity-nginx", "")
