"""A mirror: what it fetches, how often, and what it does while its upstream fails."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from typer.testing import CliRunner

from haneul.app.main import command_tree
from haneul.kernel.files import write_atomically
from tests.functional.d2hub.between import Between, Exchange, between
from tests.functional.d2hub.clients import containerd, run
from tests.functional.d2hub.hub import (
    OCI_INDEX,
    OCI_MANIFEST,
    SECRET,
    Client,
    Hub,
    Image,
    codes,
    descriptor,
    image,
    running,
    sha256,
)

_SECONDS = 60
LARGE = b"0123456789abcdef" * 500_000


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """Return the registry that is mirrored. Everybody may pull ``open``, and only its owner ``closed``."""
    with running(tmp_path_factory.mktemp("origin") / "data", "--plain-http") as hub:
        hub.user("owner", open="owner", closed="owner")
        rule(hub, "open", public=True)
        yield hub


@pytest.fixture(scope="module")
def mirror(hub: Hub) -> Hub:
    """Return the hub of all tests, with somebody who may pull from every mirror."""
    hub.user("puller", every="owner")
    return hub


@pytest.fixture
def way(origin: Hub) -> Iterator[Between]:
    with between(origin.port) as way:
        yield way


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-")


@pytest.fixture
def pushed(origin: Hub, name: str) -> Iterator[Client]:
    """Return somebody who pushes to the upstream's repository of this test."""
    with Client(origin, f"open/{name}", user="owner") as client:
        yield client


@pytest.fixture
def pulls(mirror: Hub, way: Between, name: str) -> Iterator[Client]:
    """Return somebody who pulls the same through a mirror of its own, which always asks and forgets failures."""
    rule(mirror, name, mirror={"url": way.url, "refreshMinutes": 0, "negativeSeconds": 0})
    with Client(mirror, f"{name}/open/{name}", user="puller") as client:
        yield client


def rule(hub: Hub, project: str, **rules: Any) -> None:
    file = hub.data / "accounts.yaml"
    content = yaml.safe_load(file.read_text())
    content.setdefault("projects", {})[project] = rules
    write_atomically(file, yaml.safe_dump(content), mode=0o600)


def pull(client: Client, made: Image, reference: str) -> None:
    """Pull a whole image and make sure that it is that."""
    answer = client.get(f"manifests/{reference}")
    assert answer.status_code == 200, answer.text
    assert answer.content == made.manifest
    assert answer.headers["content-type"] == made.media_type
    assert answer.headers["docker-content-digest"] == made.digest
    for blob in (made.config, *made.layers):
        answer = client.get(f"blobs/{sha256(blob)}")
        assert (answer.status_code, answer.content == blob) == (200, True), answer.text


def metric(hub: Hub, name: str, **labels: str) -> int:
    wanted = ",".join(f'{key}="{value}"' for key, value in labels.items())
    with hub.browser() as http:
        found = re.search(rf"^{name}\{{{re.escape(wanted)}\}} (\d+)$", http.get("/metrics").text, re.MULTILINE)
    return int(found[1]) if found else 0


