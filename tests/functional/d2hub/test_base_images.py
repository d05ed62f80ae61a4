"""Base images of real Debian packages: built, pushed to a hub, pulled by digest, and run."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from haneul.app.installation import component_store, project_folder
from haneul.app.main import command_tree
from haneul.components.base_images.builder import BaseImageBuilder, Built
from haneul.components.base_images.record import SBOM_TYPE
from haneul.components.base_images.table import base_image
from haneul.components.paths import CacheLayout
from haneul.kernel.errors import NotFoundError
from haneul.kernel.progress import SilentProgress
from tests.functional.d2hub.clients import containerd, need, run
from tests.functional.d2hub.hub import SECRET, Client, Hub, running

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="an image's files have owners"),
    # The first test waits for the images, and for packages, where they were never built.
    pytest.mark.timeout(1200),
]

NAMES = ("debian", "python")


def told(*arguments: str) -> str:
    done = CliRunner().invoke(command_tree(), list(arguments))
    assert done.exit_code == 0, done.output or repr(done.exception)
    return done.stdout


@pytest.fixture(scope="module")
def images() -> dict[str, Built]:
    """Return the images; they are in the components' cache from the first run on."""
    builder = component_store().base_images
    return {name: asyncio.run(builder.build(base_image(name), SilentProgress())) for name in NAMES}


@dataclass(frozen=True)
class Pushed:
    """A hub with the images, what the command said, and how skopeo reaches it."""

    hub: Hub
    said: str
    options: tuple[str, ...]


