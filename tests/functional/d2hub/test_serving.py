"""A hub as a process: its start, TLS, its folder, its end; and what it must survive."""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.functional.d2hub.hub import OCI_MANIFEST, PROJECT, Client, Hub, codes, image, running, sha256


def test_tls_by_its_own_authority(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--host", "hub.example.com") as hub:
        hub.user("owner", shop="owner")
        with Client(hub, "shop/web", user="owner") as client:
            client.push(image(b"layer" * 100_000), "v1")
            assert client.get(f"blobs/{sha256(b'layer' * 100_000)}").content == b"layer" * 100_000
            part = client.get(f"blobs/{sha256(b'layer' * 100_000)}", headers={"Range": "bytes=5-9"})
            assert (part.status_code, part.content) == (206, b"layer")
        with pytest.raises(httpx2.TransportError), httpx2.Client(base_url=hub.url, trust_env=False) as stranger:
            stranger.get("/v2/")
        authority = (hub.data / "tls" / "ca.crt").read_bytes()
        certificate = (hub.data / "tls" / "tls.crt").read_bytes()
        for secret in ("token.key", "tls/ca.key", "tls/tls.key", "accounts.yaml", "hub.db"):
            assert (hub.data / secret).stat().st_mode & 0o077 == 0, secret
        hub.stop()
        hub.start()
        assert (hub.data / "tls" / "tls.crt").read_bytes() == certificate
        hub.stop()
        hub.options = ("--host", "other.example.com")
        hub.start()
        assert (hub.data / "tls" / "ca.crt").read_bytes() == authority
        assert (hub.data / "tls" / "tls.crt").read_bytes() != certificate
        hub.stop()
        for name in ("ca.crt", "ca.key"):
            (hub.data / "tls" / name).unlink()
        # Answers only to who trusts the new authority.
        hub.start()
        assert (hub.data / "tls" / "ca.crt").read_bytes() != authority


def test_the_challenge_names_the_host_over_http_2_too(tmp_path: Path) -> None:
    with running(tmp_path / "data") as hub:
        for version, said in (("--http2", "2"), ("--http1.1", "1.1")):
            done = subprocess.run(
                ["curl", "--silent", "--show-error", version, "--cacert", str(hub.data / "tls" / "ca.crt"),
                 "--noproxy", "*", "--dump-header", "-", "--output", "/dev/null", "--write-out", "%{http_version}",
                 f"{hub.url}/v2/"],
                capture_output=True, text=True, timeout=60, check=True,
            )  # fmt: skip
            assert f'realm="{hub.url}/token"' in done.stdout
            assert done.stdout.splitlines()[-1] == said


def serve(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "haneul.app.main", "d2hub", "serve", *options],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        cwd=PROJECT / "src",
    )


def test_plain_http_is_for_loopback(tmp_path: Path) -> None:
    done = serve("--data", str(tmp_path / "data"), "--address", "0.0.0.0", "--plain-http")  # noqa: S104 - to be refused
    assert done.returncode == 2
    assert "--plain-http" in done.stderr


def test_one_hub_a_folder_and_a_port(hub: Hub, tmp_path: Path) -> None:
    done = serve("--data", str(hub.data), "--plain-http", "--port", "1")
    assert done.returncode == 5
    assert "another registry serves" in done.stderr
    done = serve("--data", str(tmp_path / "data"), "--plain-http", "--port", str(hub.port))
    assert done.returncode == 5
    assert str(hub.port) in done.stderr


def test_health_metrics_and_what_is_not_there(hub: Hub) -> None:
    with hub.browser() as http:
        assert http.get("/healthz").text == "ok\n"
        assert http.get("/readyz").text == "ok\n"
        before = requests(http.get("/metrics").text)
        http.get("/v2/")
        assert requests(http.get("/metrics").text) == before + 1
        assert http.get("/nothing").status_code == 404


def requests(text: str) -> int:
    found = re.search(r'^d2hub_requests_total\{method="GET",status="401"\} (\d+)$', text, re.MULTILINE)
    return int(found[1]) if found else 0