def eventually(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def uploads(client: Client, hub: Hub) -> int:
    mark = hashlib.sha256(client.repository.encode()).hexdigest()[:16]
    return len(list((hub.data / "uploads" / mark).iterdir()))


# --- what is fetched, and how often


def test_an_image_is_pulled_through_once(mirror: Hub, way: Between, pushed: Client, pulls: Client, name: str) -> None:
    made = image(b"layer", LARGE)
    pushed.push(made, "v1")
    rule(mirror, name, mirror={"url": way.url})
    pull(pulls, made, "v1")
    asked = len(way.requests)
    pull(pulls, made, "v1")
    pull(pulls, made, made.digest)
    assert pulls.head(f"blobs/{sha256(LARGE)}").headers["content-length"] == str(len(LARGE))
    assert len(way.requests) == asked
    assert pulls.get("tags/list").json()["tags"] == ["v1"]
    assert metric(mirror, "d2hub_mirror_blobs_fetched_total", project=name) == 3
    assert metric(mirror, "d2hub_mirror_received_bytes_total", project=name) == len(LARGE) + 5 + 2
    assert uploads(pulls, mirror) == 0


def test_many_first_pulls_at_once_are_one_fetch(way: Between, pushed: Client, pulls: Client, mirror: Hub) -> None:
    """What zot's issue 4399 is about: first pulls of many at once that fail."""
    made = image(b"layer", LARGE)
    pushed.push(made, "v1")
    arrived = threading.Barrier(12)

    def one(_: int) -> None:
        with Client(mirror, pulls.repository, user="puller") as client:
            arrived.wait(_SECONDS)
            pull(client, made, "v1")

    with ThreadPoolExecutor(12) as crowd:
        list(crowd.map(one, range(12)))
    for blob in (made.config, *made.layers):
        assert way.count("GET", sha256(blob)) == 1
    assert way.count("GET", "/manifests/") == 1


def test_of_an_index_only_what_is_asked_for_is_fetched(
    way: Between, pushed: Client, pulls: Client, mirror: Hub, name: str
) -> None:
    wanted, unwanted = image(b"wanted"), image(b"unwanted" * 1000)
    pushed.push(wanted, "wanted")
    pushed.push(unwanted, "unwanted")
    entries = [descriptor(made.manifest, OCI_MANIFEST) for made in (wanted, unwanted)]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    assert pushed.put_manifest("v1", index, OCI_INDEX).status_code == 201
    assert pulls.get("manifests/v1").content == index
    pull(pulls, wanted, wanted.digest)
    fetched = {asked.path.rpartition("/")[2] for asked in way.requests if asked.method == "GET"}
    assert fetched - {f"token?{asked.path.partition('?')[2]}" for asked in way.requests} == {
        sha256(index), wanted.digest, sha256(wanted.config), sha256(b"wanted")
    }  # fmt: skip
    # Nobody may push what refers to it in this project either, even when it is no mirror any more.
    rule(mirror, name)
    assert codes(pulls.put_manifest("again", index, OCI_INDEX)) == ["MANIFEST_BLOB_UNKNOWN"]


def test_the_first_client_reads_along(way: Between, pushed: Client, pulls: Client, mirror: Hub) -> None:
    """Bytes come before the upstream has sent them all; who goes away ends the fetch for nobody."""
    pushed.push(image(LARGE), "v1")
    go_on = threading.Event()
    way.misbehave = lambda it: sha256(LARGE) in it.path and it.pass_on(pause=(4_000_000, go_on))
    try:
        path = pulls.path(f"blobs/{sha256(LARGE)}")
        with pulls.http.stream("GET", path) as first:
            assert first.headers["content-length"] == str(len(LARGE))
            assert next(first.iter_raw(1_000_000)) == LARGE[:1_000_000]
        with Client(mirror, pulls.repository, user="puller") as second, second.http.stream("GET", path) as answer:
            parts = answer.iter_raw(1_000_000)
            begun = next(parts)
            go_on.set()
            assert begun + b"".join(parts) == LARGE
    finally:
        go_on.set()
    assert way.count("GET", sha256(LARGE)) == 1
    assert pulls.get(f"blobs/{sha256(LARGE)}").content == LARGE


def test_a_part_of_a_blob_that_is_not_here(pushed: Client, pulls: Client) -> None:
    pushed.push(image(LARGE), "v1")
    answer = pulls.get(f"blobs/{sha256(LARGE)}", headers={"Range": "bytes=16-31"})
    assert (answer.status_code, answer.content) == (206, b"0123456789abcdef")


def test_a_mirror_takes_no_pushes(pulls: Client) -> None:
    answer = pulls.http.post(pulls.path("blobs/uploads/"))
    assert (answer.status_code, codes(answer)) == (405, ["UNSUPPORTED"])
    answer = pulls.put_manifest("v1", image().manifest)
    assert (answer.status_code, codes(answer)) == (405, ["UNSUPPORTED"])
    assert "is a mirror of" in answer.json()["errors"][0]["message"]


def test_what_the_quota_has_no_room_for_is_not_fetched(
    way: Between, pushed: Client, pulls: Client, mirror: Hub, name: str
) -> None:
    made, other = image(b"layer", LARGE), image(b"other")
    pushed.push(made, "v1")
    pushed.push(other, "v2")
    most = len(made.manifest) + len(made.config) + 100
    rule(mirror, name, mirror={"url": way.url, "negativeSeconds": 1000}, quotaBytes=most)
    assert pulls.get("manifests/v1").content == made.manifest
    for _ in range(3):
        answer = pulls.get(f"blobs/{sha256(LARGE)}")
        assert (answer.status_code, codes(answer)) == (403, ["DENIED"])
        assert f"the project {name} uses" in answer.json()["errors"][0]["message"]
        assert codes(pulls.get("manifests/v2")) == ["DENIED"]
    assert way.count("GET", sha256(LARGE)) == way.count("GET", other.digest) == 1
    assert metric(mirror, "d2hub_mirror_received_bytes_total", project=name) == 0
    assert metric(mirror, "d2hub_mirror_failures_total", project=name, code="quota-exceeded") == 2
    assert pulls.get(f"blobs/{sha256(b'layer')}").content == b"layer"
    assert uploads(pulls, mirror) == 0


# --- while the upstream fails


def limited(it: Exchange) -> bool:
    return it.reply(429)


def broken(it: Exchange) -> bool:
    return it.reply(500, body=b"a page of somebody else")


def overloaded(it: Exchange) -> bool:
    return it.reply(503, {"Retry-After": "1"})


def empty(it: Exchange) -> bool:
    """Answer as Distribution's proxy does once its content has expired (its issue 2367)."""
    return it.reply(200)


def other(it: Exchange) -> bool:
    return it.reply(200, {"Content-Type": "text/html", "Docker-Content-Digest": sha256(b"?")}, b"<html>sign in</html>")


def cut_short(it: Exchange) -> bool:
    it.pass_on(most=20, leave_out=frozenset({"if-none-match"})) if it.command == "GET" else it.reply(200)
    return True


def silent(it: Exchange) -> bool:
    it.close_connection = True
    return True


def not_there(it: Exchange) -> bool:
    return it.reply(404)


def forbidden(it: Exchange) -> bool:
    return it.reply(401)


TROUBLES = [limited, broken, overloaded, empty, other, cut_short, silent, not_there, forbidden]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_tag_that_is_here_is_served_whatever_happens(
    way: Between, pushed: Client, pulls: Client, trouble: Callable[[Exchange], bool], mirror: Hub, name: str
) -> None:
    made = image(b"layer")
    pushed.push(made, "v1")
    pull(pulls, made, "v1")
    way.misbehave = trouble
    for _ in range(2):
        answer = pulls.get("manifests/v1")
        assert (answer.status_code, answer.content) == (200, made.manifest)
        assert answer.headers["warning"].startswith("110 ")
        pull(pulls, made, "v1")
    assert metric(mirror, "d2hub_mirror_stale_total", project=name) >= 1


def test_a_slow_upstream_is_not_waited_for(way: Between, pushed: Client, pulls: Client, mirror: Hub, name: str) -> None:
    made, newer = image(b"layer"), image(b"newer")
    pushed.push(made, "v1")
    pull(pulls, made, "v1")
    pushed.push(newer, "v1")
    go_on = threading.Event()

    def slow(it: Exchange) -> bool:
        go_on.wait(_SECONDS)
        return False

    way.misbehave = slow
    rule(mirror, name, mirror={"url": way.url, "refreshMinutes": 0, "patienceSeconds": 0.1})
    try:
        answer = pulls.get("manifests/v1")
        assert (answer.content, "upstream-slow" in answer.headers["warning"]) == (made.manifest, True)
    finally:
        go_on.set()
    # What was asked for went on being asked for.
    eventually(lambda: pulls.get("manifests/v1").content == newer.manifest, "the newer image never came")


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        (limited, 429, "TOOMANYREQUESTS"),
        (broken, 502, "UNAVAILABLE"),
        (overloaded, 502, "UNAVAILABLE"),
        (empty, 502, "UNAVAILABLE"),
        (other, 502, "UNAVAILABLE"),
        (cut_short, 502, "UNAVAILABLE"),
        (silent, 502, "UNAVAILABLE"),
        (not_there, 404, "MANIFEST_UNKNOWN"),
        (forbidden, 403, "DENIED"),
    ],
)
def test_what_is_not_here_is_an_error_that_says_why(
    way: Between, pushed: Client, pulls: Client, trouble: Callable[[Exchange], bool], status: int, code: str
) -> None:
    pushed.push(image(b"layer"), "v1")
    way.misbehave = trouble
    answer = pulls.get("manifests/v1")
    assert (answer.status_code, codes(answer)) == (status, [code])
    assert pulls.get("tags/list").status_code == 404


