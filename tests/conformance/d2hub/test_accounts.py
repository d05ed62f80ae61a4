"""What accounts promise, whether they are a file's users or a platform's people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pytest

from haneul.d2hub.adapters.file_accounts import FileAccounts, Role
from haneul.d2hub.adapters.memory_platform import MemoryPlatform
from haneul.d2hub.model import EVERY_ACTION, Account, Action, ProjectRole, Standing
from haneul.d2hub.platform_accounts import REMEMBER_SECONDS, PlatformAccounts
from haneul.d2hub.ports import Accounts
from haneul.d2hub.sealing import Seal
from haneul.kernel.clock import VirtualClock

PULL = frozenset({Action.PULL})
WRITE = frozenset({Action.PULL, Action.PUSH})


class Office(Protocol):
    """Whoever says who there is."""

    accounts: Accounts

    def add(self, name: str, secret: str, *, admin: bool = False, roles: Mapping[str, Role] = {}) -> None:
        """Let somebody in, or change what they may."""
        ...

    def remove(self, name: str) -> None:
        """Let somebody in no more."""
        ...

    async def settle(self) -> None:
        """Wait until what was changed holds, which is a minute at most."""
        ...


class FileOffice:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "accounts.yaml"
        self.file = FileAccounts(self.path, clock=_clock())
        self.accounts: Accounts = self.file

    def add(self, name: str, secret: str, *, admin: bool = False, roles: Mapping[str, Role] = {}) -> None:
        if any(user["name"] == name for user in self.file.users()):
            self.file.remove_user(name)
        self.file.add_user(name, secret, admin=admin, projects=roles)

    def remove(self, name: str) -> None:
        self.file.remove_user(name)

    async def settle(self) -> None:
        return


class PlatformOffice:
    ROLES = {Role.READER: ProjectRole.VIEWER, Role.WRITER: ProjectRole.DEVELOPER, Role.OWNER: ProjectRole.OWNER}

    def __init__(self, folder: Path) -> None:
        self.clock, self.platform = _clock(), MemoryPlatform()
        rules = FileAccounts(folder / "accounts.yaml", clock=self.clock)
        self.accounts: Accounts = PlatformAccounts(self.platform, rules, Seal(b"key"), clock=self.clock)

    def add(self, name: str, secret: str, *, admin: bool = False, roles: Mapping[str, Role] = {}) -> None:
        self.remove(name)
        known = {project: self.ROLES[role] for project, role in roles.items()}
        self.platform.tokens[secret] = Standing(name, admin, roles=known)

    def remove(self, name: str) -> None:
        self.platform.tokens = {text: one for text, one in self.platform.tokens.items() if one.name != name}

    async def settle(self) -> None:
        await self.clock.sleep(REMEMBER_SECONDS)


def _clock() -> VirtualClock:
    return VirtualClock(datetime(2026, 11, 27, tzinfo=UTC))


@pytest.fixture(params=[FileOffice, PlatformOffice], ids=["file", "platform"])
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Office:
    (tmp_path / "accounts.yaml").write_text("projects: {open: {public: true}}\n")
    made: Office = request.param(tmp_path)
    return made


async def signed_in(office: Office, name: str, secret: str) -> Account:
    account = await office.accounts.sign_in(name, secret)
    assert account is not None
    return account


async def test_only_the_right_name_with_the_right_secret_signs_in(office: Office) -> None:
    office.add("alice", "right")
    office.add("bob", "another")
    assert await office.accounts.sign_in("alice", "right") == Account("alice")
    for name, secret in (
        ("alice", "wrong"),
        ("alice", "another"),
        ("bob", "right"),
        ("nobody", "right"),
        ("alice", ""),
        ("", "right"),
        ("alice", "x" * 100_000),
    ):
        assert await office.accounts.sign_in(name, secret) is None, (name, secret[:10])


async def test_roles_are_of_their_project(office: Office) -> None:
    office.add("alice", "secret", roles={"shop": Role.OWNER, "lab": Role.WRITER, "data": Role.READER})
    alice = await signed_in(office, "alice", "secret")
    allowed = {name: await office.accounts.allowed(alice, name) for name in ("shop", "lab", "data", "other", "open")}
    assert allowed == {"shop": EVERY_ACTION, "lab": WRITE, "data": PULL, "other": frozenset(), "open": PULL}


async def test_administrators_may_everything(office: Office) -> None:
    office.add("root", "secret", admin=True)
    root = await signed_in(office, "root", "secret")
    assert root.admin
    assert await office.accounts.allowed(root, "anything") == EVERY_ACTION


async def test_anybody_pulls_what_is_public_and_nothing_else(office: Office) -> None:
    assert await office.accounts.allowed(None, "open") == PULL
    assert await office.accounts.allowed(None, "shop") == frozenset()


async def test_who_signed_in_is_known_by_name(office: Office) -> None:
    office.add("alice", "secret", roles={"shop": Role.WRITER})
    await signed_in(office, "alice", "secret")
    found = await office.accounts.account("alice")
    assert found == Account("alice")
    assert await office.accounts.allowed(found, "shop") == WRITE
    assert await office.accounts.account("nobody") is None


async def test_a_sign_in_that_holds_is_looked_at_again(office: Office) -> None:
    office.add("alice", "secret", roles={"shop": Role.WRITER})
    alice = await signed_in(office, "alice", "secret")
    assert alice.proof
    assert "secret" not in alice.proof
    await office.settle()
    again = await office.accounts.again("alice", alice.proof)
    assert again == Account("alice")
    assert await office.accounts.allowed(again, "shop") == WRITE


async def test_a_proof_is_good_for_its_own_account(office: Office) -> None:
    office.add("alice", "secret")
    office.add("root", "another", admin=True)
    alice = await signed_in(office, "alice", "secret")
    for name, proof in (("root", alice.proof), ("alice", "made up"), ("alice", alice.proof[:-2] + "AA")):
        assert await office.accounts.again(name, proof) is None, (name, proof)


async def test_who_is_gone_is_out_within_a_minute(office: Office) -> None:
    office.add("alice", "secret")
    alice = await signed_in(office, "alice", "secret")
    office.remove("alice")
    await office.settle()
    assert await office.accounts.again("alice", alice.proof) is None
    assert await office.accounts.sign_in("alice", "secret") is None


async def test_another_secret_ends_sign_ins_by_the_one_before(office: Office) -> None:
    office.add("alice", "secret")
    alice = await signed_in(office, "alice", "secret")
    office.add("alice", "another")
    await office.settle()
    assert await office.accounts.again("alice", alice.proof) is None
    assert await office.accounts.sign_in("alice", "another") == Account("alice")


async def test_another_role_holds_within_a_minute(office: Office) -> None:
    office.add("alice", "secret", roles={"shop": Role.OWNER})
    alice = await signed_in(office, "alice", "secret")
    if isinstance(office, FileOffice):
        # A user that is made anew has another secret; a role changes where it stands.
        office.path.write_text(office.path.read_text().replace("owner", "reader"))
    else:
        office.add("alice", "secret", roles={"shop": Role.READER})
    await office.settle()
    again = await office.accounts.again("alice", alice.proof)
    assert again is not None
    assert await office.accounts.allowed(again, "shop") == PULL
