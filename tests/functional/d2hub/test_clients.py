"""Real clients against a hub over TLS: buildah, skopeo, and containerd's ctr."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from haneul.kernel.errors import HostNotReadyError
from tests.functional.d2hub.hub import NOT_LONGER_THAN_US, SECRET, Client, Hub, running

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the clients need root for images' files")


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with running(tmp_path_factory.mktemp("clients") / "data") as hub:
        hub.user("owner", shop="owner")
        yield hub


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def run(*command: str, stdin: str | None = None, timeout: float = 120) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, input=stdin)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def trust(secure: Hub, tmp_path: Path) -> Path:
    """Return a folder in which containers' tools find the hub's authority."""
    folder = tmp_path / "certs"
    folder.mkdir()
    shutil.copy(secure.data / "tls" / "ca.crt", folder / "ca.crt")
    return folder


@pytest.fixture
def credentials(secure: Hub, trust: Path, tmp_path: Path) -> Path:
    """Sign in as people do: the secret over standard input, into a file."""
    file = tmp_path / "auth.json"
    command = [need("buildah"), "login", "--authfile", str(file), "--cert-dir", str(trust), "--username", "owner"]
    run(*command, "--password-stdin", f"127.0.0.1:{secure.port}", stdin=SECRET)
    return file


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """Return an image of two layers as an OCI layout, built by buildah from nothing."""
    buildah = need("buildah")
    storage = ["--root", str(tmp_path / "storage"), "--runroot", str(tmp_path / "run"), "--storage-driver", "vfs"]
    (tmp_path / "large").write_bytes(os.urandom(3_000_000))
    container = run(buildah, *storage, "from", "scratch").strip()
    run(buildah, *storage, "copy", container, str(tmp_path / "large"), "/large")
    run(buildah, *storage, "config", "--entrypoint", '["/large"]', container)
    # Compressed, as registries hold layers: a client that compressed them on its way would change the digest.
    run(
        buildah,
        *storage,
        "commit",
        "--disable-compression=false",
        "--format",
        "oci",
        container,
        f"oci:{tmp_path / 'layout'}:v1",
    )
    return tmp_path / "layout"


def digest_of(layout: Path) -> str:
    return str(json.loads((layout / "index.json").read_text())["manifests"][0]["digest"])


def test_buildah_pushes_and_pulls(secure: Hub, trust: Path, credentials: Path, layout: Path, tmp_path: Path) -> None:
    buildah = need("buildah")
    storage = ["--root", str(tmp_path / "s"), "--runroot", str(tmp_path / "r"), "--storage-driver", "vfs"]
    options = ["--authfile", str(credentials), "--cert-dir", str(trust)]
    remote = f"docker://127.0.0.1:{secure.port}/shop/buildah:v1"
    image = run(buildah, *storage, "pull", f"oci:{layout}:v1").strip()
    run(buildah, *storage, "push", *options, image, remote)
    run(buildah, *storage, "rmi", "--all", "--force")
    pulled = run(buildah, *storage, "pull", *options, remote).strip()
    assert pulled == image
    for form, kind in (("v2s2", "docker.distribution.manifest.v2"), ("oci", "oci.image.manifest.v1")):
        run(buildah, *storage, "push", *options, "--format", form, pulled, f"{remote}-{form}")
        with Client(secure, "shop/buildah", user="owner") as client:
            assert kind in client.head(f"manifests/v1-{form}").headers["content-type"]


def test_skopeo_copies_inspects_lists_and_deletes(
    secure: Hub, trust: Path, credentials: Path, layout: Path, tmp_path: Path
) -> None:
    skopeo = need("skopeo")
    remote = f"docker://127.0.0.1:{secure.port}/shop/skopeo"
    source = ["--src-authfile", str(credentials), "--src-cert-dir", str(trust)]
    target = ["--dest-authfile", str(credentials), "--dest-cert-dir", str(trust)]
    options = ["--authfile", str(credentials), "--cert-dir", str(trust)]
    run(skopeo, "copy", *target, f"oci:{layout}:v1", f"{remote}:v1")
    assert json.loads(run(skopeo, "inspect", *options, f"{remote}:v1"))["Digest"] == digest_of(layout)
    run(skopeo, "copy", *source, *target, f"{remote}:v1", f"docker://127.0.0.1:{secure.port}/shop/skopeo-copy:v2")
    run(skopeo, "copy", *source, f"{remote}:v1", f"oci:{tmp_path / 'back'}:v1")
    assert digest_of(tmp_path / "back") == digest_of(layout)
    listed = json.loads(run(skopeo, "list-tags", *options, remote))
    assert listed["Tags"] == ["v1"]
    run(skopeo, "delete", *options, f"{remote}:v1")
    with Client(secure, "shop/skopeo", user="owner") as client:
        assert client.get("manifests/v1").status_code == 404


@contextlib.contextmanager
def containerd(folder: Path) -> Iterator[list[str]]:
    """Run a containerd of the built component, and yield how its ctr is called."""
    from haneul.app.installation import component_store

    store = component_store()
    try:
        program, ctr = store.program("containerd"), store.program("ctr")
    except HostNotReadyError as error:
        pytest.skip(error.detail)
    configuration = folder / "config.toml"
    configuration.write_text(
        f'version = 3\nroot = "{folder / "root"}"\nstate = "{folder / "state"}"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"]\n'
        f'[grpc]\naddress = "{folder / "sock"}"\n'
    )
    process = subprocess.Popen(
        [*NOT_LONGER_THAN_US, str(program), "--config", str(configuration)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not (folder / "sock").exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        yield [str(ctr), "--address", str(folder / "sock")]
    finally:
        process.terminate()
        process.wait(60)


def test_containerd_pulls_and_pushes(secure: Hub, layout: Path, tmp_path: Path) -> None:
    with Client(secure, "shop/ctr", user="owner") as client:
        document = json.loads((layout / "blobs" / digest_of(layout).replace(":", "/")).read_text())
        for entry in (document["config"], *document["layers"]):
            client.push_blob((layout / "blobs" / entry["digest"].replace(":", "/")).read_bytes())
        content = (layout / "blobs" / digest_of(layout).replace(":", "/")).read_bytes()
        assert client.put_manifest("v1", content).status_code == 201
    with containerd(tmp_path) as ctr:
        remote = f"127.0.0.1:{secure.port}/shop/ctr"
        options = ["--tlscacert", str(secure.data / "tls" / "ca.crt"), "--user", f"owner:{SECRET}"]
        run(*ctr, "images", "pull", "--local", *options, f"{remote}:v1")
        assert digest_of(layout) in run(*ctr, "images", "list")
        run(*ctr, "images", "tag", f"{remote}:v1", f"{remote}:v2")
        run(*ctr, "images", "push", "--local", *options, f"{remote}:v2")
    with Client(secure, "shop/ctr", user="owner") as client:
        assert client.get("tags/list").json()["tags"] == ["v1", "v2"]
