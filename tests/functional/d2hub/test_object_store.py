"""A hub whose content is in a real object store: redirects, content through the hub, and what breaks."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import random
import re
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
import yaml
from pydantic import SecretStr

from haneul.app.d2hub import HubSettings, serve_hub
from haneul.app.d2hub_content import opened_store
from haneul.d2hub.adapters.object_blobs import ObjectBlobs
from haneul.d2hub.adapters.object_settings import ObjectSettings, read_object_settings
from haneul.d2hub.errors import BlobStoreAwayError
from haneul.kage.store import Kage
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import ConflictError, InvalidInputError
from haneul.kernel.waiting import wait_for
from tests.functional.d2hub.between import between
from tests.functional.d2hub.clients import need, run
from tests.functional.d2hub.hub import (
    OCI_MANIFEST,
    SECRET,
    Client,
    Hub,
    codes,
    descriptor,
    image,
    running,
    sha256,
)
from tests.functional.d2hub.test_mirror import rule
from tests.kage import bucket_of, objects, running_kage

#: Larger than what a hub keeps in memory, and than one request to the store.
LARGE = bytes(range(256)) * 75_000
MEDIUM = bytes(range(255, -1, -1)) * 2_000


@pytest.fixture(scope="module")
def kage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kage]:
    with running_kage(tmp_path_factory.mktemp("kage"), replicate_every=2.0) as kage:
        yield kage


def store_file(settings: ObjectSettings, path: Path) -> Path:
    told = settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    told["secretAccessKey"] = settings.secret_access_key.get_secret_value()
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(told))
    return path


def with_store(kage: Kage, bucket: str, folder: Path) -> tuple[str, str]:
    return "--store", str(store_file(bucket_of(kage, bucket), folder / "store.yaml"))


def settings_of(hub: Hub) -> ObjectSettings:
    return read_object_settings(Path(hub.options[hub.options.index("--store") + 1]))


@pytest.fixture(scope="module")
def hub(kage: Kage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("objects")
    with running(folder / "data", *with_store(kage, "images", folder)) as hub:
        hub.user("owner", shop="owner")
        yield hub


@pytest.fixture(scope="module")
def proxying(kage: Kage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub for clients that cannot reach the store."""
    folder = tmp_path_factory.mktemp("proxying")
    with running(folder / "data", *with_store(kage, "proxied", folder), "--proxy-content") as hub:
        hub.user("owner", shop="owner")
        yield hub


def fetch(location: str, **headers: str) -> httpx2.Response:
    """Fetch from the store as a stranger does who only has the link."""
    return httpx2.get(location, headers=headers, timeout=30, trust_env=False)


def test_pulls_are_led_to_the_store(hub: Hub, kage: Kage) -> None:
    with Client(hub, "shop/led", user="owner") as client:
        digest = client.push_blob(LARGE)
        small = client.push_blob(b"{}")
        answer = client.get(f"blobs/{digest}")
        assert answer.status_code == 307
        assert answer.headers["docker-content-digest"] == digest
        assert answer.headers["cache-control"] == "no-store"
        location = answer.headers["location"]
        assert location.startswith(kage.settings.endpoint)
        assert f"X-Amz-Expires={settings_of(hub).link_seconds}" in location
        assert fetch(location).content == LARGE
        part = fetch(location, Range="bytes=255-300")
        assert (part.status_code, part.content) == (206, LARGE[255:301])
        assert fetch(location.replace(digest[7:12], "00000")).status_code == 403
        assert fetch(location.partition("?")[0]).is_client_error
        head = client.head(f"blobs/{digest}")
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(LARGE)))
        assert client.get(f"blobs/{digest}", headers={"If-None-Match": f'"{digest}"'}).status_code == 304
        # What fits into a packet is not worth another journey.
        assert client.get(f"blobs/{small}").content == b"{}"


def test_a_hub_sends_what_clients_cannot_reach(proxying: Hub) -> None:
    with Client(proxying, "shop/proxied", user="owner") as client:
        digest = client.push_blob(LARGE)
        answer = client.get(f"blobs/{digest}")
        assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(LARGE)))
        assert answer.content == LARGE
        for text, first, end in (
            ("0-0", 0, 1),
            ("4194303-4194304", 4194303, 4194305),
            ("19000000-", 19_000_000, len(LARGE)),
            ("-5", len(LARGE) - 5, len(LARGE)),
        ):
            part = client.get(f"blobs/{digest}", headers={"Range": f"bytes={text}"})
            assert (part.status_code, part.content) == (206, LARGE[first:end])
            assert part.headers["content-range"] == f"bytes {first}-{end - 1}/{len(LARGE)}"
        assert client.get(f"blobs/{digest}", headers={"Range": f"bytes={len(LARGE)}-"}).status_code == 416
        assert client.head(f"blobs/{digest}").headers["content-length"] == str(len(LARGE))


