"""``haneul auth`` as people type it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from haneul.app.main import command_tree
from haneul.kernel.errors import InvalidInputError
from haneul.signon.adapters.key_file import read_keys
from tests.functional.signon.gate import write_settings


@pytest.fixture
def config(tmp_path: Path) -> str:
    return str(write_settings(tmp_path, "https://id.test"))


def said(*arguments: str) -> str:
    done = CliRunner().invoke(command_tree(), ["auth", *arguments])
    if done.exception is not None:
        raise done.exception
    return done.output


def test_what_nginx_needs_is_printed_by_where_it_stands(config: str) -> None:
    text = said("nginx", "--config", config, "--project", "shop", "--email", "Bob@example.com")
    assert "# In each location for members of the project shop, bob@example.com:" in text
    assert 'set $haneul_rule "project:shop email:bob@example.com";' in text
    assert "server 127.0.0.1:7480;" in text and "server_name auth.apps.test;" in text


def test_a_rule_has_to_be_chosen(config: str) -> None:
    for arguments in ([], ["--anyone", "--group", "ops"]):
        with pytest.raises(InvalidInputError):
            said("nginx", "--config", config, *arguments)


def test_keys_are_rotated(config: str, tmp_path: Path) -> None:
    assert "There are 2 keys." in said("rotate", "--config", config)
    before = read_keys(tmp_path / "keys")
    assert "There is 1 key." in said("rotate", "--config", config, "--end-sessions")
    assert read_keys(tmp_path / "keys")[0] not in before
