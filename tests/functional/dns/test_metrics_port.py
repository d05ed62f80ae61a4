"""The port of the names' worker: open for probes, with figures for Prometheus."""

from __future__ import annotations

import aiohttp

from haneul.app.alive import METRICS_TYPE, telling
from haneul.dns.metrics import Metrics


async def test_it_tells_what_there_is_when_it_is_asked() -> None:
    metrics = Metrics(lambda: 0.0)
    async with telling(0, metrics.text) as port, aiohttp.ClientSession() as session:
        metrics.of("shop/first/uid").wrote(7)
        async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert (answer.status, answer.headers["Content-Type"]) == (200, METRICS_TYPE)
            assert 'haneul_dns_record_sets_written_total{cluster="shop/first/uid"} 7' in await answer.text()
        async with session.get(f"http://127.0.0.1:{port}/elsewhere") as answer:
            assert answer.status == 404
