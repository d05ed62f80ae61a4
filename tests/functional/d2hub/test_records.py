"""The audit record and deliveries of a real hub, told to a real server; and what a killed hub owes."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.functional.d2hub import receiver as receivers
from tests.functional.d2hub.hub import SECRET, Client, Hub, codes, image, running, sha256
from tests.functional.d2hub.receiver import Receiver, receiving, waited
from tests.functional.d2hub.test_commands import as_json, refused, said, told

QUICK = (
    "--plain-http", "--webhook-local", "127.0.0.1", "--webhook-timeout-seconds", "10",
    "--webhook-retry-seconds", "0.1", "--webhook-attempts", "3",
)  # fmt: skip


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with running(tmp_path_factory.mktemp("records") / "data", *QUICK) as hub:
        hub.user("admin", admin=True)
        hub.user("reader", every="reader")
        write_secret(hub)
        yield hub


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def write_secret(hub: Hub) -> Path:
    path = hub.data / "hook.secret"
    path.write_text(f"{receivers.SECRET}\n")
    path.chmod(0o600)
    return path


def rules(hub: Hub, project: str, **said: Any) -> None:
    """Write a project's rules, as its owner would."""
    file = hub.data / "accounts.yaml"
    content = yaml.safe_load(file.read_text())
    content.setdefault("projects", {})[project] = said
    new = file.with_name("accounts.new")
    new.write_text(yaml.safe_dump(content))
    new.replace(file)


def hook(url: str, **more: Any) -> dict[str, Any]:
    return {"url": url, "secretFile": "hook.secret", **more}


def asked(hub: Hub, project: str, what: str, *, scope: str = "", **query: str) -> list[dict[str, Any]]:
    with Client(hub, project, user="admin", actions="delete", also=[scope] if scope else []) as client:
        answer = client.http.get(f"/api/v1/{what}", params={"project": project, **query})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["items"])


