"""Quotas, usage and wide lists on the command line, against the API on a port of this machine."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from haneul.app.cluster_usage import ClusterSightings
from haneul.app.main import command_tree
from haneul.cli.context import Contexts
from haneul.kernel.database import open_database
from haneul.kernel.errors import ForbiddenError, InvalidInputError, QuotaExceededError
from haneul.usage.record import UsageRecord
from tests.functional.api.application import Api, running_api, served

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running_api(tmp_path) as api:
        yield api


@pytest.fixture
async def run(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Run]:
    """Run a command as a person, in a thread, as it waits for the API."""
    configuration = tmp_path / "client" / "config.yaml"
    monkeypatch.setenv("HANEUL_CONFIG", str(configuration))
    async with served(api) as server:

        async def command(person: str, *words: str) -> Result:
            Contexts(configuration).sign_in(server, None, api.tokens[person])
            return await asyncio.to_thread(CliRunner().invoke, command_tree(), list(words))

        yield command


def rows(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.exception
    return [line.split() for line in result.stdout.splitlines()]


async def test_a_quota_is_set_shown_inherited_and_taken_back(run: Run) -> None:
    await run("admin", "project", "quota", "set", "--platform", "--nodes", "40")
    await run("admin", "project", "quota", "set", "shop", "--clusters", "2", "--memory", "8192")
    changed = await run("admin", "project", "quota", "set", "shop", "--cpu", "12.5", "--inherit", "memory")
    assert rows(changed) == [
        ["RESOURCE", "USED", "LIMIT", "SET", "BY"],
        ["clusters", "0", "2", "project"],
        ["nodes", "0", "40", "platform"],
        ["cpu", "0", "12.5", "project"],
        ["memoryMib", "0", "409600", "built-in"],
        ["addresses", "0", "20", "built-in"],
        ["listeners", "0", "200", "built-in"],
    ]
    assert (await run("alice", "project", "quota", "show", "shop")).stdout == changed.stdout
    shown = yaml.safe_load((await run("alice", "project", "quota", "show", "shop", "-o", "yaml")).stdout)
    assert (shown["project"], shown["limits"]["cpu"]) == ("shop", 12.5)
    platform = rows(await run("alice", "project", "quota", "show", "--platform"))
    assert platform[1:3] == [["clusters", "20", "built-in"], ["nodes", "40", "platform"]]


async def test_what_cannot_be_set_is_said(run: Run) -> None:
    for words in (("shop",), ("shop", "--inherit", "disks"), ("shop", "--platform", "--nodes", "1")):
        assert isinstance((await run("admin", "project", "quota", "set", *words)).exception, InvalidInputError)
    forbidden = await run("alice", "project", "quota", "set", "shop", "--nodes", "1000")
    assert isinstance(forbidden.exception, ForbiddenError)


async def test_a_creation_beyond_the_quota_ends_with_its_code(run: Run) -> None:
    await run("admin", "project", "quota", "set", "shop", "--nodes", "1")
    refused = (await run("alice", "cluster", "create", "web", "-p", "shop", "--nodes", "2", "--no-wait")).exception
    assert isinstance(refused, QuotaExceededError)
    assert refused.exit_code == 11
    assert "2 more asked for" in refused.detail and "quota set shop --nodes 2" in refused.hint


async def test_a_wide_list_shows_what_a_cluster_has(run: Run) -> None:
    words = ("web", "-p", "shop", "--nodes", "3", "--cpu", "1.5", "--memory", "1024", "--no-wait")
    await run("alice", "cluster", "create", *words)
    found = await run("alice", "cluster", "list", "-p", "shop", "-o", "csv")
    [entry] = csv.DictReader(io.StringIO(found.stdout))
    assert {name: entry[name] for name in ("NAME", "PHASE", "NODES", "CPU", "MEMORY", "NETWORK")} == {
        "NAME": "web",
        "PHASE": "Pending",
        "NODES": "0/3",
        "CPU": "4.5",
        "MEMORY": "3Gi",
        "NETWORK": "native",
    }
    wide = await run("alice", "cluster", "list", "-p", "shop", "-o", "wide")
    for heading in ("SINCE", "MASTERS", "CPU", "MEMORY", "AGE", "ENDPOINT"):
        assert heading in wide.stdout.splitlines()[0]


async def test_usage_is_shown_by_cluster_and_by_project(run: Run, api: Api) -> None:
    for name in ("web", "api"):
        await run("alice", "cluster", "create", name, "-p", "shop", "--no-wait")
    engine = open_database(api.database)
    record = UsageRecord(engine, clock=api.clock)
    await record.note(await ClusterSightings(api.store).look())
    api.clock.advance(3600)
    await record.note(await ClusterSightings(api.store).look())
    await engine.dispose()
    assert rows(await run("alice", "usage", "--since", "2h"))[1:] == [
        ["shop", "api", "1.00", "1.00", "2.10", "2.50"],
        ["shop", "web", "1.00", "1.00", "2.10", "2.50"],
    ]
    by_project = await run("admin", "usage", "--by-project", "-o", "csv")
    assert by_project.stdout.splitlines() == [
        "PROJECT,CLUSTER HOURS,NODE HOURS,CORE HOURS,GIB HOURS",
        "shop,2.00,2.00,4.20,5.00",
    ]
    assert isinstance((await run("alice", "usage", "--since", "long")).exception, InvalidInputError)
