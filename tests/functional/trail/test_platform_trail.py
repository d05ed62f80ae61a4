"""The trail of one of the platform's clusters: a confined nginx, recorded by whoever tells it what to serve."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from haneul.app.audit_switch import AuditSwitch
from haneul.app.ingress_worker import place_of
from haneul.app.logs import logs_of, platform_logs
from haneul.app.platform_trail import Choice, ClusterTrails, place_in
from haneul.dkos.cluster_record import Standing
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import NotFoundError, UnavailableError
from haneul.management.ingress_host import IngressHost
from haneul.management.settings import ManagementSettings
from haneul.trail.adapters.memory_folder import mount_memory
from haneul.trail.model import Record
from haneul.trail.ports import Question
from haneul.trail.recorder import Recorder
from tests.functional.trail.watching import MODULE, SEES_SQL, SQL, WOULD_REFUSE
from tests.ingress_platform import CLOCK, HOST, Platform, a_platform, on_a_node_port
from tests.ingress_proxy import PATIENCE, Application, free_address, until
from tests.unit.ingress.objects import endpoint, ingress, ingress_class, service, slice_of

OWNER = "shop/first"
SECRET = "hunter2-OR-1=1"


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    if not MODULE.exists():
        pytest.skip("nginx with ModSecurity is not here: 'make system-packages'")
    async with a_platform() as made:
        yield made


async def ring(platform: Platform) -> list[Record]:
    return await platform_logs(platform.ground.files, OWNER).controller.records(0, 1000)


async def seen_yet(platform: Platform, path: str, rule: str = "") -> list[Record]:
    try:
        found = await ring(platform)
    except UnavailableError:
        return []
    return [one for one in found if (one.path, one.status) == (path, 200) and (not rule or rule in one.rules)]


async def seen(platform: Platform, path: str, rule: str = "") -> Record:
    """Return the record of a path that was answered, once there is one; nginx answers before it writes it."""
    found: list[Record] = []

    async def there() -> bool:
        found[:] = await seen_yet(platform, path, rule)
        return bool(found)

    await until(there, f"a record of {path}")
    return found[0]


async def test_an_incident_on_the_platform_is_collected_and_found(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The installation that commands on this host are about.
    monkeypatch.setattr(ManagementSettings, "state", platform.folder / "state")
    tenant, node = platform.tenant, free_address()[0]
    await tenant.with_namespaces()
    await tenant.put(ingress_class("haneul", default=True), service(selector={"app": "web"}))
    await tenant.put(slice_of("web", endpoint("10.0.0.1")))
    await tenant.put(ingress("web", host=HOST, class_name=None, annotations={"haneul.dev/audit": "nothing"}))
    AuditSwitch(platform.ground.files.audit_switch).turn(OWNER, on=True)
    async with on_a_node_port(Application("one"), node) as tenant.port:
        platform.record = replace(platform.record, nodes=(node,))
        await platform.begin().know(platform.record)
        await platform.answers("one")
        assert await platform.asked(path=f"{SQL}&password={SECRET}") == "one"
        await its_record_is_masked_and_confined(platform)
        await it_goes_on_when_nodes_change(platform, node)
        await it_is_collected_and_found(platform)
        await who_begins_anew_goes_on(platform)
        await it_is_switched_off_and_on(platform)
        await nothing_is_left_of_a_deleted_cluster(platform)


async def its_record_is_masked_and_confined(platform: Platform) -> None:
    record = await seen(platform, "/", SEES_SQL)
    assert WOULD_REFUSE in record.rules
    assert SECRET.encode() not in record.line()
    assert json.loads(record.line()).keys() == {"transaction", "request", "response", "audit_data"}
    assert record.transaction["ingress"] == "shop/web"
    # nginx's user has the minutes that are open, and no way to what was recorded.
    place, trail = place_of(platform.record, platform.ground), place_in(platform.ground.files, platform.record.uid)
    assert trail.spool.is_mount()
    assert {path.stat().st_uid for path in (trail.spool, *trail.spool.iterdir())} == {0}
    assert place.user in {path.stat().st_uid for path in trail.spool.glob("*/*")}
    assert {path.stat().st_mode & 0o077 for path in (platform.ground.files.trails, trail.socket)} == {0}


async def it_goes_on_when_nodes_change(platform: Platform, node: str) -> None:
    """What was seen before is still there: a cluster's last requests do not go with its nodes."""
    assert platform.worker
    before = len(await ring(platform))
    platform.record = replace(platform.record, nodes=(node, free_address()[0]))
    await platform.worker.know(platform.record)

    async def asked() -> bool:
        return await platform.asked(path="/later") == "one"

    await until(asked, "it to be served by new nodes")
    await seen(platform, "/later")
    assert len(await ring(platform)) > before