def test_an_upstream_that_is_limited_is_left_alone(way: Between, pushed: Client, pulls: Client) -> None:
    made = image(b"layer")
    pushed.push(made, "v1")
    pull(pulls, made, "v1")
    way.misbehave = lambda it: it.reply(429, {"Retry-After": "50"})
    asked = len(way.requests)
    for _ in range(5):
        pull(pulls, made, "v1")
    answer = pulls.get("manifests/v2")
    assert answer.status_code == 429
    assert 40 < int(answer.headers["retry-after"]) <= 50
    assert pulls.get(f"blobs/{sha256(b'other')}").status_code == 429
    assert len(way.requests) == asked + 1


def test_what_is_not_there_is_asked_for_once_in_a_while(
    way: Between, pushed: Client, pulls: Client, mirror: Hub, name: str
) -> None:
    rule(mirror, name, mirror={"url": way.url, "negativeSeconds": 1000})
    for _ in range(3):
        assert codes(pulls.get("manifests/v1")) == ["MANIFEST_UNKNOWN"]
        assert codes(pulls.get(f"blobs/{sha256(b'nothing')}")) == ["BLOB_UNKNOWN"]
    assert way.count("HEAD", "/manifests/v1") == 1
    made = image(b"layer")
    pushed.push(made, "v1")
    rule(mirror, name, mirror={"url": way.url, "negativeSeconds": 0})
    pull(pulls, made, "v1")


