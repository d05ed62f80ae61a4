"""`haneul check cluster`, against the real API on this machine, and what both checks print."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from haneul.app.main import command_tree
from haneul.cli import check
from haneul.cli.context import Contexts
from haneul.cli.output import Format
from haneul.compliance.benchmark import evaluate
from haneul.compliance.model import Look
from haneul.compliance.snapshot import Snapshot
from haneul.kernel.errors import DeadlineExceededError, HostNotReadyError, NotFoundError
from tests.functional.api.application import START, Api, running_api, served
from tests.unit.compliance.snapshots import document, flags, good

#: A cluster that fails nothing, not even for a reason.
GOOD = document("network", "cilium")(good("tenant"))


class Shell:
    """The command line of alice, and an operator that answers requests for a check with a snapshot."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.snapshot = GOOD

    async def operate(self) -> None:
        """Answer whatever is asked for, as the operator does."""
        async for event in self.api.store.watch("shop"):
            cluster = event.cluster
            if cluster.look_requested:
                look = Look(asked=cluster.look_requested, examined=START, outcomes=evaluate(self.snapshot))
                await self.api.looks.write(cluster.masters_namespace, {}, look)

    async def run(self, *arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, command_tree(), ["check", *arguments])

    async def checked(self, *arguments: str, snapshot: Snapshot | None = None) -> Result:
        self.snapshot = snapshot or self.snapshot
        work = asyncio.create_task(self.operate())
        try:
            return await self.run("cluster", "web", "-p", "shop", *arguments)
        finally:
            work.cancel()


@pytest.fixture
async def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    monkeypatch.setenv("HANEUL_CONFIG", str(tmp_path / "config" / "config.yaml"))
    monkeypatch.setattr(check, "_PAUSE_SECONDS", 0.02)
    async with running_api(tmp_path) as api:
        await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
        async with served(api) as address:
            Contexts.default().sign_in(address, None, api.tokens["alice"])
            yield Shell(api)


async def test_every_item_is_a_line_and_the_counts_are_told(shell: Shell) -> None:
    result = await shell.checked()
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["ITEM", "RESULT", "ASKS", "SEEN"]
    assert len(lines) == 1 + 133
    assert lines[1].startswith("1.1.1   not applicable  ")
    assert "shop/web, CIS Kubernetes Benchmark v1.11: " in result.stderr
    assert " 0 fail (0 of them for a reason" in result.stderr


async def test_json_and_yaml_are_the_whole_report(shell: Shell) -> None:
    report = json.loads((await shell.checked("-o", "json")).stdout)
    assert report["subject"] == "shop/web" and len(report["items"]) == 133
    assert yaml.safe_load((await shell.checked("-o", "yaml")).stdout)["items"] == report["items"]


async def test_a_failure_without_a_reason_ends_the_command_with_twelve(shell: Shell) -> None:
    result = await shell.checked("--only", "fail", snapshot=flags("kube-apiserver", profiling="true")(GOOD))
    assert isinstance(result.exception, check.ItemsFailError)
    assert result.exception.exit_code == 12
    assert "1.2.15" in result.exception.detail
    # What was found is shown all the same.
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ITEM", "1.2.15"]


async def test_a_failure_with_a_reason_is_shown_with_it_and_ends_well(shell: Shell) -> None:
    snapshot = flags("kube-controller-manager", bind_address=None)(GOOD)
    result = await shell.checked("--only", "fail", "-o", "wide", snapshot=snapshot)
    assert result.exit_code == 0, result.output
    heading, line = result.stdout.splitlines()
    assert [word for word in ("CHECKED", "MEND", "REASON") if word in heading] == ["CHECKED", "MEND", "REASON"]
    assert line.startswith("1.3.7") and "the kubelet of the host probes it" in line
    assert "1 fail (1 of them for a reason" in result.stderr


async def test_only_chosen_results_are_shown(shell: Shell) -> None:
    result = await shell.checked("--only", "warn", "--only", "not-applicable", "-o", "json")
    assert {item["result"] for item in json.loads(result.stdout)["items"]} == {"warn", "not applicable"}


async def test_an_older_report_is_no_answer(shell: Shell) -> None:
    await shell.api.looks.write(
        "cluster-shop-web", {}, Look(asked="2026-01-01", examined=START, outcomes=evaluate(GOOD))
    )
    result = await shell.run("cluster", "web", "-p", "shop", "--timeout", "0.3")
    assert isinstance(result.exception, DeadlineExceededError)
    assert result.exception.hint == "'haneul cluster get web' shows what it waits on"


async def test_a_request_that_another_one_displaced_is_made_again(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_ASK_AGAIN_SECONDS", 0.1)
    client = Contexts.default()
    asked: list[str] = []

    def displaced() -> dict[str, Any]:
        with client.client() as api:
            return check.wait_for_report(api, "/projects/shop/clusters/web/benchmark", "web", timeout=60)

    waiting = asyncio.create_task(asyncio.to_thread(displaced))
    while len(asked) < 2 and not waiting.done():
        cluster = await shell.api.store.get("shop", "web")
        if cluster.look_requested and cluster.look_requested not in asked:
            asked.append(cluster.look_requested)
            shell.api.clock.advance(1)
        await asyncio.sleep(0.01)
    await shell.api.looks.write("cluster-shop-web", {}, Look(asked=asked[-1], examined=START, outcomes=evaluate(GOOD)))
    assert (await waiting)["asked"] == asked[-1]


async def test_a_cluster_that_is_not_there_is_told(shell: Shell) -> None:
    result = await shell.run("cluster", "absent", "-p", "shop")
    assert isinstance(result.exception, NotFoundError)


async def test_the_platform_is_checked_by_root_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    result = CliRunner().invoke(command_tree(), ["check", "platform"])
    assert isinstance(result.exception, HostNotReadyError)


def test_csv_has_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    item = {"id": "1.2.1", "result": "pass", "title": "t", "how": "h", "mend": "m", "reason": "", "seen": "s"}
    report = {"subject": "web", "benchmark": "B", "items": [item]}
    check.show_report(report, None, Format.CSV)
    assert capsys.readouterr().out.splitlines() == ["ITEM,RESULT,ASKS,CHECKED,MEND,REASON,SEEN", "1.2.1,pass,t,h,,,s"]
