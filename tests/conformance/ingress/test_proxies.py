"""What every proxy does: the behaviour suite of the port Proxy, with real nginx and the one in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from haneul.ingress.adapters.memory import MemoryProxy
from haneul.ingress.ports import Configuration, ConfigurationRefusedError, Proxy
from haneul.ingress.table import Table
from tests.ingress_proxy import Application, Ground, ground
from tests.unit.ingress.objects import ingress

BROKEN = "no_such_directive"
HOSTS = ("www.example.com", "new.example.com")


@dataclass
class Served:
    """A proxy, what it may be told, and what it serves."""

    proxy: Proxy
    made: Callable[[int], tuple[Configuration, Table]]
    #: How many of the hosts are served, and by how many endpoints each.
    seen: Callable[[], Awaitable[tuple[int, int]]]
    real: Ground | None = None


@pytest.fixture(params=["memory", "nginx"])
async def served(request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    if request.param == "memory":
        proxy = MemoryProxy(refuses=BROKEN)

        def made(hosts: int) -> tuple[Configuration, Table]:
            text = " ".join(HOSTS[:hosts])
            return Configuration(text, text), Table({"u": {"peers": [["127.0.0.1", 1]]}})

        async def seen() -> tuple[int, int]:
            text = proxy.configuration.text if proxy.configuration else ""
            return len(text.split()), len(proxy.table.entries.get("u", {}).get("peers", []))

        yield Served(proxy, made, seen)
        return
    async with ground() as real, Application("one").running() as one:
        real.point("web", one)
        yield Served(real.proxy, lambda hosts: with_hosts(real, hosts), lambda: asked(real), real)


def with_hosts(real: Ground, hosts: int) -> tuple[Configuration, Table]:
    for host in HOSTS[:hosts]:
        real.see(ingress(host.partition(".")[0], host=host))
    return real.made()


async def asked(real: Ground) -> tuple[int, int]:
    statuses = [(await real.ask(host=host)).status for host in HOSTS]
    return sum(status != 404 for status in statuses), sum(status == 200 for status in statuses[:1])


async def route(served: Served, hosts: int) -> tuple[Configuration, Table]:
    """Route some hosts, with the retries that a test's nginx needs to find an address."""
    configuration, table = served.made(hosts)
    if served.real:
        await served.real.route()
        return served.real.made()
    await served.proxy.route(configuration, table)
    return configuration, table


async def test_routes_are_served_with_their_endpoints(served: Served) -> None:
    await route(served, 1)
    assert await served.seen() == (1, 1)
    await route(served, 2)
    assert await served.seen() == (2, 1)


async def test_endpoints_change_alone(served: Served) -> None:
    _, table = await route(served, 1)
    [name] = table.entries
    await served.proxy.point(Table({name: {"peers": []}}))
    assert await served.seen() == (1, 0)
    await served.proxy.point(table)
    assert await served.seen() == (1, 1)


async def test_the_same_may_be_told_again(served: Served) -> None:
    configuration, table = await route(served, 1)
    await served.proxy.route(configuration, table)
    await served.proxy.point(table)
    assert await served.seen() == (1, 1)


async def test_what_is_refused_changes_nothing(served: Served) -> None:
    configuration, _ = await route(served, 1)
    broken = Configuration(f"{configuration.text} {BROKEN};", "broken")
    with pytest.raises(ConfigurationRefusedError, match=BROKEN):
        await served.proxy.check(broken)
    with pytest.raises(ConfigurationRefusedError):
        await served.proxy.route(broken, Table())
    assert await served.seen() == (1, 1)
    await served.proxy.check(configuration)
