"""``haneul d2hub user`` and ``project``, and ``haneul image`` against a hub."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from haneul.app.d2hub import HubSettings, serve_hub
from haneul.app.main import command_tree
from haneul.kernel.errors import HaneulError, InvalidInputError
from tests.functional.d2hub.hub import SECRET, Client, Hub, image, sha256


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command_tree(), list(arguments))


def told(*arguments: str) -> str:
    done = run(*arguments)
    assert done.exit_code == 0, done.output or repr(done.exception)
    return done.stdout


def refused(*arguments: str) -> str:
    done = run(*arguments)
    assert isinstance(done.exception, HaneulError), done.output
    return done.exception.code


def as_json(*arguments: str) -> Any:
    return json.loads(told(*arguments, "-o", "json"))


@pytest.fixture
def signed_in(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HANEUL_CONFIG", str(tmp_path / "config" / "config.yaml"))
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    told("image", "login", hub.url, "--user", "admin", "--secret-file", str(secret))
    return tmp_path / "config"


def said(*arguments: str) -> str:
    """Return an error's code, what happened and the hint, in one line."""
    done = run(*arguments)
    assert isinstance(done.exception, HaneulError), done.output or repr(done.exception)
    return f"{done.exception.code}: {done.exception.detail} ({done.exception.hint})"


def not_served(data: Path, *, database_file: Path | None = None) -> str:
    """Return why a registry does not start."""
    with pytest.raises(InvalidInputError) as caught:
        asyncio.run(serve_hub(HubSettings(data, plain_http=True, database_file=database_file)))
    return caught.value.detail


def test_signing_in_keeps_the_secret_to_its_owner(signed_in: Path) -> None:
    assert SECRET not in (signed_in / "hub.yaml").read_text()
    assert (signed_in / "hub-secret").stat().st_mode & 0o077 == 0
    told("image", "logout")
    assert list(signed_in.iterdir()) == []
    assert refused("image", "list") == "unauthenticated"