def test_requests_under_way_are_answered_before_the_end(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--plain-http") as hub:
        hub.user("owner", shop="owner")
        data = b"x" * 500_000
        with Client(hub, "shop/web", user="owner") as client:
            location, begun, go_on = client.begin(), threading.Event(), threading.Event()

            def slowly() -> Iterator[bytes]:
                yield data[:100_000]
                begun.set()
                assert go_on.wait(60)
                yield data[100_000:]

            answers: list[httpx2.Response] = []
            pusher = threading.Thread(
                target=lambda: answers.append(
                    client.http.put(location, params={"digest": sha256(data)}, content=slowly())
                )
            )
            pusher.start()
            assert begun.wait(60)
            assert hub.process is not None
            hub.process.terminate()
            deadline = time.monotonic() + 60
            while '"draining"' not in hub.log.read_text() and time.monotonic() < deadline:
                time.sleep(0.02)
            assert hub.process.poll() is None
            go_on.set()
            pusher.join(60)
        assert hub.process.wait(60) == 0
        assert [answer.status_code for answer in answers] == [201]
        hub.start()
        with Client(hub, "shop/web", user="owner") as client:
            assert client.get(f"blobs/{sha256(data)}").content == data


def test_a_killed_hub_goes_on_with_an_upload(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--plain-http") as hub:
        hub.user("owner", shop="owner")
        data = bytes(range(256)) * 20_000
        with Client(hub, "shop/web", user="owner") as client:
            location = client.begin()
            client.http.patch(location, content=data[:3_000_000], headers={"Content-Range": "0-2999999"})
            hub.kill()
            hub.start()
            sent = int(client.http.get(location).headers["range"].partition("-")[2]) + 1
            assert sent == 3_000_000
            answer = client.http.put(
                location,
                params={"digest": sha256(data)},
                content=data[sent:],
                headers={"Content-Range": f"{sent}-{len(data) - 1}"},
            )
            assert answer.status_code == 201
            assert client.get(f"blobs/{sha256(data)}").content == data


def test_a_body_that_ends_early_is_no_blob_and_can_go_on(hub: Hub, client: Client) -> None:
    location = client.begin()
    data = b"y" * 300_000
    with socket.create_connection(("127.0.0.1", hub.port)) as connection:
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.token}\r\n"
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data[:200_000])
    deadline = time.monotonic() + 60
    received = 0
    while received < 200_000 and time.monotonic() < deadline:
        said = client.http.get(location).headers["range"]
        received = int(said.partition("-")[2]) + 1
        time.sleep(0.02)
    assert received == 200_000
    answer = client.http.put(location, params={"digest": sha256(data)}, content=data[200_000:])
    assert answer.status_code == 201