@pytest.fixture(scope="module")
def pushed(images: dict[str, Built], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    folder = tmp_path_factory.mktemp("base-images")
    with running(folder / "data") as hub, pytest.MonkeyPatch.context() as patched:
        hub.user("owner", base="owner")
        patched.setenv("HANEUL_CONFIG", str(folder / "config" / "config.yaml"))
        secret = folder / "secret"
        secret.write_text(f"{SECRET}\n")
        authority = hub.data / "tls" / "ca.crt"
        told("image", "login", hub.url, "--user", "owner", "--secret-file", str(secret), "--ca", str(authority))
        said = told("base-image", "push", *NAMES)
        # The same again changes nothing, and is no error.
        assert told("base-image", "push", "debian") in said
        (folder / "certs").mkdir()
        shutil.copy(authority, folder / "certs")
        login = [need("skopeo"), "login", "--authfile", str(folder / "auth.json"), "--cert-dir", str(folder / "certs")]
        run(*login, "--username", "owner", "--password-stdin", f"127.0.0.1:{hub.port}", stdin=SECRET)
        options = ("--src-authfile", str(folder / "auth.json"), "--src-cert-dir", str(folder / "certs"))
        yield Pushed(hub, said, options)


@pytest.fixture(scope="module")
def roots(pushed: Pushed, images: dict[str, Built], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the images' file systems as they came from the hub, by digest."""
    found = {}
    for name, made in images.items():
        folder = tmp_path_factory.mktemp(name)
        remote = f"docker://127.0.0.1:{pushed.hub.port}/base/{name}@{made.digest}"
        run(need("skopeo"), "copy", *pushed.options, remote, f"oci:{folder / 'layout'}:pulled")
        index = json.loads((folder / "layout" / "index.json").read_text())
        assert index["manifests"][0]["digest"] == made.digest
        root = folder / "root"
        root.mkdir()
        for layer in made.layout.manifest()["layers"]:
            pulled = folder / "layout" / "blobs" / str(layer["digest"]).replace(":", "/")
            run("tar", "--extract", "--gzip", "--preserve-permissions", "--directory", str(root), "--file", str(pulled))
        found[name] = root
    return found


def config_of(made: Built) -> dict[str, Any]:
    settings: dict[str, Any] = made.layout.load(made.layout.manifest()["config"])["config"]
    return settings


def run_in(root: Path, made: Built, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the image says: its user, environment and entry point; here tini is not process 1."""
    config = config_of(made)
    environment = ["/usr/bin/env", "--ignore-environment", *config["Env"], "TINI_SUBREAPER="]
    return subprocess.run(
        ["chroot", f"--userspec={config['User']}", str(root), *environment, *config["Entrypoint"], *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_each_has_a_tag_that_moves_and_one_that_stays(pushed: Pushed, images: dict[str, Built]) -> None:
    for name, made in images.items():
        row = base_image(name)
        assert made.tags[0] == row.version
        assert made.tags[1].startswith(f"{row.version}-2")
        with Client(pushed.hub, f"base/{name}", user="owner") as client:
            assert client.get("tags/list").json()["tags"] == sorted(made.tags)
            for tag in made.tags:
                assert f"base/{name}:{tag}\n" in pushed.said
                assert client.head(f"manifests/{tag}").headers["docker-content-digest"] == made.digest


def test_the_bill_of_materials_is_found_at_the_image_and_is_complete(
    pushed: Pushed, images: dict[str, Built], roots: dict[str, Path]
) -> None:
    for name, made in images.items():
        with Client(pushed.hub, f"base/{name}", user="owner") as client:
            query = {"artifactType": SBOM_TYPE}
            (descriptor,) = client.get(f"referrers/{made.digest}", params=query).json()["manifests"]
            attached = client.get(f"manifests/{descriptor['digest']}").json()
            bill = client.get(f"blobs/{attached['layers'][0]['digest']}").json()
        status = (roots[name] / "var/lib/dpkg/status").read_text()
        recorded = {line.removeprefix("Package: ") for line in status.splitlines() if line.startswith("Package: ")}
        assert {component["name"] for component in bill["components"]} == recorded
        assert recorded > set(base_image(name).packages)
        assert all(component["purl"].startswith("pkg:deb/debian/") for component in bill["components"])


def test_an_image_is_as_small_as_its_page_says(images: dict[str, Built]) -> None:
    for name, made in images.items():
        assert made.size < base_image(name).megabytes * 1.1e6


def test_python_stands_on_the_same_layer_as_debian(images: dict[str, Built]) -> None:
    below, above = (images[name].layout.manifest()["layers"] for name in NAMES)
    assert above[0] == below[0]
    assert len(above) == len(below) + 1


def test_nothing_is_in_an_image_that_no_container_needs(images: dict[str, Built], roots: dict[str, Path]) -> None:
    for name, root in roots.items():
        latest = datetime.fromisoformat(images[name].created).timestamp()
        files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
        assert [path for path in files if path.stat().st_mode & 0o6000] == []
        documentation = [path for path in files if path.is_relative_to(root / "usr/share/doc")]
        assert {path.name for path in documentation} == {"copyright"}
        for absent in ("var/cache", "etc/init.d", "etc/apt", "usr/share/man", "usr/share/locale", "usr/lib/systemd"):
            assert not (root / absent).exists() or list((root / absent).iterdir()) == []
        for program in ("apt", "apt-get", "dpkg", "perl", "openssl", "bash", "su", "mount", "pip", "gcc"):
            assert list(root.glob(f"usr/*bin/{program}")) == []
        assert max(path.lstat().st_mtime for path in files) <= latest


PROGRAM = """
import asyncio, locale, os, sqlite3, ssl, sys, tempfile, time, zoneinfo
from datetime import datetime
from pathlib import Path

print(os.getuid(), os.getgid(), Path.home(), sys.version_info[:2])
print(locale.getencoding(), "하늘".encode() == b"\\xed\\x95\\x98\\xeb\\x8a\\x98", time.tzname[0])
print(datetime(2026, 11, 27, tzinfo=zoneinfo.ZoneInfo("Asia/Seoul")).isoformat())
print(len(ssl.create_default_context().get_ca_certs()) > 100)
print(sqlite3.connect(":memory:").execute("select 1").fetchall())
print(asyncio.__spec__.cached is not None and os.path.exists(asyncio.__spec__.cached))
Path.home().joinpath("mine").write_text("mine")
Path("/tmp/mine").write_text("mine")
for path in ("/etc/mine", "/app/mine", "/usr/lib/python3.11/mine"):
    try:
        Path(path).write_text("mine")
    except PermissionError:
        continue
    print("could write", path)
"""
SAID = [
    "65532 65532 /home/nonroot (3, 11)",
    "UTF-8 True UTC",
    "2026-11-27T00:00:00+09:00",
    "True",
    "[(1,)]",
    "True",
]


def test_python_runs_as_nobody_with_locale_time_zones_and_authorities(
    images: dict[str, Built], roots: dict[str, Path]
) -> None:
    done = run_in(roots["python"], images["python"], "python3", "-c", PROGRAM)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == SAID


def test_a_shell_runs_as_nobody_too(images: dict[str, Built], roots: dict[str, Path]) -> None:
    done = run_in(
        roots["debian"], images["debian"], "sh", "-c", "id -un; getent passwd nobody | grep -c nologin; date +%Z"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["nonroot", "1", "UTC"]
    refused = run_in(roots["debian"], images["debian"], "sh", "-c", "echo x >/etc/x")
    assert refused.returncode != 0


def test_containerd_pulls_it_by_digest_and_runs_it(pushed: Pushed, images: dict[str, Built], tmp_path: Path) -> None:
    made = images["python"]
    with containerd(tmp_path) as ctr:
        reference = f"127.0.0.1:{pushed.hub.port}/base/python@{made.digest}"
        options = ["--tlscacert", str(pushed.hub.data / "tls" / "ca.crt"), "--user", f"owner:{SECRET}"]
        run(*ctr.command, "images", "pull", "--local", "--snapshotter", "native", *options, reference)
        name = f"haneul-test-{os.getpid()}"
        start = ["run", "--rm", "--snapshotter", "native", "--runc-binary", str(ctr.runc), reference, name]
        said = run(*ctr.command, *start, "python3", "-c", PROGRAM)
    assert said.splitlines() == SAID


def test_it_is_the_same_image_when_it_is_built_elsewhere_and_later(
    images: dict[str, Built], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Seoul")
    layout = CacheLayout(tmp_path)
    # Packages that are here already need not be fetched.
    shutil.copytree(CacheLayout(component_store().cache).packages, layout.packages)
    builder = BaseImageBuilder(layout=layout, project=project_folder())
    for name in NAMES:
        again = asyncio.run(builder.build(base_image(name), SilentProgress()))
        assert again.layout.folder != images[name].layout.folder
        assert again.digest == images[name].digest
        assert again.layout.manifests() == images[name].layout.manifests()


def test_the_list_shows_what_is_built(images: dict[str, Built]) -> None:
    rows = {row["name"]: row for row in json.loads(told("base-image", "list", *NAMES, "-o", "json"))}
    for name, made in images.items():
        assert rows[name]["built"] is True
        assert rows[name]["digest"] == made.digest
        assert rows[name]["fixedTag"] == made.tags[1]
    assert list(rows) == list(NAMES)


def test_an_image_that_nobody_knows_is_said_so() -> None:
    for command in ("list", "build"):
        done = CliRunner().invoke(command_tree(), ["base-image", command, "cobol"])
        assert isinstance(done.exception, NotFoundError)