async def it_is_collected_and_found(platform: Platform) -> None:
    logs, everything = logs_of(OWNER, None), Question(OWNER, 0, 1 << 50)
    # Its Ingress says that nothing is kept without being collected.
    assert await logs.search(everything) == []
    assert (await logs.controller.collect(0))["left_out"] == 0
    (found,) = await logs.search(replace(everything, path="/later", status="200"))
    assert found.transaction["ingress"] == "shop/web"
    stored = [gzip.decompress(file.read_bytes()) for file in platform.ground.files.trails.rglob("*.jsonl.gz")]
    assert any(SEES_SQL.encode() in chunk for chunk in stored)
    assert not any(SECRET.encode() in chunk for chunk in stored)


async def who_begins_anew_goes_on(platform: Platform) -> None:
    """As after the worker was killed: nginx and its folder in memory are found as they are."""
    assert platform.worker
    await platform.worker.close()
    await platform.trails.close()

    async def asked() -> bool:
        return await platform.asked(path="/between") == "one"

    await until(asked, "nginx to serve on")
    with pytest.raises(UnavailableError):
        await ring(platform)
    assert platform.spool.is_mount()
    platform.trails = ClusterTrails(platform.ground.files, clock=CLOCK, look=0.1)
    await platform.begin().know(platform.record)
    await seen(platform, "/between")


async def it_is_switched_off_and_on(platform: Platform) -> None:
    switch = AuditSwitch(platform.ground.files.audit_switch)
    nginx = place_of(platform.record, platform.ground).folder / "nginx.conf"
    switch.turn(OWNER, on=None)

    async def off() -> bool:
        return not platform.spool.is_mount() and "modsecurity" not in nginx.read_text()

    await until(off, "nobody to look at requests")
    await platform.answers("one")
    # What was collected is found all the same.
    assert await platform_logs(platform.ground.files, OWNER).search(Question(OWNER, 0, 1 << 50, path="/later"))
    switch.turn_usual(on=True)

    async def on() -> bool:
        return await platform.asked(path="/again") == "one" and bool(await seen_yet(platform, "/again"))

    await until(on, "requests to be looked at again")


async def nothing_is_left_of_a_deleted_cluster(platform: Platform) -> None:
    assert platform.worker
    await platform.worker.know(replace(platform.record, standing=Standing.DELETED, access=None, nodes=()))

    async def forgotten() -> bool:
        return platform.forgotten == [platform.record.uid]

    await until(forgotten, "the record to go")
    assert not platform.spool.is_mount()
    assert not place_of(platform.record, platform.ground).folder.exists()
    assert list(platform.ground.files.trails.iterdir()) == []
    with pytest.raises(NotFoundError):
        platform_logs(platform.ground.files, OWNER)


async def settled(platform: Platform, trails: ClusterTrails) -> str:
    """Settle a cluster's trail as the worker does; return what is wrong with what was chosen."""
    uid, place = platform.record.uid, place_of(platform.record, platform.ground)
    (place.folder / "private").mkdir(parents=True, exist_ok=True)
    choice = trails.chosen(OWNER, uid)
    audit = await trails.settle(choice, OWNER, uid, place.folder, place.user)
    assert bool(audit) == bool(choice.settings)
    return choice.wrong