def metric(hub: Hub, name: str) -> float:
    with hub.browser() as http:
        lines = http.get("/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


def pushed(client: Client, *tags: str) -> list[str]:
    """Push an image under each tag, one after the other, all sharing one blob."""
    client.push_blob(b"{}")
    digests = []
    for tag in tags:
        made = image(annotations={"tag": tag})
        assert client.put_manifest(tag, made.manifest).status_code == 201
        digests.append(made.digest)
    return digests


def test_the_record_says_who_did_what(quick: Hub) -> None:
    rules(quick, "seen", auditPulls=1, immutableTags=["v*"])
    with Client(quick, "seen/web", user="admin") as admin, Client(quick, "seen/web", user="reader") as reader:
        digest, _ = pushed(admin, "v1", "old")
        assert reader.get("manifests/v1").status_code == 200
        assert reader.head("manifests/v1").status_code == 200
        assert codes(reader.put_manifest("mine", image().manifest)) == ["DENIED"]
        assert codes(reader.put_manifest("a%00b", image().manifest)) == ["DENIED"]
        assert codes(admin.put_manifest("v1", image(annotations={"a": "b"}).manifest)) == ["DENIED"]
        assert admin.delete("manifests/old").status_code == 202
        back = {"repository": "seen/web", "reference": "old"}
        assert admin.http.post("/api/v1/undelete", json=back).status_code == 200
    entries = waited(lambda: asked(quick, "seen", "audit"), lambda found: len(found) == 8)
    found = {(entry["action"], entry["tag"], entry["account"], entry["result"]) for entry in entries}
    assert found == {
        ("push", "v1", "admin", "done"),
        ("push", "old", "admin", "done"),
        ("pull", "v1", "reader", "done"),
        ("push", "mine", "reader", "forbidden"),
        ("push", "", "reader", "forbidden"),
        ("push", "v1", "admin", "tag-immutable"),
        ("delete", "old", "admin", "done"),
        ("undelete", "old", "admin", "done"),
    }
    assert {entry["address"] for entry in entries} == {"127.0.0.1"}
    assert {entry["repository"] for entry in entries} == {"seen/web"}
    assert {entry["weight"] for entry in entries} == {1}
    assert next(entry["digest"] for entry in entries if entry["action"] == "pull") == digest
    assert SECRET not in json.dumps(entries)
    assert asked(quick, "seen", "audit", since=(datetime.now(UTC) + timedelta(hours=1)).isoformat()) == []
    assert asked(quick, "seen", "audit", until=(datetime.now(UTC) - timedelta(hours=1)).isoformat()) == []


def test_the_record_is_for_owners(quick: Hub) -> None:
    for path in ("/api/v1/audit?project=seen", "/api/v1/deliveries?project=seen"):
        with Client(quick, "seen", user="reader", actions="delete") as reader:
            assert reader.http.get(path).status_code == 403
        with Client(quick, "other", user="admin", actions="delete") as of_another:
            assert of_another.http.get(path).status_code == 401
        with quick.browser() as anybody:
            assert anybody.get(path).status_code == 401
    with Client(quick, "seen", user="admin", actions="delete") as admin:
        for query in ("since=yesterday", "until=2026-11-27T09:00:00", "continue=x"):
            assert admin.http.get(f"/api/v1/audit?project=seen&{query}").status_code in (400, 422)
        for path in ("/api/v1/audit", "/api/v1/deliveries?project=seen&state=x", "/api/v1/audit/x?project=seen"):
            assert admin.http.get(path).status_code in (400, 404)


def test_pulls_are_sampled_or_left_out(quick: Hub) -> None:
    rules(quick, "sampled", auditPulls=4)
    rules(quick, "unseen")
    for project in ("unseen", "sampled"):
        with Client(quick, f"{project}/web", user="admin") as client:
            pushed(client, "v1")
            for _ in range(200):
                assert client.get("manifests/v1").status_code == 200
            # The last to be written: all before it are, too.
            client.put_manifest("v1", b"{}")
    pulls = [
        entry
        for entry in waited(
            lambda: asked(quick, "sampled", "audit"), lambda found: any(one["result"] != "done" for one in found)
        )
        if entry["action"] == "pull"
    ]
    # Chance: fewer than 15 or more than 100 of 200 come once in more than a million times.
    assert 15 <= len(pulls) <= 100
    assert {entry["weight"] for entry in pulls} == {4}
    assert {entry["action"] for entry in asked(quick, "unseen", "audit")} == {"push"}


def test_a_receiver_is_told_in_order_and_signed(quick: Hub, receiver: Receiver) -> None:
    only = hook(receiver.at("/deletions"), events=["delete"])
    rules(quick, "told", notify=[hook(receiver.at("/all?x=1")), only])
    # The third event is refused twice: those behind it wait for it.
    receiver.statuses["/all?x=1"] = [200, 204, 500, 503, 200]
    tags = [f"t{number}" for number in range(6)]
    with Client(quick, "told/web", user="admin") as client:
        digests = pushed(client, *tags)
        assert client.delete("manifests/t0").status_code == 202
    waited(lambda: receiver.of("/all?x=1"), lambda found: len(found) == 9)
    found = receiver.of("/all?x=1")
    assert [one.tag for one in found] == ["t0", "t1", "t2", "t2", "t2", "t3", "t4", "t5", "t0"]
    assert all(one.is_signed() for one in found)
    assert len({one.headers["webhook-id"] for one in found}) == 7
    assert {one.headers["webhook-id"] for one in found[2:5]} == {found[2].event["id"]}
    event = found[0].event
    assert found[0].headers["content-type"].startswith("application/cloudevents+json")
    assert found[0].headers["host"] == f"127.0.0.1:{receiver.port}"
    assert (event["type"], event["subject"], event["source"]) == ("dev.haneul.d2hub.push", "told/web:t0", quick.url)
    assert (event["data"]["digest"], event["data"]["account"]) == (digests[0], "admin")
    assert found[-1].event["data"]["action"] == "delete"
    assert [one.tag for one in waited(lambda: receiver.of("/deletions"))] == ["t0"]
    log = waited(
        lambda: asked(quick, "told", "deliveries"), lambda rows: all(row["state"] == "delivered" for row in rows)
    )
    assert len(log) == 8
    retried = next(row for row in log if row["attempts"] == 3)
    assert retried["answer"] == "status 200"
    assert {row["receiver"] for row in log} == {receiver.at("/all"), receiver.at("/deletions")}
    waited(lambda: metric(quick, "d2hub_deliveries_waiting") == metric(quick, "d2hub_deliveries_oldest_seconds") == 0)
    assert metric(quick, 'd2hub_deliveries_total{result="retried"}') >= 2


def test_who_hangs_holds_up_nobody_else(quick: Hub, receiver: Receiver) -> None:
    receiver.silent.add("/hangs")
    rules(quick, "hung", notify=[hook(receiver.at("/hangs")), hook(receiver.at("/answers"))])
    rules(quick, "beside", notify=[hook(receiver.at("/beside"))])
    with Client(quick, "hung/web", user="admin") as client, Client(quick, "beside/web", user="admin") as other:
        pushed(client, "t0")
        waited(lambda: receiver.of("/hangs"))
        pushed(client, "t1", "t2")
        pushed(other, "t3")
    waited(lambda: len(receiver.of("/answers")) == 3 and len(receiver.of("/beside")) == 1)
    log = asked(quick, "hung", "deliveries", state="waiting")
    assert [row["receiver"].rpartition("/")[2] for row in log] == ["hangs"] * 3
    waited(lambda: metric(quick, "d2hub_deliveries_oldest_seconds") > 0)
    receiver.ended.set()


def test_where_nothing_is_sent(quick: Hub, receiver: Receiver) -> None:
    readable = quick.data / "readable.secret"
    readable.write_text(receivers.SECRET)
    readable.chmod(0o644)
    rules(
        quick,
        "nowhere",
        notify=[
            hook(receiver.at("/redirects")),
            hook(receiver.at("/local", host="localhost")),
            hook(receiver.at("/mapped", host="[::ffff:127.0.0.1]")),
            hook("http://169.254.169.254/latest/meta-data"),
            # No name is so long: nobody has to be asked for it.
            hook(f"http://{'x' * 64}.invalid/"),
            {"url": receiver.at("/readable"), "secretFile": "readable.secret"},
            {"url": receiver.at("/missing"), "secretFile": "missing.secret"},
            hook(receiver.at("/gone")),
        ],
    )
    receiver.statuses["/redirects"] = [302]
    receiver.statuses["/gone"] = [410]
    with Client(quick, "nowhere/web", user="admin") as client:
        pushed(client, "t0")
    log = waited(lambda: asked(quick, "nowhere", "deliveries", state="failed"), lambda rows: len(rows) == 8)
    answers = {row["receiver"].partition("://")[2].partition("/")[2]: (row["answer"], row["attempts"]) for row in log}
    local = "is an address of this machine or its own network"
    assert answers == {
        "redirects": ("status 302", 3),
        "local": (f"localhost {local}", 3),
        "mapped": (f"::ffff:127.0.0.1 {local}", 3),
        "latest/meta-data": (f"169.254.169.254 {local}", 3),
        "": (f"{'x' * 64}.invalid has no address", 3),
        "readable": ("others may read readable.secret", 3),
        "missing": ("the secret's file missing.secret cannot be read", 3),
        "gone": ("status 410", 1),
    }
    assert {one.path for one in receiver.arrived} == {"/redirects", "/gone"}


def test_commands(quick: Hub, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANEUL_CONFIG", str(tmp_path / "config" / "config.yaml"))
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    told("image", "login", quick.url, "--user", "admin", "--secret-file", str(secret))
    rules(quick, "asked", notify=[hook(receiver.at("/down"))])
    receiver.statuses["/down"] = [500]
    with Client(quick, "asked/web", user="admin") as client:
        pushed(client, "t0")
    [row] = waited(lambda: as_json("image", "deliveries", "asked", "--state", "failed"))
    assert (row["state"], row["attempts"], row["answer"]) == ("failed", 3, "status 500")
    assert [entry["tag"] for entry in as_json("image", "audit", "asked", "--since", "1h")] == ["t0"]
    assert "admin" in told("image", "audit", "asked", "--since", "")
    assert refused("image", "audit", "asked", "--since", "yesterday") == "invalid-input"
    receiver.statuses["/down"] = [200]
    told("image", "redeliver", "asked", row["id"])
    [again] = waited(lambda: as_json("image", "deliveries", "asked", "--state", "delivered"))
    assert (again["id"], again["event"], again["attempts"]) == (row["id"], row["event"], 1)
    assert "delivered" in told("image", "deliveries", "asked")
    assert refused("image", "redeliver", "asked", row["id"]) == "not-found"
    assert refused("image", "redeliver", "other", row["id"]) == "not-found"


def test_one_that_waits_is_not_asked_for(
    quick: Hub, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANEUL_CONFIG", str(tmp_path / "config" / "config.yaml"))
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    told("image", "login", quick.url, "--user", "admin", "--secret-file", str(secret))
    rules(quick, "slow", notify=[hook(receiver.at("/slow"))])
    receiver.silent.add("/slow")
    with Client(quick, "slow/web", user="admin") as client:
        pushed(client, "t0", "t1")
        waited(lambda: receiver.of("/slow"))
    second, first = as_json("image", "deliveries", "slow", "--state", "waiting")
    assert f"after {first['id']}" in told("image", "deliveries", "slow")
    assert "it is tried at" in said("image", "redeliver", "slow", first["id"])
    assert f"conflict: {second['id']} waits: for {first['id']}, which" in said(
        "image", "redeliver", "slow", second["id"]
    )
    receiver.ended.set()


def test_a_quota_refuses_what_would_pass_it(
    quick: Hub,
) -> None:
    before = metric(quick, "d2hub_quota_refused_total")
    layer, other = b"x" * 1000, b"y" * 500
    first, second = image(layer), image(layer, other)
    with Client(quick, "free/web", user="admin") as client:
        client.push(second, "v1")
    rules(quick, "small", quotaBytes=1000 + len(first.config) + len(first.manifest) + 499)
    also = ["repository:free/web:pull"]
    with Client(quick, "small/web", user="admin", also=also) as client:
        digest = client.push(first, "v1")
        refusals = [
            client.http.put(client.begin(), params={"digest": sha256(other)}, content=other),
            client.http.post(client.path("blobs/uploads/"), params={"digest": sha256(other)}, content=other),
            client.http.post(client.path("blobs/uploads/"), params={"mount": sha256(other), "from": "free/web"}),
            client.put_manifest("v2", image(layer, padding="x" * 500).manifest),
        ]
        for answer in refusals:
            assert (answer.status_code, codes(answer)) == (403, ["DENIED"])
            [entry] = answer.json()["errors"]
            assert "the project small uses" in entry["message"]
            assert "delete images" in entry["detail"]
        assert client.get(f"blobs/{sha256(other)}").status_code == 404
        seen = waited(
            lambda: [one for one in asked(quick, "small", "audit") if one["result"] == "quota-exceeded"],
            lambda rows: len(rows) == 4,
        )
        assert [row["digest"] for row in seen].count(sha256(other)) == 3
        assert {(row["action"], row["repository"], row["account"]) for row in seen} == {("push", "small/web", "admin")}
        # What counts already counts once: the same again, under another tag, or in another repository.
        assert client.put_manifest("v3", first.manifest).status_code == 201
        client.push_blob(layer)
    with Client(quick, "small/api", user="admin") as client:
        client.push(first, "v1")
    [usage] = asked(quick, "small", "usage", scope="registry:catalog:*")
    assert (usage["quotaBytes"], usage["quotaUsed"]) == (
        1000 + len(first.config) + len(first.manifest) + 499,
        1000 + len(first.config) + len(first.manifest),
    )
    assert metric(quick, "d2hub_quota_refused_total") == before + 4
    assert digest == first.digest
    rules(quick, "small")
    with Client(quick, "small/web", user="admin") as client:
        client.push(second, "v2")


def test_who_is_named_no_more_is_told_no_more(quick: Hub, receiver: Receiver) -> None:
    receiver.silent.add("/left")
    receiver.statuses["/left"] = [500]
    rules(quick, "left", notify=[hook(receiver.at("/left"))])
    with Client(quick, "left/web", user="admin") as client:
        pushed(client, "t0", "t1")
    waited(lambda: receiver.of("/left"))
    rules(quick, "left")
    receiver.ended.set()
    log = waited(lambda: asked(quick, "left", "deliveries", state="failed"), lambda rows: len(rows) == 2)
    assert {row["answer"] for row in log} == {"the project's rules name it no more"}


def test_a_killed_hub_delivers_after_its_next_start(tmp_path: Path, receiver: Receiver) -> None:
    """Killed in the middle of a delivery and of pushes: what was taken is on record and told, and nothing else is."""
    options = ("--plain-http", "--webhook-local", "127.0.0.1", "--webhook-timeout-seconds", "2")
    with running(tmp_path / "data", *options) as hub:
        hub.user("admin", admin=True)
        write_secret(hub)
        rules(hub, "owed", notify=[hook(receiver.at("/owed"))])
        receiver.silent.add("/owed")
        acknowledged: list[str] = []
        enough = threading.Event()

        def push_on() -> None:
            with Client(hub, "owed/web", user="admin") as client, pytest.raises(httpx2.TransportError):
                for number in itertools.count():
                    acknowledged.extend([f"t{number}"] if pushed(client, f"t{number}") else [])
                    if number == 5:
                        enough.set()

        pusher = threading.Thread(target=push_on)
        pusher.start()
        assert enough.wait(60)
        waited(lambda: receiver.of("/owed"))
        hub.kill()
        pusher.join(60)
        assert not pusher.is_alive()
        assert len(acknowledged) > 5
        attempted = receiver.of("/owed")
        receiver.silent.clear()
        receiver.arrived.clear()
        hub.start()
        with Client(hub, "owed/web", user="admin") as client:
            tags = client.get("tags/list").json()["tags"]
        assert set(acknowledged) <= set(tags)
        entries = asked(hub, "owed", "audit")
        assert sorted(entry["tag"] for entry in entries) == sorted(tags)
        waited(lambda: {one.tag for one in receiver.of("/owed")}, lambda found: found == set(tags))
        found = {one.headers["webhook-id"]: one for one in receiver.of("/owed")}
        assert [one.tag for one in found.values()] == sorted(tags, key=lambda tag: int(tag[1:]))
        assert next(iter(found)) == attempted[0].headers["webhook-id"]
        assert all(one.is_signed() for one in found.values())


def test_an_orderly_end_writes_what_waits(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--plain-http") as hub:
        hub.user("admin", admin=True)
        rules(hub, "shop", auditPulls=1)
        with Client(hub, "shop/web", user="admin") as client:
            pushed(client, "v1")
            for _ in range(5):
                assert client.get("manifests/v1").status_code == 200
        assert hub.stop() == 0
        with contextlib.closing(sqlite3.connect(hub.data / "hub.db")) as database:
            assert database.execute("select count(*) from audit where happening = 'pull'").fetchone() == (5,)
