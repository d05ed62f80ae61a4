"""The builder of base images with packages made up for the test: when it builds, and that it builds the same."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from haneul.components.base_images.apt import Package
from haneul.components.base_images.builder import BaseImageBuilder, Built
from haneul.components.base_images.table import base_image
from haneul.components.paths import CacheLayout
from haneul.kernel.errors import CommandFailedError, ConflictError
from haneul.kernel.progress import SilentProgress, Stage

PROJECT = Path(__file__).parents[3]
AUTHORITY = "-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----"
#: What the builder itself reads of packages; each has a licence besides.
FILES = {
    "base-passwd": {
        "usr/share/base-passwd/passwd.master": "root:*:0:0:root:/root:/bin/bash\n",
        "usr/share/base-passwd/group.master": "root:*:0:\n",
        "usr/sbin/update-passwd": "",
    },
    "libc-bin": {"usr/share/libc-bin/nsswitch.conf": "hosts: files dns\n", "sbin/ldconfig": ""},
    "ca-certificates": {"usr/share/ca-certificates/mozilla/Root.crt": AUTHORITY},
    "nginx": {
        "usr/sbin/nginx": "",
        "etc/nginx/nginx.conf": "Debian's",
        "etc/init.d/nginx": "",
        "etc/nginx/mime.types": "",
    },
}
VERSIONS = {"base-files": "12.4", "nginx": "1.22.1-9"}


class MadeUpPackages:
    """Packages by name and version, built with dpkg-deb when they are fetched."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.versions = dict(VERSIONS)
        self.refreshed = 0
        self.gone: set[str] = set()

    async def resolve(self, names: Sequence[str], *, without: Iterable[str] = ()) -> tuple[Package, ...]:
        assert not set(names) & set(without)
        return tuple(self._package(name) for name in sorted(names))

    async def fetch(self, packages: Sequence[Package], *, without: Iterable[str] = ()) -> dict[Package, Path]:
        if missing := self.gone & {package.name for package in packages}:
            raise CommandFailedError(f"404 {missing}")
        return {package: self._file(package.name) for package in packages}

    async def refresh(self) -> None:
        self.refreshed += 1
        for name in self.gone:
            self.versions[name] = "2.0"
        self.gone = set()

    def _package(self, name: str) -> Package:
        content = self._file(name).read_bytes()
        version = self.versions.get(name, "1.0")
        return Package(name, version, "amd64", f"{name}.deb", len(content), hashlib.sha256(content).hexdigest())

    def _file(self, name: str) -> Path:
        version = self.versions.get(name, "1.0")
        made = self._folder / f"{name}_{version}.deb"
        if made.exists():
            return made
        root = self._folder / f"{name}_{version}"
        files = {
            f"usr/share/doc/{name}/copyright": "free",
            f"usr/share/doc/{name}/changelog": "",
            **FILES.get(name, {}),
        }
        control = (
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody\nDescription: made up\n"
        )
        for path, content in {**files, "DEBIAN/control": control}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(root), str(made)],
            check=True,
            capture_output=True,
            timeout=60,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        )
        return made