def test_a_fetch_that_breaks_off_goes_on_where_it_ended(way: Between, pushed: Client, pulls: Client) -> None:
    pushed.push(image(LARGE), "v1")
    breaks = iter((3_000_000, 1_000_000))

    def break_off(it: Exchange) -> bool:
        most = next(breaks, None) if sha256(LARGE) in it.path and "Authorization" not in it.headers else None
        return it.pass_on(most=most) if most else False

    way.misbehave = break_off
    assert pulls.get(f"blobs/{sha256(LARGE)}").content == LARGE
    ranges = [asked.headers.get("Range") for asked in way.requests if sha256(LARGE) in asked.path]
    assert ranges == [None, "bytes=3000000-", "bytes=4000000-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_blob_that_ends_early_for_good_is_never_whole(
    way: Between, pushed: Client, pulls: Client, mirror: Hub, *, ranges: bool
) -> None:
    pushed.push(image(LARGE), "v1")
    left_out = frozenset() if ranges else frozenset({"range"})
    way.misbehave = lambda it: it.is_of_blob and it.pass_on(most=1_000_000, leave_out=left_out)
    with pytest.raises(httpx2.TransportError):
        pulls.get(f"blobs/{sha256(LARGE)}")
    eventually(lambda: uploads(pulls, mirror) == 0, "what arrived of the blob stays")
    way.misbehave = None
    assert pulls.get(f"blobs/{sha256(LARGE)}").content == LARGE


def test_wrong_bytes_are_never_kept_and_never_sent_whole(
    way: Between, pushed: Client, pulls: Client, mirror: Hub, name: str
) -> None:
    made = image(b"layer", LARGE)
    pushed.push(made, "v1")
    way.misbehave = lambda it: it.is_of_blob and it.pass_on(change=lambda part: part.replace(b"a", b"b"))
    answer = pulls.get(f"blobs/{sha256(b'layer')}")
    assert (answer.status_code, codes(answer)) == (502, ["UNAVAILABLE"])
    with pytest.raises(httpx2.TransportError):
        pulls.get(f"blobs/{sha256(LARGE)}")
    way.misbehave = lambda it: it.is_of_blob and it.reply(200)
    assert pulls.get(f"blobs/{sha256(LARGE)}").status_code == 502
    way.misbehave = lambda it: (
        it.command == "GET" and it.is_of_manifest and it.pass_on(change=lambda part: part.replace(b"layers", b"legers"))
    )
    assert pulls.get(f"manifests/{made.digest}").status_code == 502
    assert metric(mirror, "d2hub_mirror_failures_total", project=name, code="upstream-wrong") == 4
    way.misbehave = None
    pull(pulls, made, "v1")


