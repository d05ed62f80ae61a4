"""Two hubs on one PostgreSQL and one folder: what one acknowledged is there at the other, whatever is killed."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import URL

from haneul.app.d2hub_database import database_url, embedded_database, shared_database
from haneul.app.d2hub_folder import certificate_for, in_use
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import ConflictError, InvalidInputError, UnavailableError
from tests.functional.d2hub.hub import OCI_MANIFEST, Client, Hub, codes, image, sha256
from tests.functional.d2hub.test_serving import Crowd, assert_all_there
from tests.postgres import Postgres, running_postgres

DEADLINE = 60.0
#: Little grace and no undo, so that collections have something to do all the time.
BUSY = ("--grace-hours", "0.002", "--undo-hours", "0", "--collect-minutes", "0.01")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as postgres:
        yield postgres


def address(url: URL, folder: Path) -> Path:
    """Return a file with a database's address, for its owner."""
    file = folder / "database"
    file.touch(0o600)
    file.write_text(url.set(drivername="postgresql").render_as_string(hide_password=False))
    return file


@contextlib.contextmanager
def two(postgres: Postgres, folder: Path, *options: str) -> Iterator[tuple[Hub, Hub]]:
    """Run two hubs, which start at once and find neither tables nor files."""
    file = address(postgres.url(postgres.make()), folder)
    options = ("--plain-http", "--database-file", str(file), *options)
    hubs = Hub(folder / "data", *options), Hub(folder / "data", *options)
    try:
        for hub in hubs:
            hub.launch()
        for hub in hubs:
            hub.wait()
        hubs[0].user("admin", admin=True)
        yield hubs
    finally:
        for hub in hubs:
            if hub.process is not None and hub.process.poll() is None:
                hub.kill()
            hub.reserved.close()


@pytest.fixture(scope="module")
def pair(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Hub]]:
    with two(postgres, tmp_path_factory.mktemp("several")) as hubs:
        yield hubs


@pytest.fixture
def clients(pair: tuple[Hub, Hub], repository: str) -> Iterator[tuple[Client, Client]]:
    also = ["registry:maintenance:*"]
    with (
        Client(pair[0], repository, user="admin", also=also) as one,
        Client(pair[1], repository, user="admin", also=also) as other,
    ):
        yield one, other


def test_what_one_acknowledged_the_other_knows_at_once(clients: tuple[Client, Client]) -> None:
    one, other = clients
    for turn in range(10):
        made = image(f"layer {turn}".encode(), config=f"config {turn}".encode())
        assert other.head(f"manifests/{made.digest}").status_code == 404
        one.push(made, "latest")
        # Asked for twice: what a process remembers is made by the first question.
        for client in (other, one, other):
            assert client.get("manifests/latest").content == made.manifest
            assert client.get(f"blobs/{sha256(made.layers[0])}").content == made.layers[0]
        one, other = other, one
    assert one.delete("manifests/latest").status_code == 202
    assert [client.head("manifests/latest").status_code for client in (other, one)] == [404, 404]
    assert other.delete(f"manifests/{made.digest}").status_code == 202
    assert one.head(f"manifests/{made.digest}").status_code == 404
    assert other.delete(f"blobs/{sha256(made.layers[0])}").status_code == 202
    assert one.head(f"blobs/{sha256(made.layers[0])}").status_code == 404


def test_a_token_and_rules_are_good_at_both(pair: tuple[Hub, Hub], clients: tuple[Client, Client]) -> None:
    one, other = clients
    other.http.headers["Authorization"] = one.http.headers["Authorization"]
    other.push(image(b"layer"), "v1")
    pair[0].user("newcomer", shop="reader")
    with Client(pair[1], one.repository, user="newcomer", actions="pull") as newcomer:
        assert newcomer.head("manifests/v1").status_code == 200


def test_an_upload_goes_on_at_the_other(clients: tuple[Client, Client]) -> None:
    data = bytes(range(250)) * 1600
    location = clients[0].begin()
    for turn, start in enumerate(range(0, 300_000, 100_000)):
        client = clients[(turn + 1) % 2]
        span = {"Content-Range": f"{start}-{start + 99_999}"}
        assert client.http.patch(location, content=data[start : start + 100_000], headers=span).status_code == 202
        said = clients[turn % 2].http.get(location)
        assert (said.status_code, said.headers["range"]) == (204, f"0-{start + 99_999}")
    answer = clients[1].http.put(location, params={"digest": sha256(data)}, content=data[300_000:])
    assert answer.status_code == 201, answer.text
    for client in clients:
        assert client.get(f"blobs/{sha256(data)}").content == data
        assert client.http.get(location).status_code == 404


