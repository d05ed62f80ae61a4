"""Real clients against a hub over TLS: buildah, skopeo, containerd's ctr, crane, oras, regctl and helm."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from haneul.app.installation import component_store
from haneul.kernel.errors import HostNotReadyError
from tests.functional.d2hub.clients import built, containerd, need, run
from tests.functional.d2hub.hub import SECRET, Client, Hub, running

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the clients need root for images' files"),
    # Clients that were never built on this machine are built first.
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with running(tmp_path_factory.mktemp("clients") / "data") as hub:
        hub.user("owner", shop="owner")
        yield hub


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
        run(*ctr.command, "images", "pull", "--local", *options, f"{remote}:v1")
        assert digest_of(layout) in run(*ctr.command, "images", "list")
        run(*ctr.command, "images", "tag", f"{remote}:v1", f"{remote}:v2")
        run(*ctr.command, "images", "push", "--local", *options, f"{remote}:v2")
    with Client(secure, "shop/ctr", user="owner") as client:
        assert client.get("tags/list").json()["tags"] == ["v1", "v2"]


@pytest.fixture
def home(secure: Hub, tmp_path: Path) -> dict[str, str]:
    """Return the environment of somebody who trusts the hub's authority and keeps what clients keep in a folder."""
    return {
        "HOME": str(tmp_path / "home"),
        "DOCKER_CONFIG": str(tmp_path / "home" / "docker"),
        "HELM_REGISTRY_CONFIG": str(tmp_path / "home" / "helm.json"),
        "REGCTL_CONFIG": str(tmp_path / "home" / "regctl.json"),
        "SSL_CERT_FILE": str(secure.data / "tls" / "ca.crt"),
    }


def test_crane_pushes_copies_lists_pulls_and_deletes(
    secure: Hub, layout: Path, home: dict[str, str], tmp_path: Path
) -> None:
    crane, host = built("crane"), f"127.0.0.1:{secure.port}"

    def do(*arguments: str, stdin: str | None = None) -> str:
        return run(crane, *arguments, env=home, stdin=stdin).strip()

    do("auth", "login", host, "--username", "owner", "--password-stdin", stdin=SECRET)
    do("push", str(layout), f"{host}/shop/crane:v1")
    assert do("digest", f"{host}/shop/crane:v1") == digest_of(layout)
    do("copy", f"{host}/shop/crane:v1", f"{host}/shop/crane-copy:v2")
    assert do("digest", f"{host}/shop/crane-copy:v2") == digest_of(layout)
    do("tag", f"{host}/shop/crane:v1", "v1.1")
    assert do("ls", f"{host}/shop/crane").split() == ["v1", "v1.1"]
    assert {"shop/crane", "shop/crane-copy"} <= set(do("catalog", host).split())
    do("validate", "--remote", f"{host}/shop/crane@{digest_of(layout)}")
    do("pull", "--format", "oci", f"{host}/shop/crane:v1", str(tmp_path / "pulled"))
    assert digest_of(tmp_path / "pulled") == digest_of(layout)
    do("delete", f"{host}/shop/crane-copy@{digest_of(layout)}")
    with Client(secure, "shop/crane-copy", user="owner") as client:
        assert client.get("manifests/v2").status_code == 404


def test_oras_attaches_discovers_and_copies_with_what_refers(
    secure: Hub, layout: Path, home: dict[str, str], tmp_path: Path
) -> None:
    oras, host = built("oras"), f"127.0.0.1:{secure.port}"

    def do(*arguments: str, stdin: str | None = None) -> str:
        return run(oras, *arguments, env=home, stdin=stdin, cwd=tmp_path).strip()

    do("login", host, "--username", "owner", "--password-stdin", stdin=SECRET)
    do("cp", "--from-oci-layout", f"{layout}:v1", f"{host}/shop/oras:v1")
    (tmp_path / "bill.json").write_text('{"bomFormat": "CycloneDX"}')
    (tmp_path / "signature").write_text("signed")
    for kind, file in (
        ("application/vnd.cyclonedx+json", "bill.json"),
        ("application/vnd.example.signature", "signature"),
    ):
        do("attach", "--artifact-type", kind, f"{host}/shop/oras:v1", file)
    found = json.loads(do("discover", "--format", "json", f"{host}/shop/oras:v1"))["referrers"]
    assert {entry["artifactType"] for entry in found} == {
        "application/vnd.cyclonedx+json",
        "application/vnd.example.signature",
    }
    of_type = ["discover", "--format", "json", "--artifact-type", "application/vnd.cyclonedx+json"]
    (bill,) = json.loads(do(*of_type, f"{host}/shop/oras:v1"))["referrers"]
    do("cp", "--recursive", f"{host}/shop/oras:v1", f"{host}/shop/oras-copy:v1")
    copied = json.loads(do(*of_type, f"{host}/shop/oras-copy:v1"))["referrers"]
    assert [entry["digest"] for entry in copied] == [bill["digest"]]
    do("pull", "--output", str(tmp_path / "back"), f"{host}/shop/oras-copy@{bill['digest']}")
    assert (tmp_path / "back" / "bill.json").read_text() == '{"bomFormat": "CycloneDX"}'
    do("push", "--artifact-type", "application/vnd.example", f"{host}/shop/oras-file:v1", "signature:text/plain")
    assert do("repo", "tags", f"{host}/shop/oras-file") == "v1"
    do("manifest", "delete", "--force", f"{host}/shop/oras@{bill['digest']}")
    assert json.loads(do(*of_type, f"{host}/shop/oras:v1"))["referrers"] in ([], None)