def test_a_hub_killed_in_a_fetch_goes_on_and_serves_without_its_upstream(
    tmp_path: Path, way: Between, pushed: Client, name: str
) -> None:
    whole, begun = image(b"layer"), image(b"layer", LARGE)
    pushed.push(whole, "v1")
    pushed.push(begun, "v2")
    go_on = threading.Event()
    with running(tmp_path / "data", "--plain-http") as hub:
        hub.user("owner", every="owner")
        rule(hub, "far", mirror={"url": way.url, "refreshMinutes": 0})
        with Client(hub, f"far/open/{name}", user="owner") as client:
            pull(client, whole, "v1")
            assert client.get("manifests/v2").content == begun.manifest
            way.misbehave = lambda it: sha256(LARGE) in it.path and it.pass_on(pause=(4_000_000, go_on))
            with client.http.stream("GET", client.path(f"blobs/{sha256(LARGE)}")) as answer:
                parts = answer.iter_raw(1_000_000)
                assert next(parts) == LARGE[:1_000_000]
                hub.kill()
                with pytest.raises(httpx2.TransportError):
                    list(parts)
        go_on.set()
        way.misbehave = None
        hub.start()
        with Client(hub, f"far/open/{name}", user="owner") as client:
            pull(client, begun, begun.digest)
            way.stop()
            for made, tag in ((whole, "v1"), (begun, "v2")):
                pull(client, made, tag)
                assert "upstream-failed" in client.get(f"manifests/{tag}").headers["warning"]
            answer = client.get("manifests/v3")
            assert (answer.status_code, codes(answer)) == (502, ["UNAVAILABLE"])


# --- tags over time


def test_a_tag_that_moves_is_told_and_its_history_kept(
    way: Between, pushed: Client, pulls: Client, mirror: Hub, name: str
) -> None:
    older, newer = image(b"older"), image(b"newer")
    pushed.push(older, "v1")
    pull(pulls, older, "v1")
    pull(pulls, older, "v1")
    assert metric(mirror, "d2hub_mirror_tags_moved_total", project=name) == 0
    pushed.push(newer, "v1")
    pull(pulls, newer, "v1")
    pull(pulls, older, older.digest)
    assert metric(mirror, "d2hub_mirror_tags_moved_total", project=name) == 1
    told = [json.loads(line) for line in mirror.log.read_text().splitlines() if '"alert"' in line]
    assert [(line["tag"], line["digest"]) for line in told if line["repository"] == pulls.repository] == [
        ("v1", newer.digest)
    ]
    pushed.delete("manifests/v1")
    pull(pulls, newer, "v1")
    pushed.push(newer, "v1")
    pull(pulls, newer, "v1")
    asked = {"repository": pulls.repository, "tag": "v1"}
    items = pulls.http.get("/api/v1/history", params=asked).json()["items"]
    assert [item["digest"] for item in items] == [newer.digest, None, newer.digest, older.digest]
    assert [item["since"] for item in items] == sorted((item["since"] for item in items), reverse=True)
    assert metric(mirror, "d2hub_mirror_tags_gone_total", project=name) == 1
    with Client(mirror, pulls.repository) as nobody:
        assert nobody.http.get("/api/v1/history", params=asked).status_code == 401


def test_an_upstream_that_names_no_digests(way: Between, pushed: Client, pulls: Client, mirror: Hub, name: str) -> None:
    """What it sends is then compared; the same again is no news."""
    older, newer = image(b"older"), image(b"newer")
    way.misbehave = lambda it: it.is_of_manifest and it.command == "HEAD" and it.reply(200)
    for made in (older, newer):
        pushed.push(made, "v1")
        for _ in range(3):
            assert pulls.get("manifests/v1").content == made.manifest
    with Client(mirror, name, user="puller", actions="delete") as client:
        records = client.http.get("/api/v1/audit", params={"project": name}).json()["items"]
    assert [(entry["action"], entry["tag"], entry["digest"], entry["account"]) for entry in records] == [
        ("mirror", "v1", made.digest, "(upstream)") for made in (newer, older)
    ]


