"""The accounts file: who waits for whom, and what becomes of the file."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from haneul.d2hub.adapters.file_accounts import FileAccounts, Role
from haneul.d2hub.model import Account
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import InvalidInputError, UnavailableError

ALICE = Account("alice")


@pytest.fixture
def accounts(tmp_path: Path) -> FileAccounts:
    accounts = FileAccounts(tmp_path / "accounts.yaml", clock=VirtualClock(datetime(2026, 11, 24, tzinfo=UTC)))
    accounts.add_user("alice", "right", admin=False, projects={"shop": Role.WRITER})
    return accounts


async def test_who_guesses_makes_nobody_else_wait(accounts: FileAccounts) -> None:
    guesses = [
        asyncio.ensure_future(accounts.sign_in("alice", f"wrong {number}", client="192.0.2.1")) for number in range(150)
    ]
    await asyncio.sleep(0)
    assert await accounts.sign_in("alice", "right", client="192.0.2.2") == ALICE
    assert sum(guess.done() and guess.exception() is None for guess in guesses) <= 8
    refused = [guess for guess in guesses if guess.done() and isinstance(guess.exception(), UnavailableError)]
    assert len(refused) == 50
    for guess in guesses:
        guess.cancel()
    await asyncio.gather(*guesses, return_exceptions=True)
    assert await accounts.sign_in("alice", "right", client="192.0.2.1") == ALICE


@pytest.mark.parametrize("content", [b"\xff\xfe", b"users: [", b"users: {alice: 1}", None])
async def test_a_file_that_cannot_be_read_changes_nothing(
    accounts: FileAccounts, tmp_path: Path, content: bytes | None
) -> None:
    assert await accounts.account("alice") == ALICE
    path = tmp_path / "accounts.yaml"
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    for _ in range(2):
        assert await accounts.account("alice") == ALICE
    with pytest.raises(InvalidInputError):
        accounts.add_user("bob", "secret", admin=False, projects={})


def test_a_changed_file_keeps_its_owner_and_group(accounts: FileAccounts, tmp_path: Path) -> None:
    path = tmp_path / "accounts.yaml"
    # Only root gives files away; others would change a file of their own.
    wanted = (12345, 12346) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, *wanted)
    accounts.set_secret("alice", "another")
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (*wanted, 0o600)


@pytest.mark.parametrize(
    "entry",
    [
        "{}",
        "{url: ftp://registry.example.com}",
        "{url: registry.example.com}",
        "{url: 'https://alice:secret@registry.example.com'}",
        "{url: https://registry.example.com/team}",
        "{url: https://registry.example.com, password: secret}",
        "{url: http://registry.example.com, credentialsFile: secret}",
        "{url: https://registry.example.com, refreshMinutes: -1}",
        "{url: https://registry.example.com, refreshMinutes: .inf}",
        "{url: https://registry.example.com, defaultNamespace: a/b}",
    ],
)
def test_mirrors_that_cannot_be(tmp_path: Path, entry: str) -> None:
    file = tmp_path / "accounts.yaml"
    file.write_text(f"projects: {{far: {{mirror: {entry}}}}}")
    with pytest.raises(InvalidInputError):
        FileAccounts(file, clock=VirtualClock(datetime(2026, 11, 24, tzinfo=UTC))).rules("far")


def test_a_mirrors_files_lie_beside_the_accounts(tmp_path: Path) -> None:
    file = tmp_path / "accounts.yaml"
    file.write_text(
        "projects: {far: {mirror: {url: https://registry.example.com/, credentialsFile: far.secret, caFile: /etc/ca}}}"
    )
    mirror = FileAccounts(file, clock=VirtualClock(datetime(2026, 11, 24, tzinfo=UTC))).rules("far").mirror
    assert mirror is not None
    assert (mirror.url, mirror.credentials_file, mirror.ca_file) == (
        "https://registry.example.com",
        tmp_path / "far.secret",
        Path("/etc/ca"),
    )


def test_a_mirror_stays_one_when_other_rules_of_its_project_change(tmp_path: Path) -> None:
    file = tmp_path / "accounts.yaml"
    file.write_text("projects: {far: {mirror: {url: https://registry.example.com, credentialsFile: far.secret}}}")
    accounts = FileAccounts(file, clock=VirtualClock(datetime(2026, 11, 24, tzinfo=UTC)))
    before = accounts.rules("far").mirror
    assert accounts.set_project("far", public=True).public
    assert accounts.rules("far").mirror == before
    assert before is not None