class CountingProgress(SilentProgress):
    def __init__(self) -> None:
        self.titles: list[str] = []

    @contextmanager
    def stage(self, title: str, *, expected_seconds: float | None = None) -> Iterator[Stage]:
        self.titles.append(title)
        with super().stage(title, expected_seconds=expected_seconds) as stage:
            yield stage


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where packages lie once they are made: each is the same in all tests."""
    return tmp_path_factory.mktemp("packages")


@pytest.fixture
def packages(shelf: Path) -> MadeUpPackages:
    return MadeUpPackages(shelf)


def build(cache: Path, packages: MadeUpPackages, name: str = "debian") -> tuple[Built, list[str]]:
    """Build with a builder of its own, as a command does; return the image and what was really done."""
    cache.mkdir(exist_ok=True)
    builder = BaseImageBuilder(layout=CacheLayout(cache), project=PROJECT, packages=packages)
    progress = CountingProgress()
    return asyncio.run(builder.build(base_image(name), progress)), progress.titles


def files_of(made: Built) -> dict[str, tarfile.TarInfo]:
    found: dict[str, tarfile.TarInfo] = {}
    for layer in made.layout.manifest()["layers"]:
        with tarfile.open(made.layout.path(layer)) as tar:
            found |= {info.name: info for info in tar}
    return found


def test_an_image_is_built_again_when_a_package_was_updated_and_only_then(
    tmp_path: Path, packages: MadeUpPackages
) -> None:
    first, done = build(tmp_path / "cache", packages)
    assert done == ["build base/debian"]
    again, done = build(tmp_path / "cache", packages)
    assert (again.digest, done) == (first.digest, [])
    packages.versions["tzdata"] = "1.1"
    updated, done = build(tmp_path / "cache", packages)
    assert updated.digest != first.digest
    assert updated.tags[0] == first.tags[0] == "12"
    assert updated.tags[1] != first.tags[1]
    assert done == ["build base/debian"]
    # What is not part of an image does not concern it.
    packages.versions["nginx"] = "1.22.1-10"
    assert build(tmp_path / "cache", packages)[1] == []


def test_an_image_stands_on_the_one_below_it_and_says_so(tmp_path: Path, packages: MadeUpPackages) -> None:
    made, done = build(tmp_path / "cache", packages, "nginx")
    assert done == ["build base/debian", "build base/nginx"]
    below, _ = build(tmp_path / "cache", packages)
    manifest = made.layout.manifest()
    assert manifest["layers"][0] == below.layout.manifest()["layers"][0]
    assert manifest["annotations"]["org.opencontainers.image.base.digest"] == below.digest
    assert manifest["annotations"]["org.opencontainers.image.version"] == "1.22.1-9"
    with tarfile.open(made.layout.path(manifest["layers"][1])) as tar:
        upper = {info.name for info in tar if not info.isdir()}
    assert upper >= {"etc/nginx/nginx.conf", "usr/sbin/nginx", "srv/www/index.html", "var/lib/dpkg/status"}
    assert "etc/passwd" not in upper


def other_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time() + 40 * 86400
    monkeypatch.setattr(time, "time", lambda: now)


def test_it_is_the_same_image_whenever_and_wherever_it_is_built(
    tmp_path: Path, packages: MadeUpPackages, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = build(tmp_path / "here", packages, "nginx")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "Asia/Seoul")
        elsewhere.setenv("LC_ALL", "C")
        other_time(elsewhere)
        mask = os.umask(0o077)
        try:
            second, _ = build(tmp_path / "elsewhere", packages, "nginx")
        finally:
            os.umask(mask)
    assert second.digest == first.digest
    assert second.layout.manifests() == first.layout.manifests()
    assert second.tags == first.tags


def test_an_image_is_what_its_packages_and_the_house_make_it(tmp_path: Path, packages: MadeUpPackages) -> None:
    made, _ = build(tmp_path / "cache", packages, "nginx")
    files = files_of(made)
    assert files["bin"].linkname == "usr/bin"
    assert "usr/sbin/ldconfig" in files
    assert "usr/share/doc/tzdata/copyright" in files
    for path in ("usr/share/doc/tzdata/changelog", "etc/init.d/nginx", "usr/sbin/update-passwd"):
        assert path not in files
    assert files["tmp"].mode == 0o1777
    home = files["home/nonroot"]
    assert (home.uid, home.gid, home.mode) == (65532, 65532, 0o700)
    manifest = made.layout.manifest()
    with tarfile.open(made.layout.path(manifest["layers"][0])) as tar:
        bundle = tar.extractfile("etc/ssl/certs/ca-certificates.crt")
        accounts = tar.extractfile("etc/passwd")
        assert bundle is not None
        assert bundle.read().decode() == f"{AUTHORITY}\n"
        assert accounts is not None
        assert accounts.read().decode().splitlines() == [
            "root:*:0:0:root:/root:/bin/sh",
            "nonroot:*:65532:65532:nonroot:/home/nonroot:/usr/sbin/nologin",
        ]
    config = made.layout.load(manifest["config"])
    assert config["created"] == "2023-11-14T22:13:20Z"
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["ExposedPorts"] == {"8080/tcp": {}}
    assert config["config"]["StopSignal"] == "SIGQUIT"
    assert config["config"]["Labels"] == manifest["annotations"]
    assert len(config["history"]) == len(config["rootfs"]["diff_ids"]) == 2


def test_the_bill_of_materials_refers_to_the_image_and_lists_its_packages(
    tmp_path: Path, packages: MadeUpPackages
) -> None:
    made, _ = build(tmp_path / "cache", packages)
    _, descriptor = made.layout.manifests()
    attached = made.layout.load(descriptor)
    assert attached["subject"]["digest"] == made.digest
    bill = made.layout.load(attached["layers"][0])
    assert {component["name"] for component in bill["components"]} == set(base_image("debian").packages)


@pytest.mark.parametrize("name", ["debian", "nginx"])
def test_lists_that_name_what_is_gone_are_asked_for_once(tmp_path: Path, packages: MadeUpPackages, name: str) -> None:
    packages.gone = {"tzdata"}
    made, done = build(tmp_path / "cache", packages, name)
    assert packages.refreshed == 1
    assert "package lists" in done
    bill = made.layout.load(made.layout.load(made.layout.manifests()[1])["layers"][0])
    assert [entry["version"] for entry in bill["components"] if entry["name"] == "tzdata"] == ["2.0"]


def test_what_cannot_be_fetched_is_an_error_and_leaves_nothing(
    tmp_path: Path, packages: MadeUpPackages, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_news() -> None:
        packages.refreshed += 1

    monkeypatch.setattr(packages, "refresh", no_news)
    packages.gone = {"tzdata"}
    with pytest.raises(CommandFailedError, match="404"):
        build(tmp_path / "cache", packages)
    assert packages.refreshed == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["locks"]


def test_an_image_is_not_named_for_a_version_that_it_has_not(tmp_path: Path, packages: MadeUpPackages) -> None:
    packages.versions["base-files"] = "13.1"
    with pytest.raises(ConflictError, match=r"13\.1"):
        build(tmp_path / "cache", packages)


@pytest.mark.parametrize("changed", ["settings", "house"])
def test_settings_and_the_house_s_files_are_part_of_the_key(
    tmp_path: Path, packages: MadeUpPackages, changed: str
) -> None:
    def key(project: Path, row: Any) -> str:
        builder = BaseImageBuilder(layout=CacheLayout(tmp_path), project=project, packages=packages)
        return asyncio.run(builder.plan(row)).key

    row = base_image("debian")
    other_project = tmp_path / "project"
    folder = other_project / "components" / "base-images" / "debian" / "files" / "etc"
    folder.mkdir(parents=True)
    (folder / "motd").write_text("hello")
    before = key(PROJECT, row)
    after: dict[str, Callable[[], str]] = {
        "settings": lambda: key(PROJECT, replace(row, command=("/bin/true",))),
        "house": lambda: key(other_project, row),
    }
    assert after[changed]() != before == key(PROJECT, row)