def test_a_tag_that_stays_is_not_asked_for_again(
    way: Between, pushed: Client, pulls: Client, mirror: Hub, name: str
) -> None:
    rule(mirror, name, mirror={"url": way.url, "refreshMinutes": 0}, immutableTags=["v*"])
    older = image(b"older")
    pushed.push(older, "v1")
    pull(pulls, older, "v1")
    pushed.push(image(b"newer"), "v1")
    asked = len(way.requests)
    pull(pulls, older, "v1")
    assert len(way.requests) == asked


def test_what_was_pulled_counts_goes_and_comes_again(
    way: Between, pushed: Client, pulls: Client, mirror: Hub, name: str
) -> None:
    made = image(b"layer")
    pushed.push(made, "v1")
    pull(pulls, made, "v1")
    with Client(mirror, pulls.repository, user="puller", also=["registry:catalog:*"]) as client:
        usage = client.http.get("/api/v1/usage", params={"project": name}).json()["items"]
        assert [(entry["manifests"], entry["tags"], entry["blobs"]) for entry in usage] == [(1, 1, 2)]
    assert pulls.delete("manifests/v1").status_code == 202
    pull(pulls, made, "v1")
    assert pulls.delete(f"manifests/{made.digest}").status_code == 202
    pull(pulls, made, "v1")


# --- who may, and where secrets go


def credentials(hub: Hub, name: str, text: str = f"owner:{SECRET}\n") -> str:
    file = hub.data / f"{name}.secret"
    write_atomically(file, text, mode=0o600)
    return file.name


def closed(origin: Hub, name: str) -> Image:
    made = image(b"layer", LARGE)
    with Client(origin, f"closed/{name}", user="owner") as client:
        client.push(made, "v1")
    return made


def test_credentials_go_to_the_upstream_and_to_nobody_else(origin: Hub, mirror: Hub, way: Between, name: str) -> None:
    made = closed(origin, name)
    with between(origin.port) as elsewhere:

        def send_on(it: Exchange) -> bool:
            if it.is_of_blob and "Authorization" in it.headers:
                return it.reply(307, {"Location": f"{elsewhere.url}/kept/{it.path.rpartition('/')[2]}"})
            return False

        way.misbehave = send_on
        content = {sha256(blob): blob for blob in (made.config, *made.layers)}
        elsewhere.misbehave = lambda it: it.reply(200, body=content[it.path.rpartition("/")[2]])
        rule(mirror, name, mirror={"url": way.url, "credentialsFile": credentials(mirror, name)})
        with Client(mirror, f"{name}/closed/{name}", user="puller") as client:
            pull(client, made, "v1")
        assert len(elsewhere.requests) == 3
        assert not any("Authorization" in asked.headers for asked in elsewhere.requests)
    assert SECRET not in mirror.log.read_text()
    # One token for the repository.
    assert way.count("GET", "/token") == 1


def test_wrong_missing_and_readable_credentials(origin: Hub, mirror: Hub, way: Between, name: str) -> None:
    closed(origin, name)
    file = credentials(mirror, name, "owner:wrong\n")
    entry = {"url": way.url, "credentialsFile": file, "negativeSeconds": 0}
    rule(mirror, name, mirror=entry)
    with Client(mirror, f"{name}/closed/{name}", user="puller") as client:
        said = []
        for prepare in (
            lambda: None,
            lambda: credentials(mirror, name),
            lambda: (mirror.data / file).chmod(0o644),
            (mirror.data / file).unlink,
            lambda: rule(mirror, name, mirror={"url": way.url}),
        ):
            prepare()
            answer = client.get("manifests/v1")
            said.append(answer.status_code)
            if answer.status_code == 200:
                # Another repository, for which there is no token yet.
                assert client.delete(f"manifests/{answer.headers['docker-content-digest']}").status_code == 202
                rule(mirror, name, mirror={**entry, "timeoutSeconds": 14})
    assert said == [403, 200, 403, 403, 403]


