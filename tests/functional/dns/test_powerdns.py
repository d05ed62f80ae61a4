"""What PowerDNS is asked as a zone grows, and that what is known of a zone is never taken for what is there."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from haneul.dns.adapters.powerdns import PowerDns, PowerDnsAccess
from haneul.dns.model import Change, Key, Present, RecordSet, ZoneChangedError
from tests.dns_servers import LOOPBACK, SECRET, ZONE, ZONES, PowerDnsServer

OWNER = "first/0c5e7a0e"
MANY = 1000
#: Octets that a change of one name may move, with its looks before and after; a zone with MANY names has some 300,000.
FEW = 20_000


def web(name: str = "web", address: str = "10.0.0.1") -> RecordSet:
    return RecordSet(f"{name}.{ZONE}", "A", 5, (address,))


class Counting(PowerDns):
    """A client that passes through a port of its own, at which octets are counted."""

    def __init__(self, server: PowerDnsServer, port: int) -> None:
        super().__init__(PowerDnsAccess(f"http://{LOOPBACK}:{port}", SECRET, ZONES))
        self.moved = 0
        self._target = server.api_port

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(LOOPBACK, self._target)
        await asyncio.gather(self._pump(reader, to_server), self._pump(from_server, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                self.moved += len(piece)
                writer.write(piece)
                await writer.drain()
        writer.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[PowerDnsServer]:
    started = PowerDnsServer(tmp_path)
    with (tmp_path / "pdns.conf").open("a") as file:
        file.write("default-api-rectify=no\nnegquery-cache-ttl=0\ncache-ttl=0\nquery-cache-ttl=0\n")
    try:
        await started.start()
        yield started
    finally:
        await started.end()


@pytest.fixture
async def client(server: PowerDnsServer) -> AsyncIterator[Counting]:
    made: list[Counting] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await made[0].pass_on(reader, writer)

    listener = await asyncio.start_server(pass_on, LOOPBACK, 0)
    made.append(Counting(server, listener.sockets[0].getsockname()[1]))
    try:
        yield made[0]
    finally:
        await made[0].close()
        listener.close()


@pytest.fixture
async def other(server: PowerDnsServer) -> AsyncIterator[Any]:
    made = server.provider()
    yield made
    await made.close()


async def test_a_change_of_one_name_moves_little_however_many_there_are(client: Counting) -> None:
    many = [web(f"n{number}", f"10.0.{number // 250}.{number % 250}") for number in range(MANY)]
    await client.apply(ZONE, OWNER, [Change(None, one) for one in many])
    # Who gives so many looks at the whole zone, and knows it from then on.
    assert client.moved > FEW
    before = client.moved
    for number in range(3):
        await client.apply(ZONE, OWNER, [Change(None, web(f"more-{number}"))])
        await client.apply(ZONE, OWNER, [Change(web(f"more-{number}"), None)])
    assert (client.moved - before) / 6 < FEW
    # And what is known is what is there.
    before = client.moved
    known = (await client.read(ZONE)).sets
    assert client.moved - before < FEW
    assert {key: there for key, there in known.items() if there.owner} == {one.key: Present(one, OWNER) for one in many}


async def test_what_somebody_else_changed_is_seen_before_anything_is_written(
    client: Counting, other: PowerDns, server: PowerDnsServer
) -> None:
    await client.apply(ZONE, OWNER, [Change(None, web())])
    await client.read(ZONE)
    await server.by_hand(web("web", "10.0.0.9"))
    with pytest.raises(ZoneChangedError):
        await client.apply(ZONE, OWNER, [Change(web(), None)])
    await client.read(ZONE)
    await other.apply(ZONE, "second/9b8f3c52", [Change(None, web("theirs"))])
    with pytest.raises(ZoneChangedError):
        await client.apply(ZONE, OWNER, [Change(None, web("theirs", "10.0.0.7"))])
    assert (await client.read(ZONE)).sets[web("theirs").key] == Present(web("theirs"), "second/9b8f3c52")


async def test_a_zone_whose_serial_stays_is_looked_at_for_each_change(client: Counting, server: PowerDnsServer) -> None:
    with contextlib.closing(sqlite3.connect(server.folder / "pdns.sqlite3", timeout=30)) as database:
        database.execute("DELETE FROM domainmetadata WHERE kind = 'SOA-EDIT-API'")
        database.commit()
    await client.apply(ZONE, OWNER, [Change(None, web())])
    before = (await client.read(ZONE)).serial
    await server.by_hand(web("web", "10.0.0.9"))
    with pytest.raises(ZoneChangedError):
        await client.apply(ZONE, OWNER, [Change(web(), None)])
    assert (await client.read(ZONE)).serial == before


async def test_names_between_are_none_that_are_not_there_once_the_zone_was_read_again(
    client: Counting, server: PowerDnsServer
) -> None:
    port = RecordSet(f"_http._tcp.web.{ZONE}", "SRV", 5, (f"0 100 80 web.{ZONE}",))
    await client.apply(ZONE, OWNER, [Change(None, port)])
    await client.read(ZONE)
    between = Key(f"_tcp.web.{ZONE}", "A")
    assert (await server.ask(between)).code == "NOERROR"
    assert (await server.ask(Key(f"_udp.web.{ZONE}", "A"))).code == "NXDOMAIN"
