"""A hub in a process of its own, and a client that speaks the specification and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from haneul.app.d2hub import accounts_of
from haneul.d2hub.adapters.file_accounts import Role

PROJECT = Path(__file__).parents[3]
DEADLINE = 150.0
#: Put before a command: the kernel kills it when this process ends, however that happens.
NOT_LONGER_THAN_US = ("setpriv", "--pdeathsig", "KILL")
SECRET = "a secret of tests"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def sha512(data: bytes) -> str:
    return f"sha512:{hashlib.sha512(data).hexdigest()}"


def reserved_port() -> socket.socket:
    """Return a socket that keeps a port from being given to others; who names it may still listen there."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class Hub:
    """A hub that can be killed and started again."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data, self.options = data, options
        self.reserved = reserved_port()
        self.port: int = self.reserved.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.plain = "--plain-http" in options
        self.url = f"{'http' if self.plain else 'https'}://127.0.0.1:{self.port}"
        self.log = data.parent / f"{data.name}-{self.port}.log"

    def start(self) -> None:
        self.launch()
        self.wait()

    def launch(self) -> None:
        serve = [sys.executable, "-m", "haneul.app.main", "d2hub", "serve", "--data", str(self.data)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*NOT_LONGER_THAN_US, *serve, "--port", str(self.port), *self.options],
                cwd=PROJECT,
                env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + DEADLINE
        said = "nothing yet"
        while time.monotonic() < deadline:
            try:
                with self.browser() as http:
                    said = http.get("/readyz").text
                    if said == "ok\n":
                        return
            except (OSError, httpx2.TransportError) as error:
                said = repr(error)
            assert self.process.poll() is None, f"the hub ended:\n{self.log.read_text()}"
            time.sleep(0.05)
        raise AssertionError(f"the hub does not answer ({said}):\n{self.log.read_text()}")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)

    def browser(self) -> httpx2.Client:
        import ssl

        verify: Any = True
        if not self.plain:
            verify = ssl.create_default_context(cafile=str(self.data / "tls" / "ca.crt"))
        return httpx2.Client(base_url=self.url, verify=verify, timeout=30, trust_env=False)

    def user(self, name: str, *, admin: bool = False, **roles: str) -> None:
        projects = {project.replace("every", "*"): Role(role) for project, role in roles.items()}
        accounts_of(self.data).add_user(name, SECRET, admin=admin, projects=projects)


@contextlib.contextmanager
def running(data: Path, *options: str) -> Iterator[Hub]:
    """Run a hub until the block ends."""
    hub = Hub(data, *options)
    try:
        hub.start()
        yield hub
    finally:
        if hub.process is not None and hub.process.poll() is None:
            hub.kill()
        hub.reserved.close()


@dataclass(frozen=True)
class Image:
    """An image made up for a test."""

    manifest: bytes
    config: bytes
    layers: tuple[bytes, ...]
    media_type: str = OCI_MANIFEST

    @property
    def digest(self) -> str:
        return sha256(self.manifest)


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


def image(*layers: bytes, config: bytes = b"{}", **more: Any) -> Image:
    """Return an image of these layers; ``more`` goes into its manifest."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, OCI_CONFIG),
        "layers": [descriptor(layer, OCI_LAYER) for layer in layers],
        **more,
    }
    return Image(json.dumps(document).encode(), config, layers)


class Client:
    """Somebody at a hub, with a token for one repository."""

    def __init__(
        self, hub: Hub, repository: str, *, user: str = "", actions: str = "pull,push,delete", also: Sequence[str] = ()
    ) -> None:
        self.repository = repository
        self.http = hub.browser()
        scopes = [f"repository:{repository}:{actions}", *also]
        auth = (user, SECRET) if user else None
        answer = self.http.get("/token", params={"service": "d2hub", "scope": scopes}, auth=auth)
        assert answer.status_code == 200, answer.text
        self.token = answer.json()["token"]
        self.http.headers["Authorization"] = f"Bearer {self.token}"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def path(self, rest: str) -> str:
        return f"/v2/{self.repository}/{rest}"

    def get(self, rest: str, **arguments: Any) -> httpx2.Response:
        return self.http.get(self.path(rest), **arguments)

    def head(self, rest: str, **arguments: Any) -> httpx2.Response:
        return self.http.head(self.path(rest), **arguments)

    def delete(self, rest: str) -> httpx2.Response:
        return self.http.delete(self.path(rest))

    def begin(self) -> str:
        answer = self.http.post(self.path("blobs/uploads/"))
        assert answer.status_code == 202, answer.text
        return str(answer.headers["location"])

    def push_blob(self, data: bytes, digest: str = "") -> str:
        digest = digest or sha256(data)
        answer = self.http.put(self.begin(), params={"digest": digest}, content=data)
        assert answer.status_code == 201, answer.text
        return digest

    def put_manifest(self, reference: str, content: bytes, media_type: str = OCI_MANIFEST) -> httpx2.Response:
        headers = {"Content-Type": media_type}
        return self.http.put(self.path(f"manifests/{reference}"), content=content, headers=headers)

    def push(self, made: Image, reference: str) -> str:
        for blob in (made.config, *made.layers):
            self.push_blob(blob)
        answer = self.put_manifest(reference, made.manifest, made.media_type)
        assert answer.status_code == 201, answer.text
        return made.digest


def codes(answer: httpx2.Response) -> list[str]:
    """Return the codes of an error answer, which has to be of the specification's form."""
    assert answer.headers["content-type"] == "application/json"
    entries = answer.json()["errors"]
    assert entries
    assert all(entry["message"] for entry in entries)
    return [entry["code"] for entry in entries]
