"""`haneul login` against a platform in a process of its own: by browser, by device, by token."""

from __future__ import annotations

import json
import re
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from tests.functional.sign_on.processes import CommandLine, Platform, running_platform


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running_platform(tmp_path_factory.mktemp("platform")) as platform:
        platform.add("alice")
        yield platform


@pytest.fixture
def home(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


def address_in(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"https://\S+", line):
            return found[0]
    raise AssertionError(process.wait())


def login_by_browser(platform: Platform, home: CommandLine) -> None:
    arguments = ("login", "--server", platform.origin, "--ca", str(platform.authority), "--browser")
    with home.start(*arguments) as process, platform.browser() as http:
        page = platform.visit(http, address_in(process), "alice")
        answer = platform.submit(http, page, "confirm", decision="allow")
        back = answer.headers["location"]
        # What did not come from the issuer's answer to this request is not taken.
        forged = httpx2.get(back.split("?")[0] + "?code=stolen&state=guess")
        assert forged.status_code == 400
        assert "You can close this page" in httpx2.get(back).text
        assert process.stderr is not None
        assert "as alice" in process.stderr.read()
        assert process.wait(60) == 0


def expire(home: CommandLine) -> None:
    path = home.home / "session.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "expires": datetime.now(UTC).isoformat()}))


def test_signing_in_by_browser_and_out(platform: Platform, home: CommandLine) -> None:
    login_by_browser(platform, home)
    session = home.home / "session.json"
    assert stat.S_IMODE(session.stat().st_mode) == 0o600
    caller = json.loads(home.run("whoami", "-o", "json"))
    assert (caller["person"], bool(caller["session"])) == ("alice", True)
    assert caller["session"] in home.run("session", "list")
    token = json.loads(session.read_text())["access_token"]
    home.run("logout")
    assert not session.exists()
    with platform.browser() as http:
        refused = http.get(f"{platform.origin}/api/v1/whoami", headers={"Authorization": f"Bearer {token}"})
    assert refused.status_code == 401


def test_of_commands_at_the_same_time_one_renews_the_session(platform: Platform, home: CommandLine) -> None:
    login_by_browser(platform, home)
    expire(home)
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda _: home.run("whoami", "-o", "name"), range(4)))
    assert said == ["alice\n"] * 4
    # A token that came twice would have ended it.
    expire(home)
    assert home.run("whoami", "-o", "name") == "alice\n"


def test_signing_in_by_device(platform: Platform, home: CommandLine) -> None:
    arguments = ("login", "--server", platform.origin, "--ca", str(platform.authority), "--device")
    with home.start(*arguments) as process, platform.browser() as http:
        address = address_in(process)
        assert process.stderr is not None
        code = next(found[1] for line in process.stderr if (found := re.search(r"code +([A-Z-]{9})", line)))
        page = platform.visit(http, address, "alice")
        page = platform.submit(http, page, "device", user_code=code)
        assert "signed in" in platform.submit(http, page, "device", user_code=code, decision="allow").text
        assert "as alice" in process.stderr.read()
        assert process.wait(60) == 0
    assert home.run("whoami", "-o", "name") == "alice\n"


def test_tokens_are_as_good_as_ever(platform: Platform, home: CommandLine) -> None:
    login = ("login", "--server", platform.origin, "--ca", str(platform.authority))
    home.run(*login, "--token-file", str(platform.folder / "token"))
    assert home.run("whoami", "-o", "name") == "admin\n"
    home.run(*login, "--token-file", "x", "--device", code=2)


def test_the_audit_record_is_verified_from_outside(platform: Platform, home: CommandLine) -> None:
    login = ("login", "--server", platform.origin, "--ca", str(platform.authority))
    home.run(*login, "--token-file", str(platform.folder / "token"))
    assert "all as they were written" in home.run("audit", "verify")
    anchor = home.home / "anchors"
    anchor.write_text(home.run("audit", "anchor"))
    home.run("group", "create", "writers")
    assert "all as they were written" in home.run("audit", "verify", "--anchors", str(anchor))
    with sqlite3.connect(platform.folder / "haneul.db", timeout=30) as connection:
        [(trigger,)] = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'audit_no_update'").fetchall()
        [(person,)] = connection.execute("SELECT person FROM audit WHERE id = 2").fetchall()
        connection.execute("DROP TRIGGER audit_no_update")
        connection.execute("UPDATE audit SET person = 'eve' WHERE id = 2")
    connection.close()
    assert "record 2 was changed" in home.run("audit", "verify", code=12)
    with sqlite3.connect(platform.folder / "haneul.db", timeout=30) as connection:
        connection.execute("UPDATE audit SET person = ? WHERE id = 2", (person,))
        connection.execute(trigger)
    connection.close()
    assert "all as they were written" in home.run("audit", "verify")