def test_content_is_cut_off_when_the_store_goes(proxying: Hub, kage: Kage) -> None:
    """A download that ends early never looks whole."""
    with Client(proxying, "shop/cut", user="owner") as client:
        digest = client.push_blob(LARGE)
        try:
            with client.http.stream("GET", client.path(f"blobs/{digest}")) as answer:
                assert answer.status_code == 200
                parts = answer.iter_bytes(1000)
                next(parts)
                asyncio.run(kage.kill_proxy())
                with pytest.raises(httpx2.RemoteProtocolError, match="complete message body"):
                    for _ in parts:
                        pass
        finally:
            asyncio.run(kage.start_proxy())


@pytest.mark.skipif(os.geteuid() != 0, reason="the client needs root for images' files")
@pytest.mark.parametrize("mode", ["hub", "proxying"])
def test_skopeo_pushes_and_pulls(mode: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    hub: Hub = request.getfixturevalue(mode)
    skopeo = need("skopeo")
    layout, layer = oci_layout(tmp_path / "layout")
    certificates, credentials = tmp_path / "certs", tmp_path / "auth.json"
    certificates.mkdir()
    shutil.copy(hub.data / "tls" / "ca.crt", certificates / "ca.crt")
    login = [skopeo, "login", "--authfile", str(credentials), "--cert-dir", str(certificates), "--username", "owner"]
    run(*login, "--password-stdin", f"127.0.0.1:{hub.port}", stdin=SECRET)
    remote = f"docker://127.0.0.1:{hub.port}/shop/skopeo:v1"
    target = ["--dest-authfile", str(credentials), "--dest-cert-dir", str(certificates)]
    source = ["--src-authfile", str(credentials), "--src-cert-dir", str(certificates)]
    run(skopeo, "copy", *target, f"oci:{layout}:v1", remote)
    before = redirects(hub)
    run(skopeo, "copy", *source, remote, f"oci:{tmp_path / 'back'}:v1")
    assert (tmp_path / "back" / "blobs" / sha256(layer).replace(":", "/")).read_bytes() == layer
    assert redirects(hub) - before == (1 if mode == "hub" else 0)


def redirects(hub: Hub) -> int:
    with hub.browser() as http:
        found = re.search(r'method="GET",status="307"} (\d+)', http.get("/metrics").text)
    return int(found[1]) if found else 0


def oci_layout(folder: Path) -> tuple[Path, bytes]:
    """Write an image of one layer as an OCI layout; return folder and layer."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = 300_000
        tar.addfile(entry, io.BytesIO(random.Random(5).randbytes(entry.size)))  # noqa: S311 - chance, no secret
    layer = gzip.compress(archive.getvalue(), mtime=0)
    diff_ids = [sha256(archive.getvalue())]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    made = image(layer, config=json.dumps(config).encode())
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for data in (layer, made.config, made.manifest):
        (blobs / sha256(data)[7:]).write_bytes(data)
    named = descriptor(made.manifest, OCI_MANIFEST, annotations={"org.opencontainers.image.ref.name": "v1"})
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    return folder, layer


def test_a_killed_hub_goes_on_with_an_upload(hub: Hub) -> None:
    with Client(hub, "shop/killed", user="owner") as client:
        location = client.begin()
        # Parts smaller than S3 would take.
        for first, end in ((0, 1), (1, 70_000), (70_000, 3_000_000)):
            headers = {"Content-Range": f"{first}-{end - 1}"}
            assert client.http.patch(location, content=LARGE[first:end], headers=headers).status_code == 202
        hub.kill()
        hub.start()
        assert client.http.get(location).headers["range"] == "0-2999999"
        answer = client.http.put(location, params={"digest": sha256(LARGE)}, content=LARGE[3_000_000:])
        assert answer.status_code == 201
        assert fetch(client.get(f"blobs/{sha256(LARGE)}").headers["location"]).content == LARGE


def test_while_the_store_is_away(hub: Hub, kage: Kage) -> None:
    with Client(hub, "shop/away", user="owner") as client:
        there = client.push_blob(MEDIUM)
        manifest = image(MEDIUM, config=b"[]")
        client.push(manifest, "v1")
        asyncio.run(kage.kill_proxy())
        try:
            location = client.begin()
            assert client.http.patch(location, content=b"data" * 50_000).status_code == 202
            for answer in (
                client.http.put(location, params={"digest": sha256(b"data" * 50_000)}),
                client.get(f"blobs/{there}"),
            ):
                assert answer.status_code == 503
                assert codes(answer) == ["UNAVAILABLE"]
                assert int(answer.headers["retry-after"]) > 0
            assert client.get("manifests/v1").content == manifest.manifest
        finally:
            asyncio.run(kage.start_proxy())
        answer = client.http.put(location, params={"digest": sha256(b"data" * 50_000)})
        assert answer.status_code == 201
        assert client.head(f"blobs/{sha256(b'data' * 50_000)}").status_code == 200


@pytest.mark.parametrize("mode", ["hub", "proxying"])
def test_a_mirror_sends_on_what_arrives_and_keeps_it_in_the_store(
    mode: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    hub: Hub = request.getfixturevalue(mode)
    go_on = threading.Event()
    with running(tmp_path / "origin", "--plain-http") as origin, between(origin.port) as way:
        origin.user("owner", open="owner")
        rule(origin, "open", public=True)
        with Client(origin, "open/web", user="owner") as pushing:
            pushing.push(image(LARGE), "v1")
        rule(hub, "mirrored", mirror={"url": way.url})
        hub.user("puller", mirrored="owner")
        way.misbehave = lambda it: sha256(LARGE) in it.path and it.pass_on(pause=(4_000_000, go_on))
        with Client(hub, "mirrored/open/web", user="puller") as client:
            try:
                with client.http.stream("GET", client.path(f"blobs/{sha256(LARGE)}")) as answer:
                    assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(LARGE)))
                    parts = answer.iter_raw(1_000_000)
                    begun = next(parts)
                    go_on.set()
                    assert begun + b"".join(parts) == LARGE
            finally:
                go_on.set()
            kept = client.get(f"blobs/{sha256(LARGE)}")
            assert kept.status_code == (307 if mode == "hub" else 200)
            assert (fetch(kept.headers["location"]) if mode == "hub" else kept).content == LARGE
            assert way.count("GET", sha256(LARGE)) == 1
    assert not [path for path in (hub.data / "uploads").glob("*/*") if path.stat().st_size == len(LARGE)]
    assert not (hub.data / "blobs").exists()


class Crowd:
    """Clients that push and pull without end, and note what went wrong and what was acknowledged."""

    def __init__(self, hub: Hub) -> None:
        self._hub, self._stop = hub, threading.Event()
        self.wrong: list[str] = []
        self.pushed: list[bytes] = []
        self._done = threading.Semaphore(0)
        self._threads = [
            threading.Thread(target=self._work, args=(work, number))
            for number, work in enumerate((self._push, self._push, self._pull))
        ]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)

    def wait(self, count: int) -> None:
        """Wait until so many more pushes and pulls are done."""
        for _ in range(count):
            assert self._done.acquire(timeout=60), self.wrong

    def _work(self, work: Callable[[Client, int, int], None], number: int) -> None:
        turn = 0
        try:
            with Client(self._hub, "shop/crowd", user="owner") as client:
                while not self._stop.is_set():
                    turn += 1
                    work(client, number, turn)
                    self._done.release()
        except Exception as error:  # noqa: BLE001, RUF100 - told by the thread that asserts
            self.wrong.append(f"{number} {turn}: {error!r}")

    def _push(self, client: Client, number: int, turn: int) -> None:
        # Every fifth is larger than one request to the store.
        data = f"{number:05} {turn:05} ".encode() * (1_500_000 if turn % 5 == 0 else 20_000)
        client.push_blob(data)
        self.pushed.append(data)

    def _pull(self, client: Client, _: int, turn: int) -> None:
        if not self.pushed:
            self._stop.wait(0.02)
            return
        self.verify(client, self.pushed[turn % len(self.pushed)])

    @staticmethod
    def verify(client: Client, data: bytes) -> None:
        """Pull and compare."""
        answer = client.get(f"blobs/{sha256(data)}")
        assert answer.status_code == 307, answer.text
        assert fetch(answer.headers["location"]).content == data


def test_a_zone_is_lost_and_comes_back_and_nobody_notices(hub: Hub, kage: Kage) -> None:
    """Zone 1 goes in the middle of pushes and pulls and catches up; then the others go, and it has everything."""

    async def caught_up() -> bool:
        return objects(kage, 1) >= objects(kage, 2) | objects(kage, 3)

    with Crowd(hub) as crowd:
        crowd.wait(8)
        asyncio.run(kage.kill_zone(1))
        crowd.wait(15)
    assert crowd.wrong == []
    assert not asyncio.run(caught_up())
    asyncio.run(kage.start_zone(1))
    asyncio.run(wait_for(caught_up, what="zone 1 to catch up", timeout=90, clock=SystemClock()))
    try:
        with Crowd(hub) as after:
            after.wait(3)
            asyncio.run(kage.kill_zone(2))
            after.wait(8)
        assert after.wrong == []
        asyncio.run(kage.kill_zone(3))
        with Client(hub, "shop/crowd", user="owner") as client:
            for data in (*crowd.pushed, *after.pushed):
                Crowd.verify(client, data)
    finally:
        asyncio.run(kage.start_zone(2))
        asyncio.run(kage.start_zone(3))


def test_a_bucket_has_one_hub(hub: Hub, kage: Kage, tmp_path: Path) -> None:
    settings = settings_of(hub)

    async def claim(told: ObjectSettings) -> None:
        store = ObjectBlobs(tmp_path, told, redirects=True)
        try:
            await store.claim("somebody else")
        finally:
            store.close()

    with pytest.raises(ConflictError, match="another hub"):
        asyncio.run(claim(settings))
    wrong = settings.model_copy(update={"secret_access_key": SecretStr("wrong")})
    with pytest.raises(BlobStoreAwayError, match="refuses") as refused:
        asyncio.run(claim(wrong))
    assert settings.secret_access_key.get_secret_value() not in refused.value.detail


def test_a_bucket_whose_database_is_lost_is_left_alone(hub: Hub, kage: Kage, tmp_path: Path) -> None:
    """A new database would know nothing of the content, and a collection take it for strays."""

    def opened(settings: ObjectSettings) -> None:
        asyncio.run(opened_store(tmp_path, settings, redirects=True)).close()

    with Client(hub, "shop/lost", user="owner") as client:
        client.push_blob(b"x")
    mark = tmp_path / "store.id"
    mark.write_bytes((hub.data / "store.id").read_bytes())
    with pytest.raises(ConflictError, match=r"no hub\.db") as refused:
        opened(settings_of(hub))
    assert "restore hub.db" in refused.value.hint
    (tmp_path / "hub.db").touch()
    opened(settings_of(hub))
    # A first start that was killed in its middle may be repeated.
    (tmp_path / "hub.db").unlink()
    mark.unlink()
    for _ in range(2):
        opened(bucket_of(kage, "begun"))


def test_a_hub_keeps_to_the_store_that_it_began_with(tmp_path: Path) -> None:
    nowhere = ObjectSettings(
        endpoint="https://kage.example.com",
        bucket="images",
        access_key_id="haneul:d2hub",
        secret_access_key=SecretStr("x"),
    )

    def refused(objects: ObjectSettings | None) -> str:
        with pytest.raises(ConflictError) as error:
            asyncio.run(serve_hub(HubSettings(tmp_path, port=1, plain_http=True, objects=objects)))
        return error.value.detail

    (tmp_path / "hub.db").touch()
    assert "in its files" in refused(nowhere)
    (tmp_path / "hub.db").unlink()
    (tmp_path / "store.id").touch()
    assert "in an object store" in refused(None)
    (tmp_path / "store.id").unlink()
    (tmp_path / "hub.id").touch()
    assert "in its files" in refused(nowhere)
    with pytest.raises(InvalidInputError, match="--proxy-content"):
        HubSettings(tmp_path, proxy_content=True)
    with pytest.raises(InvalidInputError, match="no object store"):
        HubSettings(tmp_path, database_file=tmp_path / "database", objects=nowhere)


def test_settings_are_read_with_care(tmp_path: Path) -> None:
    good = {
        "endpoint": "https://kage.example.com",
        "bucket": "images",
        "accessKeyId": "haneul:d2hub",
        "secretAccessKey": "very secret",
    }
    path = tmp_path / "store.yaml"
    path.touch(mode=0o600)

    def told(**changes: object) -> str:
        path.write_text(yaml.safe_dump(good | changes))
        with pytest.raises(InvalidInputError) as refused:
            read_object_settings(path)
        assert "very secret" not in refused.value.detail
        return refused.value.detail

    path.write_text(yaml.safe_dump(good))
    assert "very secret" not in repr(read_object_settings(path))
    assert "plain HTTP" in told(endpoint="http://kage.example.com")
    assert "no URL" in told(endpoint="kage.example.com")
    assert "bucket" in told(bucket="../other")
    assert "secretKey" in told(secretKey="x")
    path.chmod(0o640)
    assert "others may read" in told()
