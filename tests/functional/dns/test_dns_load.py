"""dnsperf against a real server: what it is told, and what is read of what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from haneul.bench.dns_load import load
from haneul.dns.model import Change, RecordSet
from haneul.kernel.errors import UnavailableError
from tests.dns_servers import LOOPBACK, ZONE, program, running
from tests.ports import port


async def test_answers_are_counted_and_those_with_an_address_told_from_others(tmp_path: Path) -> None:
    program("dnsperf")
    async with running("powerdns", tmp_path) as server:
        provider = server.provider()
        try:
            await provider.apply(ZONE, "owner", [Change(None, RecordSet(f"web.{ZONE}", "A", 5, ("10.0.0.1",)))])
        finally:
            await provider.close()
        found = await load(LOOPBACK, server.port, [f"web.{ZONE}", f"nobody.{ZONE}"], seconds=0.5)
    assert found.rate > 0
    assert 0 < found.well < found.answers


async def test_a_server_that_is_not_there_answers_nothing() -> None:
    program("dnsperf")
    with pytest.raises(UnavailableError):
        await load(LOOPBACK, port(), ["web.example."], seconds=0.2)
