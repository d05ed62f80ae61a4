"""What becomes another program does so with its packet rules only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from haneul.host.secluded import secluded
from haneul.kernel.errors import CommandFailedError
from haneul.kernel.process import run

DEADLINE = 60.0
USER = 1_900_000_002


@pytest.fixture(autouse=True)
def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may have packet rules")


async def test_the_rules_are_there_before_the_program_begins(tmp_path: Path) -> None:
    table, rules = f"haneul_test_{os.getpid()}", tmp_path / "rules.nft"
    rules.write_text(f"table ip {table} {{ }}\n")
    try:
        # Again and again, as each start of a service is one.
        for _ in range(2):
            ended = await run(secluded(("/usr/bin/id", "-u"), user=USER, sees=(), rules=rules), timeout=DEADLINE)
            assert ended.stdout.split() == [str(USER)]
            await run(["nft", "list", "table", "ip", table], timeout=DEADLINE)
    finally:
        await run(["nft", "delete", "table", "ip", table], timeout=DEADLINE, check=False)


@pytest.mark.parametrize("wrong", ["no rules", None])
async def test_without_them_it_does_not_begin(tmp_path: Path, wrong: str | None) -> None:
    rules = tmp_path / "rules.nft"
    if wrong is not None:
        rules.write_text(wrong)
    await refused(rules, os.environ["PATH"])


async def test_without_nft_it_does_not_begin(tmp_path: Path) -> None:
    rules = tmp_path / "rules.nft"
    rules.write_text("")
    assert shutil.which("nft", path=str(tmp_path)) is None
    await refused(rules, str(tmp_path))


async def refused(rules: Path, search_path: str) -> None:
    began = ("/usr/bin/printf", "it %s", "began")
    with pytest.raises(CommandFailedError) as failed:
        await run(secluded(began, user=USER, sees=(), rules=rules), env={"PATH": search_path}, timeout=DEADLINE)
    assert f"the packet rules of {rules} cannot be brought about: " in failed.value.detail
    assert "it began" not in failed.value.detail