def test_an_upload_that_the_other_writes_is_waited_for(clients: tuple[Client, Client]) -> None:
    one, other = clients
    data, go_on, begun = b"x" * 300_000, threading.Event(), threading.Event()
    location = one.begin()
    answers: list[httpx2.Response] = []

    def slowly() -> Iterator[bytes]:
        yield data[:200_000]
        begun.set()
        assert go_on.wait(DEADLINE)
        yield data[200_000:]

    writer = threading.Thread(target=lambda: answers.append(one.http.patch(location, content=slowly())))
    asker = threading.Thread(target=lambda: answers.append(other.http.get(location)))
    writer.start()
    assert begun.wait(DEADLINE)
    asker.start()
    go_on.set()
    for thread in (writer, asker):
        thread.join(DEADLINE)
    # Asked before the file was locked it has nothing, afterwards everything; never a part.
    assert [answer.status_code for answer in answers if answer.request.method == "PATCH"] == [202]
    assert other.http.put(location, params={"digest": sha256(data)}).status_code == 201


def test_ten_writers_of_many_tags_lose_none(pair: tuple[Hub, Hub]) -> None:
    """Writers at both hubs, all in one repository: each tag that was acknowledged names what it was given, at both."""
    written: dict[str, str] = {}
    wrong: list[str] = []

    def work(number: int) -> None:
        with Client(pair[number % 2], "shop/many", user="admin") as client:
            config = f"config {number}".encode()
            client.push_blob(config)
            for turn in range(20):
                document = json.loads(image(config=config).manifest) | {"annotations": {"turn": str(turn)}}
                content = json.dumps(document).encode()
                answer = client.put_manifest(f"w{number}-{turn}", content, OCI_MANIFEST)
                if answer.status_code == 201:
                    written[f"w{number}-{turn}"] = sha256(content)
                else:
                    wrong.append(answer.text)

    writers = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(DEADLINE)
    assert wrong == []
    assert len(written) == 200
    for hub in pair:
        with Client(hub, "shop/many", user="admin") as client:
            assert client.get("tags/list").json()["tags"] == sorted(written)
    with Client(pair[0], "shop/many", user="admin") as client:
        for tag, digest in written.items():
            assert client.head(f"manifests/{tag}").headers["docker-content-digest"] == digest


def test_one_collects_at_a_time(postgres: Postgres, pair: tuple[Hub, Hub], clients: tuple[Client, Client]) -> None:
    answers = [client.http.post("/api/v1/collections", json={}) for client in clients]
    assert [answer.status_code for answer in answers] == [200, 200]
    name = pair[0].data.with_name("database").read_text().partition("?")[0].rpartition("/")[2]
    with postgres.connected(name) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [int.from_bytes(b"d2hub gc", "big")])
        for client in clients:
            answer = client.http.post("/api/v1/collections", json={})
            assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        connection.execute("SELECT pg_advisory_unlock_all()")
    answer = clients[1].http.post("/api/v1/collections", json={})
    assert answer.status_code == 200


def test_parameters_that_no_database_takes(clients: tuple[Client, Client]) -> None:
    client = clients[0]
    made = image(b"layer")
    client.push(made, "v1")
    for path in ("tags/list?last=a%00b", f"referrers/{made.digest}?artifactType=%00", "tags/list?last=%ff&n=1"):
        assert client.get(path).status_code in (200, 400)
    assert client.get("manifests/%00").status_code == 404
    answer = client.http.post("/api/v1/undelete", json={"repository": client.repository, "reference": "a\0b"})
    assert answer.status_code in (400, 404, 422)


