"""The ingress of clusters on this host: an nginx for each, without rights, kept running whoever is gone."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from haneul.app.ingress_hosts import GrantedHosts, Grantee
from haneul.app.ingress_worker import HostKeeper, grantee, place_of
from haneul.dkos.address_claims import given_address
from haneul.dkos.cluster_record import ClusterRecord, Standing
from haneul.dkos.readers import INGRESS
from haneul.host.processes import command_line
from haneul.ingress.reach import OPENING_LABEL
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import (
    CONFIG_MAPS,
    INGRESSES,
    NAMESPACES,
    SERVICES,
)
from tests.ingress_platform import HOST, Platform, a_platform, on_a_node_port
from tests.ingress_proxy import Application, free_address, until
from tests.unit.ingress.objects import endpoint, ingress, ingress_class, service, slice_of


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    async with a_platform() as made:
        yield made


async def test_a_cluster_is_served_by_an_nginx_without_rights_until_it_is_deleted(platform: Platform) -> None:
    tenant, node = platform.tenant, free_address()[0]
    await tenant.with_namespaces()
    await tenant.put(ingress_class("haneul", default=True))
    async with on_a_node_port(Application("one"), node) as tenant.port:
        platform.record = replace(platform.record, nodes=(node,))
        await platform.begin().know(platform.record)
        await nothing_runs_for_nothing(platform)
        await tenant.put(service(selector={"app": "web"}), slice_of("web", endpoint("10.0.0.1")))
        await tenant.put(ingress("web", host=HOST, class_name=None), ingress("theirs", host="www.example.org"))
        await platform.answers("one")
        await platform.answers("308", secure=False)
        await platform.answers("404", host="www.example.org", secure=False)
        await it_has_no_rights(platform)
        await it_comes_back_alone(platform)
        await hosts_are_granted(platform)
        await a_killed_supervisor_takes_nothing_with_it(platform)
        await it_rests_and_ends(platform)


async def test_a_grant_by_name_alone_becomes_a_sleeping_clusters_and_ends_with_it(platform: Platform) -> None:
    hosts = platform.ground.files.hosts
    hosts.parent.mkdir(parents=True, exist_ok=True)
    hosts.write_text('{"www.example.org": "shop/first", "b.example.org": "shop/second"}')
    worker, record = platform.begin(), replace(platform.record, standing=Standing.ASLEEP, nodes=())
    await worker.know(record)

    async def adopted() -> bool:
        return platform.granted.of(record.uid) == ["www.example.org"]

    await until(adopted, "the grant to be the cluster's")
    # As it is where a cluster is deleted before anything was done for it.
    hosts.write_text('{"www.example.org": "shop/first", "b.example.org": "shop/second"}')
    await worker.know(deleted(record))
    await until(forgotten(platform), "the record to go")
    assert platform.granted.all() == {"b.example.org": Grantee("shop/second", "")}


async def test_a_spoiled_file_of_grants_keeps_no_deleted_clusters_nginx_and_address(platform: Platform) -> None:
    await platform.management.apply(NAMESPACES, {"metadata": {"name": INGRESS.name}})
    assert await given_address(platform.management, replace(INGRESS, addresses="10.198.0.0/28"), platform.record.uid)
    worker, folder = platform.begin(), place_of(platform.record, platform.ground).folder
    platform.granted.grant("www.example.org", grantee(platform.record))
    grants = platform.ground.files.hosts.read_text()
    platform.ground.files.hosts.write_text("no json")
    await worker.know(replace(platform.record, standing=Standing.ASLEEP, nodes=()))

    async def rests() -> bool:
        return folder.exists()

    await until(rests, "the cluster to be taken up")
    await worker.know(deleted(platform.record))

    async def ended() -> bool:
        return not folder.exists() and await platform.management.list(CONFIG_MAPS, INGRESS.name) == []

    await until(ended, "its files and its address to go")
    assert platform.forgotten == []
    platform.ground.files.hosts.write_text(grants)
    await until(forgotten(platform), "the record to go once grants can be ended")
    assert platform.granted.all() == {}


def deleted(record: ClusterRecord) -> ClusterRecord:
    return replace(record, standing=Standing.DELETED, access=None, nodes=())


def forgotten(platform: Platform) -> Callable[[], Awaitable[bool]]:
    async def probe() -> bool:
        return platform.forgotten == [platform.record.uid]

    return probe


async def nothing_runs_for_nothing(platform: Platform) -> None:
    async def looked_at() -> bool:
        return platform.tenant.looks >= 1

    await until(looked_at, "the cluster to be looked at")
    assert await platform.pid() == 0


async def it_has_no_rights(platform: Platform) -> None:
    place = place_of(platform.record, platform.ground)
    status = Path(f"/proc/{await platform.pid()}/status").read_text()
    fields = {line.partition(":")[0]: line.partition(":")[2].split() for line in status.splitlines()}
    assert set(fields["Uid"]) == set(fields["Gid"]) == {str(place.user)}
    assert {int(fields[name][0], 16) for name in ("CapPrm", "CapBnd", "CapAmb")} == {1 << 10}
    assert fields["NoNewPrivs"] == ["1"]
    theirs = [path for path in place.folder.rglob("*") if path.stat().st_uid == place.user]
    assert {path.relative_to(place.folder).parts[0] for path in theirs} == {"run"}
    assert {path.stat().st_mode & 0o007 for path in (place.folder, *place.folder.glob("private/*"))} == {0}


async def it_comes_back_alone(platform: Platform) -> None:
    """Neither whoever tells it what to serve nor the cluster is needed for that."""
    assert platform.worker
    await platform.worker.close()
    platform.tenant.away = True
    assert await platform.asked() == "one"
    before = await platform.pid()
    os.kill(before, signal.SIGKILL)

    async def another() -> bool:
        return await platform.pid() not in (0, before)

    await until(another, "nginx to be started again")
    await platform.answers("one")
    platform.tenant.away = False
    await platform.begin().know(platform.record)


async def hosts_are_granted(platform: Platform) -> None:
    platform.granted.grant("www.example.org", grantee(platform.record))
    # Whoever begins anew knows of it at once; one that works looks at grants now and then.
    assert platform.worker
    await platform.worker.close()
    await platform.begin().know(platform.record)
    await platform.answers("one", host="www.example.org")


async def a_killed_supervisor_takes_nothing_with_it(platform: Platform) -> None:
    """The worker, a host service itself, neither starts it nor ends anything; `down` then finds nginx."""
    assert platform.worker
    before = await platform.pid()
    supervisor = int((platform.folder / "run/supervisor.pid").read_text())
    await platform.worker.close()
    os.kill(supervisor, signal.SIGKILL)

    async def gone() -> bool:
        return command_line(supervisor) == ()

    await until(gone, "supervisord to be gone")
    keeper = HostKeeper(platform.manager(begins=False), place_of(platform.record, platform.ground).service)
    with pytest.raises(UnavailableError, match="supervisord does not answer"):
        await keeper.resume()
    assert await platform.asked() == "one"
    await platform.services.shut_down()
    assert command_line(before) == ()
    assert await platform.asked() != "one"
    await platform.begin().know(platform.record)
    await platform.answers("one")


async def it_rests_and_ends(platform: Platform) -> None:
    assert platform.worker
    asleep = replace(platform.record, standing=Standing.ASLEEP, nodes=())
    await platform.worker.know(asleep)
    await platform.answers("503")
    # After a `down` and an `up`, neither of which asks what sleeps.
    await platform.worker.close()
    await platform.services.stop(place_of(platform.record, platform.ground).service.name)
    assert await platform.pid() == 0
    await platform.begin().know(asleep)
    await platform.answers("503")
    assert platform.worker
    await platform.worker.know(platform.record)
    await platform.answers("one")
    ours = await platform.tenant.list(SERVICES, labels=OPENING_LABEL)
    await platform.tenant.delete(INGRESSES, "web", "shop")
    await platform.tenant.delete(INGRESSES, "theirs", "shop")
    assert len(ours) == 1

    async def closed() -> bool:
        return not await platform.tenant.list(SERVICES, labels=OPENING_LABEL) and await platform.pid() == 0

    await until(closed, "the opening and nginx to go")
    await platform.management.apply(NAMESPACES, {"metadata": {"name": INGRESS.name}})
    address = await given_address(platform.management, replace(INGRESS, addresses="10.198.0.0/28"), "uid-of-first")
    assert address == "10.198.0.1"
    await platform.worker.know(deleted(platform.record))
    await until(forgotten(platform), "the record to go")
    assert not place_of(platform.record, platform.ground).folder.exists()
    assert await platform.management.list(CONFIG_MAPS, INGRESS.name) == []
    # Nobody has what it was granted, whoever gets its name.
    assert GrantedHosts(platform.ground.files.hosts, zone=platform.ground.zone).all() == {}