def test_regctl_copies_attaches_and_deletes_tags(
    secure: Hub, layout: Path, home: dict[str, str], tmp_path: Path
) -> None:
    regctl, host = built("regctl"), f"127.0.0.1:{secure.port}"

    def do(*arguments: str, stdin: str | None = None) -> str:
        return run(regctl, *arguments, env=home, stdin=stdin).strip()

    do("registry", "login", host, "--user", "owner", "--pass-stdin", stdin=SECRET)
    do("image", "copy", f"ocidir://{layout}:v1", f"{host}/shop/regctl:v1")
    assert do("image", "digest", f"{host}/shop/regctl:v1") == digest_of(layout)
    put = ["artifact", "put", "--artifact-type", "application/vnd.example", "--subject", f"{host}/shop/regctl:v1"]
    do(*put, stdin="attached")
    assert do("artifact", "get", "--subject", f"{host}/shop/regctl:v1") == "attached"
    do("image", "copy", "--referrers", f"{host}/shop/regctl:v1", f"{host}/shop/regctl-copy:v1")
    assert "application/vnd.example" in do("artifact", "list", f"{host}/shop/regctl-copy:v1")
    do("image", "copy", f"{host}/shop/regctl:v1", f"{host}/shop/regctl:v2")
    assert do("tag", "ls", f"{host}/shop/regctl").split() == ["v1", "v2"]
    # It first tries the specification's way, to delete the tag by itself.
    do("tag", "delete", f"{host}/shop/regctl:v2")
    assert do("tag", "ls", f"{host}/shop/regctl").split() == ["v1"]
    do("image", "copy", f"{host}/shop/regctl:v1", f"ocidir://{tmp_path / 'back'}:v1")
    assert digest_of(tmp_path / "back") == digest_of(layout)


def test_helm_pushes_and_pulls_a_chart(secure: Hub, home: dict[str, str], tmp_path: Path) -> None:
    try:
        # It takes minutes to build where it never was, which is too long for a test.
        helm = str(component_store().program("helm"))
    except HostNotReadyError as error:
        pytest.skip(error.detail)
    host = f"127.0.0.1:{secure.port}"
    chart = tmp_path / "web"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: web\nversion: 1.2.3\ndescription: a chart of tests\n")
    (chart / "templates" / "map.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\n")

    def do(*arguments: str, stdin: str | None = None) -> str:
        return run(helm, *arguments, env=home, stdin=stdin, cwd=tmp_path)

    do("registry", "login", host, "--username", "owner", "--password-stdin", stdin=SECRET)
    do("package", str(chart))
    do("push", "web-1.2.3.tgz", f"oci://{host}/shop/charts")
    assert "description: a chart of tests" in do("show", "chart", f"oci://{host}/shop/charts/web", "--version", "1.2.3")
    (tmp_path / "back").mkdir()
    do("pull", f"oci://{host}/shop/charts/web", "--version", "1.2.3", "--destination", str(tmp_path / "back"))
    assert (tmp_path / "back" / "web-1.2.3.tgz").read_bytes() == (tmp_path / "web-1.2.3.tgz").read_bytes()
    assert "kind: ConfigMap" in do("template", "x", f"oci://{host}/shop/charts/web", "--version", "1.2.3")
    with Client(secure, "shop/charts/web", user="owner") as client:
        config = client.get("manifests/1.2.3").json()["config"]
        assert config["mediaType"] == "application/vnd.cncf.helm.config.v1+json"
