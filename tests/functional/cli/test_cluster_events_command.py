"""`haneul cluster events` and the end of `haneul cluster get`, against the real API on this machine."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from haneul.app.main import command_tree
from haneul.cli import cluster_events
from haneul.cli.context import Contexts
from haneul.dkos.event_log import EventRecord, MemoryEvents
from haneul.dkos.events import Event, Reason, event
from haneul.dkos.model import Cluster
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HaneulError, InvalidInputError, NotFoundError
from haneul.kernel.waiting import wait_for
from tests.functional.api.application import Api, running_api, served

READY = event(Reason.CLUSTER_READY, "the cluster is ready for the first time")
SILENT = event(Reason.API_SILENT, "waiting for the API server to answer")


class Shell:
    """The command line of alice, signed in to an API whose project ``shop`` has a cluster ``web``."""

    def __init__(self, api: Api, cluster: Cluster) -> None:
        self.api = api
        self.cluster = cluster

    async def happened(self, told: Event, *, times: int = 1) -> None:
        await self.api.events.record(self.cluster, told, times=times, last=SystemClock().now())

    async def run(self, *arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, command_tree(), ["cluster", *arguments, "-p", "shop"])

    async def out(self, *arguments: str) -> str:
        result = await self.run(*arguments)
        if isinstance(result.exception, HaneulError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout


@pytest.fixture
async def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    monkeypatch.setenv("HANEUL_CONFIG", str(tmp_path / "config" / "config.yaml"))
    async with running_api(tmp_path) as api:
        await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
        async with served(api) as address:
            Contexts.default().sign_in(address, None, api.tokens["alice"])
            yield Shell(api, await api.store.get("shop", "web"))


async def test_events_are_a_table_newest_last(shell: Shell) -> None:
    await shell.happened(SILENT, times=3)
    await shell.happened(READY)
    lines = (await shell.out("events", "web")).splitlines()
    assert lines[0].split() == ["LAST", "SEEN", "TYPE", "REASON", "COUNT", "MESSAGE"]
    assert re.fullmatch(r"\d+s +Warning +ApiSilent +3 +waiting for the API server to answer", lines[1])
    assert re.fullmatch(r"\d+s +Normal +ClusterReady +1 +the cluster is ready for the first time", lines[2])
    assert len(lines) == 3
    wide = (await shell.out("events", "web", "-o", "wide")).splitlines()[0]
    assert re.split(" {2,}", wide) == ["LAST SEEN", "FIRST SEEN", "TYPE", "REASON", "COUNT", "NAME", "MESSAGE"]
    last = (await shell.out("events", "web", "--limit", "1")).splitlines()[1:]
    assert [line.split()[2] for line in last] == ["ClusterReady"]


async def test_events_are_documents_and_names(shell: Shell) -> None:
    await shell.happened(SILENT)
    await shell.happened(READY)
    found = json.loads(await shell.out("events", "web", "-o", "json"))
    assert [entry["reason"] for entry in found] == ["ApiSilent", "ClusterReady"]
    assert yaml.safe_load(await shell.out("events", "web", "-o", "yaml")) == found
    assert (await shell.out("events", "web", "-o", "name")).split() == [entry["name"] for entry in found]


async def test_a_quiet_cluster_has_a_heading_only(shell: Shell) -> None:
    assert len((await shell.out("events", "web")).splitlines()) == 1
    assert json.loads(await shell.out("events", "web", "-o", "json")) == []


async def test_what_is_not_there_is_said(shell: Shell) -> None:
    with pytest.raises(NotFoundError) as caught:
        await shell.out("events", "absent")
    assert caught.value.hint
    with pytest.raises(InvalidInputError):
        await shell.out("events", "web", "--watch", "-o", "json")
    assert (await shell.run("events", "web", "--limit", "0")).exit_code == 2


async def test_watching_shows_what_is_new_and_ends_with_the_cluster(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_events, "_PAUSE_SECONDS", 0.05)
    read, looks = MemoryEvents.of, 0

    async def counted(log: MemoryEvents, cluster: Cluster) -> Sequence[EventRecord]:
        nonlocal looks
        looks += 1
        return await read(log, cluster)

    async def looked(times: int) -> None:
        wanted = looks + times

        async def enough() -> bool:
            return looks >= wanted

        await wait_for(enough, what="more looks", timeout=60, interval=0.01, clock=SystemClock())

    monkeypatch.setattr(MemoryEvents, "of", counted)
    await shell.happened(SILENT)
    watching = asyncio.create_task(shell.run("events", "web", "--watch"))
    await looked(2)
    await shell.happened(READY)
    await looked(2)
    await shell.api.call("alice", "DELETE", "/projects/shop/clusters/web", status=202)
    result = await watching
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[2] for line in lines] == ["TYPE", "ApiSilent", "ClusterReady"]
    assert "web is gone" in result.stderr


async def test_a_cluster_is_shown_with_what_happened_last(shell: Shell) -> None:
    assert "REASON" not in await shell.out("get", "web")
    for number in range(7):
        await shell.happened(event(Reason.NODE_READY, f"node default-{number} is ready"))
    shown = (await shell.out("get", "web")).split("\n\n")[-1].splitlines()
    assert shown[0].startswith("LAST SEEN")
    assert [line.split()[-3] for line in shown[1:]] == [f"default-{number}" for number in range(2, 7)]
    assert json.loads(await shell.out("get", "web", "-o", "json"))["name"] == "web"
