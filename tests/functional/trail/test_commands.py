"""``haneul logs`` beside a nginx whose requests are recorded."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from haneul.app.logs_commands import logs_app
from haneul.kernel.errors import ConflictError, InvalidInputError, UnavailableError
from haneul.trail.adapters.nginx_firewall import RulesRefusedError
from tests.functional.trail.watching import CLUSTER, SEES_SQL, SQL, WOULD_REFUSE, Watched, watched


class Commands:
    """The commands, with the files of one cluster."""

    def __init__(self, folder: Path, nginx: Path, **audit: Any) -> None:
        self.config = folder / "shop.yaml"
        told = {"cluster": CLUSTER, "kubeconfig": "none", "folder": str(nginx), "audit": "audit.yaml"}
        self.config.write_text(yaml.safe_dump(told))
        (folder / "audit.yaml").write_text(yaml.safe_dump({"store": "store", **audit}))

    async def result(self, command: str, *arguments: str) -> Result:
        words = [command, CLUSTER, *arguments, "--config", str(self.config)]
        return await asyncio.to_thread(CliRunner().invoke, logs_app, words)

    async def told(self, command: str, *arguments: str) -> Any:
        result = await self.result(command, *arguments, "-o", "json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


def commands(tmp_path: Path, site: Watched) -> Commands:
    return Commands(tmp_path, site.ground.folder)


async def test_after_an_incident_what_was_not_kept_is_collected_and_found(tmp_path: Path) -> None:
    async with watched(tmp_path, keep="errors") as site:
        logs = commands(tmp_path, site)
        for number in range(3):
            await site.ground.ask(f"/item/{number}", headers={"X-Request-ID": f"request-{number:04}"})
        await site.seen(3)
        assert await logs.told("search") == []
        shown = await logs.told("ingress", "--since", "10m")
        assert {record["request"]["uri"] for record in shown} == {"/item/0", "/item/1", "/item/2"}
        assert "3 records" in (await logs.result("ingress", "--since", "10m", "--collect")).output
        (found,) = await logs.told("search", "--path", "/item/*", "--request", "request-0001")
        assert found["request"]["uri"] == "/item/1"
        table = (await logs.result("search", "--client", "127.0.0.1", "-o", "wide")).stdout
        assert table.count("shop/web") == 3
        await write_to_terminals(site)
        # What was collected is no longer in memory.
        await site.seen(1)
        shown = (await logs.result("ingress")).stdout
        assert "/\\u009b31m" in shown
        assert "\x9b" not in shown


async def write_to_terminals(site: Watched) -> None:
    """Ask for a path with control characters, which a client of ours would not send."""
    reader, writer = await asyncio.open_connection(site.ground.address, site.ground.http)
    writer.write(b"GET /\xc2\x9b31m HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n")
    await reader.read()
    writer.close()


async def test_the_ring_is_frozen_saved_and_let_go(tmp_path: Path) -> None:
    async with watched(tmp_path, keep="errors") as site:
        logs = commands(tmp_path, site)
        await site.ground.ask("/a")
        await site.seen(1)
        assert (await logs.result("ingress", "--freeze")).exit_code == 0
        assert isinstance((await logs.result("ingress", "--freeze")).exception, ConflictError)
        file = tmp_path / "incident.jsonl.gz"
        assert (await logs.result("ingress", "--to", str(file))).exit_code == 0
        assert file.stat().st_mode & 0o777 == 0o600
        assert json.loads(gzip.decompress(file.read_bytes()))["request"]["uri"] == "/a"
        assert isinstance((await logs.result("ingress", "--to", str(file))).exception, ConflictError)
        state = json.loads((await logs.result("ingress", "--state")).stdout)
        assert state["ring"]["frozen_records"] == 1
        assert "Let go" in (await logs.result("ingress", "--thaw")).output
        assert "Nothing" in (await logs.result("ingress", "--thaw")).output


async def test_a_replay_says_what_an_exclusion_would_let_through(tmp_path: Path) -> None:
    async with watched(tmp_path) as site:
        logs = commands(tmp_path, site)
        await site.ground.ask(SQL)
        await site.ground.ask("/?q=%3Cscript%3Ealert(1)%3C/script%3E")
        await site.ground.ask("/fine?a=1", method="POST", data={"q": "hello"})
        await site.kept(3)
        proposed = tmp_path / "proposed.conf"
        proposed.write_text(f"SecRuleRemoveById {SEES_SQL}\n")
        told = await logs.told("replay", str(proposed))
        assert (told["replayed"], told["unanswered"]) == (3, 0)
        silenced = {row["rule"]: (row["silenced"], row["matching"]) for row in told["silenced"]}
        assert silenced[SEES_SQL] == (1, 1)
        # The other attack would be refused still.
        assert silenced[WOULD_REFUSE] == (1, 2)
        (through,) = told["letThrough"]
        assert through["request"]["uri"] == SQL
        proposed.write_text("# nothing\n")
        told = await logs.told("replay", str(proposed))
        assert (told["silenced"], told["letThrough"]) == ([], [])
        words = "id:1000,phase:1,pass,nolog,ctl:ruleRemoveTargetById=942100;ARGS:id"
        proposed.write_text(f'SecRule REQUEST_URI "@beginsWith /" "{words}"\n')
        told = await logs.told("replay", str(proposed), "--path", "/")
        assert [row["request"]["uri"] for row in told["letThrough"]] == [SQL]


async def test_rules_that_are_none_are_refused(tmp_path: Path) -> None:
    async with watched(tmp_path) as site:
        await site.ground.ask(SQL)
        await site.kept(1)
        (tmp_path / "proposed.conf").write_text("SecRuleRemoveEverything\n")
        result = await commands(tmp_path, site).result("replay", str(tmp_path / "proposed.conf"))
        assert isinstance(result.exception, RulesRefusedError)
        assert "Rules error" in result.exception.detail


async def test_a_controller_that_does_not_run_is_said_and_what_was_kept_is_found_all_the_same(tmp_path: Path) -> None:
    logs = Commands(tmp_path, tmp_path / "nginx")
    result = await logs.result("ingress")
    assert isinstance(result.exception, UnavailableError)
    assert "haneul logs search" in result.exception.hint
    assert await logs.told("search") == []


@pytest.mark.parametrize(
    "words", [("ingress", "--freeze", "--thaw"), ("search", "--status", "2x"), ("search", "--since", "soon")]
)
async def test_what_is_not_understood_is_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = await Commands(tmp_path, tmp_path / "nginx").result(*words)
    assert isinstance(result.exception, InvalidInputError)
