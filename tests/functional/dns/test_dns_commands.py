"""``haneul dns list``, ``check`` and ``withdraw`` against real servers, and the files that name them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from haneul.app.dns import ServeSettings, serve_dns
from haneul.app.main import command_tree
from haneul.dns.model import Change, RecordSet
from haneul.dns.settings import read_secret, read_settings
from haneul.kernel.errors import ForbiddenError, HaneulError, InvalidInputError
from tests.dns_servers import SECRET, ZONE, Server, running

OURS, OTHERS = "first/0c5e7a0e", "second/9b8f3c52"
WEB = RecordSet(f"web.first.{ZONE}", "A", 5, ("10.0.0.1",))


@pytest.fixture(params=["powerdns", "bind"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    async with running(request.param, tmp_path / "server") as started:
        provider = started.provider()
        await provider.apply(ZONE, OURS, [Change(None, WEB)])
        await provider.apply(ZONE, OTHERS, [Change(None, RecordSet(f"web.second.{ZONE}", "A", 5, ("10.0.0.2",)))])
        await provider.close()
        await started.by_hand(RecordSet(f"by-hand.{ZONE}", "A", 60, ("192.0.2.1",)))
        yield started


@pytest.fixture
def settings(server: Server, tmp_path: Path) -> str:
    return str(written(tmp_path, server.settings()))


def written(folder: Path, document: dict[str, Any], secret: str = SECRET) -> Path:
    key = folder / "key"
    key.write_text(f"{secret}\n")
    key.chmod(0o600)
    file = folder / "provider.yaml"
    file.write_text(yaml.safe_dump({**document, "keyFile": "key"}))
    return file


async def run(*arguments: str) -> Result:
    """Run a command in a thread: it has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, command_tree(), ["dns", *arguments])


async def told(*arguments: str) -> Any:
    done = await run(*arguments, "-o", "json")
    assert done.exit_code == 0, done.output or repr(done.exception)
    return json.loads(done.stdout)


async def refused(*arguments: str) -> str:
    done = await run(*arguments)
    assert isinstance(done.exception, HaneulError), done.output
    return done.exception.code


async def test_lists_checks_and_withdraws(settings: str) -> None:
    rows = await told("list", "--provider", settings)
    assert {(row["name"], row["owner"]) for row in rows} == {(WEB.name, OURS), (f"web.second.{ZONE}", OTHERS)}
    assert [row["name"] for row in await told("list", "--provider", settings, "--owner", OURS)] == [WEB.name]
    assert [row["owner"] for row in await told("list", "--provider", settings, "--below", f"second.{ZONE}")] == [OTHERS]

    [row] = await told("check", "WEB.first.corp.example", "--provider", settings)
    assert (row["values"], row["owner"], row["answer"]) == (["10.0.0.1"], OURS, "the same")
    [row] = await told("check", f"by-hand.{ZONE}", "--provider", settings)
    assert (row["owner"], row["answer"]) == ("", "the same")
    assert await refused("check", f"nobody.{ZONE}", "--provider", settings) == "not-found"
    assert await refused("check", "www.example.org", "--provider", settings) == "not-found"

    assert await refused("list", "--provider", settings, "--below", "example.org") == "invalid-input"
    why = {row["stage"]: row["seen"] for row in await told("why", WEB.name, "--provider", settings)}
    assert OURS in why["record"]
    assert why["server"].endswith(f"A NOERROR {WEB.values[0]}")
    [step] = await told("why", "www.example.org", "--provider", settings)
    assert "others are asked" in step["seen"]
    done = await run("withdraw", "--provider", settings, "--owner", OURS)
    assert isinstance(done.exception, InvalidInputError)
    assert done.exception.detail.startswith("1 record set ")
    assert (await run("withdraw", "--provider", settings, "--owner", OURS, "--yes")).exit_code == 0
    assert [row["owner"] for row in await told("list", "--provider", settings)] == [OTHERS]
    assert await refused("withdraw", "--provider", settings, "--owner", OURS, "--yes") == "not-found"
    [row] = await told("check", f"by-hand.{ZONE}", "--provider", settings)


def test_a_secret_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    file = written(tmp_path, {"kind": "powerdns", "url": "https://dns.example", "zones": ["corp.example"]})
    key = read_settings(file).key_file
    assert read_secret(key) == SECRET
    for mode in (0o640, 0o604):
        key.chmod(mode)
        with pytest.raises(ForbiddenError) as caught:
            read_secret(key)
        assert SECRET not in f"{caught.value.detail} {caught.value.hint}"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"url": "http://192.0.2.1:8081"}, "plain HTTP"),
        ({"url": "ftp://dns.example"}, "HTTP server"),
        ({"zones": []}, "zones"),
        ({"zones": ["a..b"]}, "no DNS name"),
        ({"secret": "written here"}, "secret"),
        ({"kind": "other"}, "kind"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    document = {"kind": "powerdns", "url": "https://dns.example", "zones": ["corp.example"], **change}
    with pytest.raises(InvalidInputError) as caught:
        read_settings(written(tmp_path, document))
    assert word in caught.value.detail
    assert "written here" not in caught.value.detail


async def test_keys_and_authorities_that_are_none(tmp_path: Path) -> None:
    server = {"kind": "rfc2136", "address": "127.0.0.1", "keyName": "haneul", "zones": ["corp.example"]}
    assert await refused("list", "--provider", str(written(tmp_path, server, secret="no base64!"))) == "invalid-input"
    (tmp_path / "ca.crt").write_text("no certificate")
    for authority in ("ca.crt", "nowhere.crt"):
        settings = {"kind": "powerdns", "url": "https://dns.example", "authority": authority, "zones": ["corp.example"]}
        assert await refused("list", "--provider", str(written(tmp_path, settings))) == "invalid-input"


@pytest.mark.parametrize("text", ["", "- a list", "{", "kind: powerdns"])
def test_files_that_say_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "provider.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInputError):
        read_settings(file)
    with pytest.raises(InvalidInputError):
        read_settings(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "powerdns", "url": "http://127.0.0.1:1", "zones": ["corp.example"]},
        {"kind": "rfc2136", "address": "127.0.0.1", "port": 1, "keyName": "haneul", "zones": ["corp.example"]},
    ],
)
async def test_a_server_that_does_not_answer(tmp_path: Path, document: dict[str, Any]) -> None:
    done = await run("list", "--provider", str(written(tmp_path, document)))
    assert isinstance(done.exception, HaneulError)
    assert done.exception.code == "unavailable"
    assert "Connection refused" in done.exception.detail
    assert "ssl" not in done.exception.detail
    assert "in the provider's file" in done.exception.hint


@pytest.mark.parametrize("text", ["", "contexts: []", "a: [", "current-context: x\ncontexts: [{name: x}]"])
async def test_a_kubeconfig_that_is_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match="no kubeconfig"):
        await serve_dns(ServeSettings(file, "shop", "corp.example", tmp_path / "provider.yaml"))