def test_a_wrong_secret_is_not_kept(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANEUL_CONFIG", str(tmp_path / "config" / "config.yaml"))
    secret = tmp_path / "secret"
    secret.write_text("wrong")
    assert refused("image", "login", hub.url, "--user", "admin", "--secret-file", str(secret)) == "unauthenticated"
    assert not (tmp_path / "config").exists()


def test_looking_around(signed_in: Path, client: Client) -> None:
    made = image(b"layer")
    for tag in ("v1", "v2"):
        client.push(made, tag)
    row = next(row for row in as_json("image", "list", "-p", "shop") if row["name"] == client.repository)
    assert (row["tags"], row["manifests"]) == (2, 1)
    tags = as_json("image", "tags", client.repository)
    assert [(tag["name"], tag["digest"], tag["immutable"]) for tag in tags] == [
        ("v1", made.digest, False),
        ("v2", made.digest, False),
    ]
    assert tags[0]["bytes"] == len(made.manifest) + len(made.config) + len(b"layer")
    shown = as_json("image", "show", f"{client.repository}:v1")
    assert (shown["digest"], shown["tags"]) == (made.digest, ["v1", "v2"])
    table = told("image", "show", f"{client.repository}@{made.digest}")
    assert sha256(b"layer") in table
    usage = as_json("image", "usage", "-p", "shop")
    assert [entry["project"] for entry in usage] == ["shop"]
    assert usage[0]["bytes"] > 0


def test_deleting_and_bringing_back(signed_in: Path, client: Client) -> None:
    made = image(b"layer")
    client.push(made, "v1")
    name = f"{client.repository}:v1"
    assert refused("image", "delete", name) == "invalid-input"
    assert client.get("manifests/v1").status_code == 200
    told("image", "delete", name, "--yes")
    assert client.get("manifests/v1").status_code == 404
    assert [entry["tag"] for entry in as_json("image", "deleted", client.repository)] == ["v1"]
    told("image", "undelete", name)
    assert client.get("manifests/v1").content == made.manifest
    assert refused("image", "undelete", name) == "not-found"
    assert refused("image", "show", f"{client.repository}:v9") == "not-found"


def test_a_dry_collection_only_counts(signed_in: Path) -> None:
    assert as_json("image", "gc", "--dry-run")["dryRun"] is True


def test_retention_lets_go_what_the_rules_say(hub: Hub, signed_in: Path) -> None:
    file = hub.data / "accounts.yaml"
    content = yaml.safe_load(file.read_text())
    rules = {"newest": 1, "days": 0, "keep": ["keep*"]}
    content.setdefault("projects", {})["retained"] = {"retention": rules, "immutableTags": ["v*"]}
    file.write_text(yaml.safe_dump(content))
    with Client(hub, "retained/image", user="admin") as admin:
        made = image(b"layer")
        for tag in ("keep-1", "v1", "old-1", "old-2", "new"):
            admin.push(made, tag)
        listed = [row["name"] for row in as_json("image", "retention", "retained/image")]
        assert listed == ["old-1", "old-2"]
        assert len(admin.get("tags/list").json()["tags"]) == 5
        as_json("image", "retention", "retained/image", "--apply")
        assert admin.get("tags/list").json()["tags"] == ["keep-1", "new", "v1"]


def test_users_and_projects(tmp_path: Path) -> None:
    data = ["--data", str(tmp_path / "hub")]
    secret = told("d2hub", "user", "add", "alice", *data, "--project", "shop:writer", "--project", "*:reader").strip()
    assert len(secret) > 30
    given = tmp_path / "secret"
    given.write_text("from a file\n")
    assert told("d2hub", "user", "add", "root", *data, "--admin", "--secret-file", str(given)) == ""
    assert as_json("d2hub", "user", "list", *data) == [
        {"name": "alice", "admin": False, "projects": {"shop": "writer", "*": "reader"}},
        {"name": "root", "admin": True, "projects": {}},
    ]
    text = (tmp_path / "hub" / "accounts.yaml").read_text()
    assert secret not in text
    assert "from a file" not in text
    assert refused("d2hub", "user", "add", "alice", *data) == "conflict"
    assert refused("d2hub", "user", "add", "Bob!", *data) == "invalid-input"
    assert refused("d2hub", "user", "add", "bob", *data, "--project", "shop:king") == "invalid-input"
    assert told("d2hub", "user", "reset", "alice", *data).strip() != secret
    told("d2hub", "user", "remove", "alice", *data)
    assert refused("d2hub", "user", "remove", "alice", *data) == "not-found"
    told("d2hub", "project", "set", "base", *data, "--public", "--immutable-tag", "v*")
    told("d2hub", "project", "set", "base", *data, "--private")
    assert as_json("d2hub", "project", "list", *data) == [{"name": "base", "public": False, "immutableTags": ["v*"]}]


def test_a_folder_that_is_mistyped_is_not_made(tmp_path: Path) -> None:
    missing, file = tmp_path / "missing", tmp_path / "file"
    file.write_text("")
    for words in (("user", "list"), ("user", "remove", "a"), ("project", "list"), ("project", "set", "a", "--public")):
        assert "not-found: " in said("d2hub", *words, "--data", str(missing))
        assert refused("d2hub", *words, "--data", str(tmp_path)) == "not-found"
    assert "nosuch cannot be read" in not_served(missing, database_file=tmp_path / "nosuch")
    assert "it is a file" in not_served(file)
    assert "it is a file" in said("d2hub", "user", "add", "alice", "--data", str(file))
    add = ["d2hub", "user", "add", "alice", "--data", str(missing), "--secret-file"]
    assert "there is no file" in said(*add, str(tmp_path / "nosuch"))
    assert "is a folder" in said(*add, str(tmp_path))
    assert "holds no secret" in said(*add, str(file))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_registry_does_not_start_with_a_wrong_accounts_file(tmp_path: Path) -> None:
    accounts = tmp_path / "accounts.yaml"
    accounts.write_text("projects:\n  shop: {quotaBytes: much, open: true}\n  base: {notify: [{url: x}]}\n")
    for text in (not_served(tmp_path), said("d2hub", "user", "list", "--data", str(tmp_path))):
        assert "projects.shop.quotaBytes: it should be a valid integer" in text
        assert "projects.shop.open: there is no such field" in text
        assert "projects.base.notify.0.secretFile: it is missing" in text
        assert "pydantic" not in text
    accounts.write_text("users: [")
    assert "line 1, column" in not_served(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["accounts.yaml"]


def test_signing_in_with_what_cannot_be(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANEUL_CONFIG", str(tmp_path / "config" / "config.yaml"))
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    login = ["image", "login", "--user", "admin", "--secret-file"]
    assert "there is no file" in said(*login, str(tmp_path / "nosuch"), hub.url)
    assert "is a folder" in said(*login, str(tmp_path), hub.url)
    assert "--ca names" in said(*login, str(secret), hub.url, "--ca", str(tmp_path / "nosuch"))
    assert "holds no certificate" in said(*login, str(secret), hub.url, "--ca", str(secret))
    assert "write https://hub.example.com" in said(*login, str(secret), "hub.example.com")
    assert "without TLS" in said(*login, str(secret), hub.url.replace("http:", "https:"))
    assert not (tmp_path / "config").exists()


def test_signed_in_without_the_right(hub: Hub, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANEUL_CONFIG", str(tmp_path / "config" / "config.yaml"))
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    told("image", "login", hub.url, "--user", "writer", "--secret-file", str(secret))
    text = said("image", "gc", "--dry-run")
    assert "forbidden: writer is no administrator" in text
    assert "--admin" in text
    for words in (("audit", "shop"), ("deliveries", "shop"), ("redeliver", "shop", "1")):
        assert "forbidden: only an owner of the project shop" in said("image", *words)
    told("image", "login", hub.url)
    assert refused("image", "gc", "--dry-run") == "unauthenticated"


def test_what_is_not_there_has_no_empty_list(signed_in: Path, client: Client) -> None:
    client.push(image(b"layer"), "v1")
    assert as_json("image", "deleted", client.repository) == []
    assert as_json("image", "history", f"{client.repository}:v1") == []
    assert as_json("image", "deliveries", "shop") == []
    for words in (
        ("deleted", "shop/nosuch"),
        ("history", "shop/nosuch:v1"),
        ("audit", "nosuch"),
        ("deliveries", "nosuch"),
    ):
        assert "there is no" in said("image", *words)
    assert run("image", "deliveries", "shop", "--state", "faild").exit_code == 2
    assert run("image", "redeliver", "shop", "x").exit_code == 2


def test_where_a_registry_is_reached() -> None:
    data = Path("unused")
    assert HubSettings(data, "::", hosts=("hub.example.com", "b")).reached_at == "https://hub.example.com:5443"
    assert HubSettings(data, "::1", 80, plain_http=True).reached_at == "http://[::1]:80"
    assert HubSettings(data, hosts=("hub.example.com",), url="https://proxy").reached_at == "https://proxy"