async def test_what_is_wrong_with_the_settings_keeps_nobody_from_serving(platform: Platform) -> None:
    files = platform.ground.files
    AuditSwitch(files.audit_switch).turn_usual(on=True)
    files.audit_settings.write_text("keep: everything\n")
    assert "keep" in await settled(platform, platform.trails)
    assert not platform.spool.is_mount()
    files.audit_settings.write_text("keep: all\nringBytes: 1048576\nstore: elsewhere\n")
    assert not await settled(platform, platform.trails)
    assert platform.spool.is_mount()
    files.audit_switch.write_text("{")
    assert "audit.json" in await settled(platform, platform.trails)
    assert not platform.spool.is_mount()


async def test_a_trail_that_cannot_begin_is_tried_again_at_longer_and_longer_intervals(platform: Platform) -> None:
    clock, uid, files = VirtualClock(datetime(2026, 11, 28, tzinfo=UTC)), platform.record.uid, platform.ground.files
    trails, place = ClusterTrails(files, clock=clock), place_of(platform.record, platform.ground)
    (place.folder / "private").mkdir(parents=True)
    AuditSwitch(files.audit_switch).turn_usual(on=True)
    choice = trails.chosen(OWNER, uid)
    assert choice.settings
    # What is in the way of the trail's folder.
    files.trails.mkdir(parents=True)
    (files.trails / uid).touch()
    waited = []
    for _ in range(6):
        assert await trails.settle(choice, OWNER, uid, place.folder, place.user) is None
        before = clock.monotonic()
        await trails.other_than(choice, OWNER, uid)
        waited.append(clock.monotonic() - before)
    assert waited == [30, 60, 120, 240, 300, 300]
    # Where none is wanted, nobody tries.
    AuditSwitch(files.audit_switch).turn_usual(on=False)
    waiting = asyncio.create_task(trails.other_than(Choice(), OWNER, uid))
    until_then = clock.monotonic() + 1000

    async def long_after() -> bool:
        return clock.monotonic() > until_then

    await until(long_after, "time to pass")
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_trail_that_broke_off_is_begun_again(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    uid, files = platform.record.uid, platform.ground.files
    place = place_of(platform.record, platform.ground)
    trails = platform.trails = ClusterTrails(files, clock=CLOCK, look=0.05, again=(0.1, 0.2))
    (place.folder / "private").mkdir(parents=True)
    AuditSwitch(files.audit_switch).turn_usual(on=True)
    choice = trails.chosen(OWNER, uid)

    async def breaks(self: Recorder) -> None:
        raise ValueError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "learn", breaks)
        patched.setattr(Recorder, "close", breaks)
        assert await trails.settle(choice, OWNER, uid, place.folder, place.user)
        async with asyncio.timeout(PATIENCE):
            await trails.other_than(choice, OWNER, uid)
        assert await trails.settle(choice, OWNER, uid, place.folder, place.user)
        async with asyncio.timeout(PATIENCE):
            await trails.other_than(choice, OWNER, uid)
    audit = await trails.settle(choice, OWNER, uid, place.folder, place.user)
    assert audit
    waiting = asyncio.create_task(trails.other_than(choice, OWNER, uid))
    done, _ = await asyncio.wait((waiting,), timeout=1.0)
    assert not done, "one that records is left alone"
    assert await trails.settle(choice, OWNER, uid, place.folder, place.user) is audit
    AuditSwitch(files.audit_switch).turn_usual(on=False)
    async with asyncio.timeout(PATIENCE):
        await waiting


async def test_down_lets_go_of_memory_that_a_killed_worker_left(platform: Platform) -> None:
    if not await mount_memory(platform.spool, 1 << 20):
        pytest.skip("nothing can be mounted here")
    # Somebody may be in there.
    with (platform.spool / "open").open("wb"):
        state = platform.folder / "state"
        settings = ManagementSettings(address="127.0.0.1", host_name="test", state=state)
        await IngressHost(settings, services=platform.services).let_go_of_memory()
    assert not platform.spool.is_mount()
    # A start finds such a folder too, where the cluster has no trail any more.
    assert await mount_memory(platform.spool, 1 << 20)
    await settled(platform, platform.trails)
    assert not platform.spool.is_mount()