class PatientCrowd(Crowd):
    """Clients of several hubs, which take for an answer that the database is away."""

    def __init__(self, hubs: tuple[Hub, Hub]) -> None:
        super().__init__(hubs[0])
        self.hubs = hubs
        self.refused = 0

    def _hub(self, number: int) -> Hub:
        return self.hubs[number // 2]

    def _look(self, answer: httpx2.Response) -> None:
        if answer.status_code == 503 and answer.headers.get("retry-after"):
            self.refused += 1
            # Like a client that was killed: it does not know what became of it.
            raise httpx2.TransportError("away")
        super()._look(answer)


def test_everything_acknowledged_survives(postgres: Postgres, tmp_path: Path) -> None:
    """Clients at both push and delete, both collect; one is killed, the database restarted, and killed too."""
    with two(postgres, tmp_path, *BUSY) as hubs:
        crowd = PatientCrowd(hubs)

        def some(most: int = 6) -> None:
            while crowd.pushed.acquire(blocking=False):
                pass
            for _ in range(most):
                assert crowd.pushed.acquire(timeout=DEADLINE), crowd.wrong

        crowd.start()
        try:
            some()
            hubs[1].kill()
            some()
            hubs[1].start()
            some()
            postgres.stop()
            postgres.start()
            some()
            hubs[0].kill()
            postgres.kill()
            postgres.start()
            hubs[0].start()
            some(12)
        finally:
            crowd.stop()
        assert crowd.wrong == []
        assert crowd.acknowledged
        for hub in hubs:
            assert_all_there(hub, crowd.acknowledged)


def test_while_the_database_is_away(postgres: Postgres, pair: tuple[Hub, Hub], clients: tuple[Client, Client]) -> None:
    client = clients[0]
    client.push(image(b"before"), "v1")
    location = client.begin()
    postgres.stop()
    try:
        with pair[0].browser() as http:
            said = http.get("/readyz")
            assert (said.status_code, http.get("/healthz").status_code) == (503, 200)
            assert "database" in said.text
        made = image(b"meanwhile")
        for answer in (client.get("manifests/v1"), client.put_manifest("v2", made.manifest)):
            assert (answer.status_code, codes(answer)) == (503, ["UNAVAILABLE"])
            assert int(answer.headers["retry-after"]) > 0
        # Needs no database.
        assert client.http.patch(location, content=b"part").status_code == 202
    finally:
        postgres.start()
    for hub in pair:
        hub.wait()
    assert client.get("manifests/v1").status_code == 200
    assert client.head("manifests/v2").status_code == 404
    assert client.http.put(location, params={"digest": sha256(b"part")}).status_code == 201


async def test_a_folder_and_a_database_belong_together(postgres: Postgres, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    files = []
    for folder in (first, second):
        folder.mkdir()
        files.append(address(postgres.url(postgres.make()), folder))
    (await shared_database(first, files[0])).close()
    (first / "blobs/sha256/00").mkdir(parents=True)
    (first / "blobs/sha256/00/content").touch()
    (await shared_database(first, files[0])).close()
    with pytest.raises(ConflictError, match="the folder has content already"):
        await shared_database(first, files[1])
    with pytest.raises(ConflictError, match="the content of another folder"):
        await shared_database(second, files[0])
    assert not (second / "hub.id").exists()
    with pytest.raises(ConflictError, match="a database elsewhere"):
        await embedded_database(first)
    (await embedded_database(second)).close()
    with pytest.raises(ConflictError, match=r"its own hub\.db"):
        await shared_database(second, files[1])


async def test_a_database_that_lets_nobody_in_says_why(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.url(postgres.make())
    for wrong, said in (
        (url.set(password="a-mistake"), "password authentication failed"),
        (url.set(database="nowhere"), "does not exist"),
        (url.set(query={"host": str(tmp_path)}), "No such file"),
        (url.update_query_dict({"unheard": "of"}), "unheard"),
    ):
        with pytest.raises(UnavailableError, match=said) as refused:
            await shared_database(tmp_path, address(wrong, tmp_path))
        assert "a-mistake" not in refused.value.detail


def test_a_folder_is_shared_or_of_one(tmp_path: Path) -> None:
    with in_use(tmp_path, shared=True), in_use(tmp_path, shared=True), pytest.raises(ConflictError, match="another"):
        in_use(tmp_path, shared=False).__enter__()
    with in_use(tmp_path, shared=False), pytest.raises(ConflictError, match="another"):
        in_use(tmp_path, shared=True).__enter__()


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("postgresql://hub:a-secret@localhost/hub", 0o640, "others may read"),
        ("mysql://hub:a-secret@localhost/hub", 0o600, "no address"),
        ("a-secret", 0o600, "no address"),
        ("postgresql://hub:a-secret@localhost:port/hub", 0o600, "no address"),
    ],
)
def test_addresses_that_are_refused(tmp_path: Path, text: str, mode: int, said: str) -> None:
    file = tmp_path / "database"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(InvalidInputError, match=said) as refused:
        database_url(file)
    assert "a-secret" not in f"{refused.value.detail} {refused.value.hint}"


def test_each_set_of_names_has_its_certificate(tmp_path: Path) -> None:
    clock = SystemClock()
    one = certificate_for(tmp_path, ("one.example.com",), clock, shared=True)
    other = certificate_for(tmp_path, ("other.example.com",), clock, shared=True)
    before = one[0].read_bytes()
    assert other[0].read_bytes() != before
    assert certificate_for(tmp_path, ("one.example.com",), clock, shared=True) == one
    assert one[0].read_bytes() == before