class Crowd:
    """Clients that push and delete, and note what was acknowledged, and every answer that should not be."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.acknowledged: dict[tuple[str, str], tuple[bytes, list[bytes]]] = {}
        self.wrong: list[str] = []
        self.pushed = threading.Semaphore(0)
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._workers = [threading.Thread(target=self._work, args=(number,)) for number in range(4)]

    def start(self) -> None:
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        self._stop.set()
        for worker in self._workers:
            worker.join(60)

    def _work(self, number: int) -> None:
        chance = random.Random(number)  # noqa: S311 - chance, no secret
        turn = 0
        while not self._stop.is_set():
            turn += 1
            try:
                with Client(self._hub(number), f"shop/r{number % 2}", user="admin") as client:
                    client.http.event_hooks = {"response": [self._look]}
                    self._push(client, chance, f"t{number}-{turn}")
                    if chance.random() < 0.4:
                        self._delete(client, chance, f"t{number}-")
            except httpx2.TransportError:
                # Killed in between. Nothing was acknowledged.
                self._stop.wait(0.05)
            except Exception as error:  # noqa: BLE001, RUF100 - told by the thread that asserts
                self.wrong.append(f"{number}-{turn}: {error!r}")
                return

    def _hub(self, number: int) -> Hub:
        return self.hub

    def _look(self, answer: httpx2.Response) -> None:
        if answer.status_code >= 500:
            self.wrong.append(f"{answer.request.method} {answer.request.url.path}: {answer.status_code}")

    def _push(self, client: Client, chance: random.Random, tag: str) -> None:
        layers = [f"layer {chance.randrange(6)}".encode() * 5000 for _ in range(2)]
        made = image(*dict.fromkeys(layers), config=tag.encode())
        for blob in (made.config, *made.layers):
            client.push_blob(blob)
        answer = client.put_manifest(tag, made.manifest)
        if answer.status_code != 201:
            # Collected in between: there is nearly no grace here.
            assert codes(answer) == ["MANIFEST_BLOB_UNKNOWN"], answer.text
            return
        with self._lock:
            self.acknowledged[client.repository, tag] = (made.manifest, [made.config, *made.layers])
        self.pushed.release()

    def _delete(self, client: Client, chance: random.Random, tags: str) -> None:
        with self._lock:
            mine = [key for key in self.acknowledged if key[0] == client.repository and key[1].startswith(tags)]
            if not mine:
                return
            # Whether a deletion that is cut off happened is not known; it is no longer looked for.
            gone, _ = self.acknowledged.pop(chance.choice(mine))
        answer = client.delete(f"manifests/{sha256(gone)}")
        assert answer.status_code == 202, answer.text


def test_everything_acknowledged_survives_kills(tmp_path: Path) -> None:
    """Several clients push, delete and collect while the hub is killed again and again."""
    options = ("--plain-http", "--grace-hours", "0.002", "--undo-hours", "0", "--collect-minutes", "0.01")
    with running(tmp_path / "data", *options) as hub:
        hub.user("admin", admin=True)
        crowd = Crowd(hub)
        crowd.start()
        chance = random.Random(7)  # noqa: S311 - chance, no secret
        try:
            for _ in range(4):
                # So many images between two kills, and a moment more, so that it is at any step of the next.
                for _ in range(5):
                    assert crowd.pushed.acquire(timeout=60), crowd.wrong
                time.sleep(chance.uniform(0, 0.3))
                hub.kill()
                hub.start()
                while crowd.pushed.acquire(blocking=False):
                    pass
        finally:
            crowd.stop()
        assert crowd.wrong == []
        assert crowd.acknowledged
        assert_all_there(hub, crowd.acknowledged)


def assert_all_there(hub: Hub, images: dict[tuple[str, str], tuple[bytes, list[bytes]]]) -> None:
    clients = {name: Client(hub, name, user="admin") for name in sorted({name for name, _ in images})}
    for (repository, tag), (manifest, blobs) in images.items():
        client = clients[repository]
        assert client.get(f"manifests/{tag}").content == manifest
        for blob in blobs:
            assert client.get(f"blobs/{sha256(blob)}").content == blob
    for client in clients.values():
        client.http.close()


def test_collections_free_the_disk(tmp_path: Path) -> None:
    options = ("--plain-http", "--grace-hours", "0", "--undo-hours", "0", "--collect-minutes", "1000")
    with running(tmp_path / "data", *options) as hub:
        hub.user("admin", admin=True)
        also = ["registry:maintenance:*", "registry:catalog:*"]
        with Client(hub, "shop/web", user="admin", also=also) as client:
            kept, gone = image(b"kept" * 1000, b"shared" * 1000), image(b"gone" * 1000, b"shared" * 1000)
            client.push(kept, "v1")
            client.push(gone, "v2")
            client.delete(f"manifests/{gone.digest}")
            foreseen = client.http.post("/api/v1/collections", json={"dryRun": True}).json()
            assert (foreseen["manifests"], foreseen["blobs"], foreseen["bytes"]) == (1, 1, 4000)
            assert files(hub) == 4
            done = client.http.post("/api/v1/collections", json={}).json()
            assert (done["manifests"], done["blobs"], done["bytes"]) == (1, 1, 4000)
            assert files(hub) == 3
            for layer in kept.layers:
                assert client.get(f"blobs/{sha256(layer)}").content == layer
            assert client.get(f"blobs/{sha256(gone.layers[0])}").status_code == 404
            usage = client.http.get("/api/v1/usage").json()["items"]
            assert [(entry["project"], entry["manifests"], entry["blobs"]) for entry in usage] == [("shop", 1, 3)]
        with Client(hub, "shop/web") as nobody:
            assert nobody.http.post("/api/v1/collections", json={}).status_code == 401


def files(hub: Hub) -> int:
    return sum(path.is_file() for path in (hub.data / "blobs").rglob("*"))


def test_a_smaller_limit_of_manifests(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--plain-http", "--manifest-limit", "2000") as hub:
        hub.user("owner", shop="owner")
        with Client(hub, "shop/web", user="owner") as client:
            client.push_blob(b"{}")
            assert client.put_manifest("v1", image(annotations={"a": "x" * 1000}).manifest).status_code == 201
            answer = client.put_manifest("v2", image(annotations={"a": "x" * 2000}).manifest)
            assert answer.status_code == 413
            assert codes(answer) == ["MANIFEST_INVALID"]


def test_many_writers_of_many_tags(hub: Hub) -> None:
    """Ten writers at once: each tag that was acknowledged is there, and names what it was given."""
    written: dict[str, str] = {}

    def work(number: int) -> None:
        with Client(hub, "shop/many", user="owner") as client:
            config = f"config {number}".encode()
            client.push_blob(config)
            for turn in range(20):
                document = json.loads(image(config=config).manifest) | {"annotations": {"turn": str(turn)}}
                content = json.dumps(document).encode()
                tag = f"w{number}-{turn}"
                if client.put_manifest(tag, content, OCI_MANIFEST).status_code == 201:
                    written[tag] = sha256(content)

    writers = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert len(written) == 200
    with Client(hub, "shop/many", user="owner") as client:
        assert client.get("tags/list").json()["tags"] == sorted(written)
        for tag, digest in written.items():
            assert client.head(f"manifests/{tag}").headers["docker-content-digest"] == digest
