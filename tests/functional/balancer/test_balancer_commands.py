"""``haneul balancer list``, ``check`` and ``withdraw`` against a real HAProxy, and what ``serve`` cannot begin with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from haneul.app.balancer import ServeSettings, networks, serve_balancer
from haneul.app.main import command_tree
from haneul.balancer.adapters.haproxy import HaproxyBalancer
from haneul.balancer.model import Change, Frontend, Listener, Options, Protocol
from haneul.kernel.errors import HaneulError, InvalidInputError
from tests.balancers import CHECK, Echo, address, haproxy, short_folder

OURS, OTHERS = "first/0c5e7a0e", "second/9b8f3c52"


class Ground:
    """Two clusters' frontends on one HAProxy: one with a member, one with none."""

    def __init__(self, folder: Path, balancer: HaproxyBalancer) -> None:
        self.balancer = balancer
        self.echo = Echo("one")
        self.web = Listener(address(), Protocol.TCP, 8080)
        self.empty = Listener(address(), Protocol.TCP, 8080)
        self.settings = folder / "balancer.yaml"
        pools = [{"name": "public", "addresses": ["192.0.2.0/28"], "projects": ["shop"]}]
        document = {"kind": "haproxy", "folder": str(folder / "b"), "maxConnections": 500, "pools": pools}
        self.settings.write_text(yaml.safe_dump(document))

    async def begin(self) -> None:
        frontend = Frontend(self.web, "shop/web", Options(check=CHECK), (await self.echo.start(),))
        await self.balancer.apply(OURS, [Change(None, frontend)])
        await self.balancer.apply(OTHERS, [Change(None, Frontend(self.empty, "shop/empty"))])

    async def run(self, *arguments: str) -> Result:
        """Run a command in a thread: it has an event loop of its own."""
        words = ["balancer", *arguments, "--balancer", str(self.settings)]
        return await asyncio.to_thread(CliRunner().invoke, command_tree(), words)

    async def told(self, *arguments: str) -> Any:
        done = await self.run(*arguments, "-o", "json")
        assert done.exit_code == 0, done.output or repr(done.exception)
        return json.loads(done.stdout)

    async def refused(self, *arguments: str) -> HaneulError:
        done = await self.run(*arguments)
        assert isinstance(done.exception, HaneulError), done.output
        return done.exception


@pytest.fixture
async def ground() -> AsyncIterator[Ground]:
    with short_folder() as folder:
        async with haproxy(folder) as balancer:
            made = Ground(folder, balancer)
            await made.begin()
            yield made
            await made.echo.end()


async def test_lists_checks_and_withdraws(ground: Ground) -> None:
    rows = await ground.told("list")
    assert {(row["address"], row["owner"]) for row in rows} == {
        (ground.web.address, OURS),
        (ground.empty.address, OTHERS),
    }
    assert [row["service"] for row in await ground.told("list", "--owner", OTHERS)] == ["shop/empty"]
    assert [row["owner"] for row in await ground.told("list", "--service", "shop/web")] == [OURS]

    for what in ("shop/web", ground.web.address, f"{ground.web.address}:8080"):
        [row] = await ground.told("check", what)
        assert (row["answer"], row["up"], len(row["members"])) == ("connects", 1, 1)
    assert "no member answers" in (await ground.refused("check", "shop/empty")).detail
    assert (await ground.refused("check", "shop/nobody")).code == "not-found"

    assert (await ground.refused("withdraw", "--owner", OURS)).detail.startswith("1 listener ")
    assert (await ground.run("withdraw", "--owner", OURS, "--yes")).exit_code == 0
    assert [row["owner"] for row in await ground.told("list")] == [OTHERS]
    assert (await ground.refused("withdraw", "--owner", OURS, "--yes")).code == "not-found"


async def test_what_serve_cannot_begin_with(ground: Ground, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    settings = ServeSettings(kubeconfig, "first", "shop", ground.settings, ["10.0.0.0/8"])
    with pytest.raises(InvalidInputError, match="is no file"):
        await serve_balancer(settings)
    user = {"name": "one", "user": {"token": "t"}}
    cluster = {"name": "one", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "one", "context": {"cluster": "one", "user": "one"}}
    document = {"current-context": "one", "contexts": [context], "clusters": [cluster], "users": [user]}
    kubeconfig.write_text(yaml.safe_dump(document))
    with pytest.raises(InvalidInputError):
        await serve_balancer(replace(settings, members=["10.0.0.1/8"]))
    kubeconfig.write_text("contexts: []")
    with pytest.raises(InvalidInputError, match="no kubeconfig"):
        await serve_balancer(settings)


def test_networks_of_members() -> None:
    assert networks(["10.0.0.0/8", "fd00::/8"]) == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    with pytest.raises(InvalidInputError):
        networks(["10.0.0.0/33"])