def test_basic_authentication(mirror: Hub, way: Between, pushed: Client, name: str) -> None:
    made = image(b"layer")
    pushed.push(made, "v1")

    def basic(it: Exchange) -> bool:
        if it.headers.get("Authorization", "").startswith("Basic "):
            del it.headers["Authorization"]
            return False
        return it.reply(401, {"WWW-Authenticate": 'Basic realm="registry"'})

    way.misbehave = basic
    rule(mirror, name, mirror={"url": way.url, "credentialsFile": credentials(mirror, name)})
    with Client(mirror, f"{name}/open/{name}", user="puller") as client:
        pull(client, made, "v1")


def test_who_may_not_pull_makes_nothing_be_fetched(mirror: Hub, way: Between, pulls: Client) -> None:
    with Client(mirror, pulls.repository) as nobody:
        assert nobody.get("manifests/v1").status_code == 401
        assert nobody.get(f"blobs/{sha256(b'layer')}").status_code == 401
    assert way.requests == []


# --- real clients, and the command line


def test_skopeo_copies_through_a_mirror(
    request: pytest.FixtureRequest, mirror: Hub, way: Between, pushed: Client, name: str, tmp_path: Path
) -> None:
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        pytest.skip("skopeo is not installed")
    made = image(b"layer", LARGE)
    pushed.push(made, "v1")
    rule(mirror, name, public=True, mirror={"url": way.url})
    request.addfinalizer(lambda: rule(mirror, name))
    remote = f"docker://127.0.0.1:{mirror.port}/{name}/open/{name}"
    for turn in ("first", "second"):
        target = tmp_path / turn
        command = [skopeo, "copy", "--all", "--src-tls-verify=false", f"{remote}:v1", f"dir:{target}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        assert done.returncode == 0, done.stderr
        assert (target / "manifest.json").read_bytes() == made.manifest
        assert (target / sha256(LARGE).removeprefix("sha256:")).read_bytes() == LARGE
    assert way.count("GET", sha256(LARGE)) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="containerd needs root")
def test_containerd_pulls_through_a_mirror_by_the_upstreams_name(
    mirror: Hub, way: Between, pushed: Client, pulls: Client, name: str, tmp_path: Path
) -> None:
    made = image(b"layer", LARGE)
    pushed.push(made, "v1")
    hosts = tmp_path / "certs.d" / "registry.example.com"
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text(
        'server = "https://registry.example.com"\n'
        f'[host."{mirror.url}/v2/{name}"]\ncapabilities = ["pull", "resolve"]\noverride_path = true\n'
    )
    with containerd(tmp_path) as ctr:
        options = ["--hosts-dir", str(hosts.parent), "--user", f"puller:{SECRET}"]
        run(*ctr.command, "content", "fetch", *options, f"registry.example.com/open/{name}:v1")
        listed = run(*ctr.command, "content", "list", "--quiet").split()
        assert {made.digest, sha256(LARGE), sha256(b"layer")} <= set(listed)
    assert pulls.get("tags/list").json()["tags"] == ["v1"]


def test_the_history_on_the_command_line(
    mirror: Hub, way: Between, pushed: Client, pulls: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANEUL_CONFIG", str(tmp_path / "config" / "config.yaml"))
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    images = [image(b"older"), image(b"newer")]
    for made in images:
        pushed.push(made, "v1")
        pull(pulls, made, "v1")
    shown = []
    for arguments in (
        ["login", mirror.url, "--user", "puller", "--secret-file", str(secret)],
        ["history", f"{pulls.repository}:v1", "-o", "json"],
        ["history", f"{pulls.repository}:v1"],
    ):
        done = CliRunner().invoke(command_tree(), ["image", *arguments])
        assert done.exit_code == 0, done.output or repr(done.exception)
        shown.append(done.stdout)
    assert [row["digest"] for row in json.loads(shown[1])] == [images[1].digest, images[0].digest]
    assert images[0].digest in shown[2]
