"""What base images are put together from: apt's answers, trees of files, authorities, records, layouts."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import ssl
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from haneul.components.base_images.apt import Package, packages_of
from haneul.components.base_images.deb import Unpacked
from haneul.components.base_images.layout import Layout
from haneul.components.base_images.record import bill_of_materials, installed, list_name
from haneul.components.base_images.tree import Tree, merged
from haneul.components.base_images.trust import java_truststore, pem_bundle
from haneul.kernel.errors import ConflictError

DATE = 1_700_000_000


def archive(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def member(
    name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, target: str = "", **more: int
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, more.get("mode", 0o644)
    info.mtime = more.get("mtime", DATE - 10)
    return info, content


def everything(path: str, bare: bool) -> bool:
    return bool(path) or bare


def written(tree: Tree) -> tuple[bytes, dict[str, tarfile.TarInfo]]:
    output = io.BytesIO()
    tree.write(output)
    with tarfile.open(fileobj=io.BytesIO(output.getvalue())) as tar:
        return output.getvalue(), {info.name: info for info in tar}


def test_apt_s_list_is_read_to_the_byte() -> None:
    digest = "ab" * 32
    said = (
        f"'http://packages.example/z/zlib1g_1%3a1.2.13.dfsg-1_amd64.deb' zlib1g_1%3a1.2.13.dfsg-1_amd64.deb 86684 "
        f"SHA256:{digest}\n"
        f"'http://packages.example/b/base-files_12.4+deb12u15_amd64.deb' base-files_12.4+deb12u15_amd64.deb 70936 "
        f"SHA256:{digest}\nNothing else\n"
    )
    assert packages_of(said) == (
        Package("base-files", "12.4+deb12u15", "amd64", "base-files_12.4+deb12u15_amd64.deb", 70936, digest),
        Package("zlib1g", "1:1.2.13.dfsg-1", "amd64", "zlib1g_1%3a1.2.13.dfsg-1_amd64.deb", 86684, digest),
    )


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("./", ""),
        ("./bin/sh", "usr/bin/sh"),
        ("./lib64/ld.so", "usr/lib64/ld.so"),
        ("./lib", "usr/lib"),
        ("./library/x", "library/x"),
        ("./usr/bin/x", "usr/bin/x"),
        ("/etc/passwd", "etc/passwd"),
        ("../../etc/passwd", "etc/passwd"),
    ],
)
def test_what_was_beside_usr_is_below_it(name: str, path: str) -> None:
    assert merged(name) == path


def test_a_layer_has_the_same_bytes_whatever_the_order_and_no_date_is_later_than_the_image(tmp_path: Path) -> None:
    first = archive(tmp_path / "first", member("./bin/a", b"a", mtime=DATE + 99), member("./etc/b", b"b"))
    second = archive(tmp_path / "second", member("./etc/c", b"c", mode=0o4755))
    one, other = Tree(DATE), Tree(DATE)
    for tree, order in ((one, (first, second)), (other, (second, first))):
        for packaged in order:
            tree.add_archive(packaged, everything)
        tree.file("etc/d", "d")
    data, members = written(one)
    assert data == written(other)[0]
    assert sorted(members) == ["etc", "etc/b", "etc/c", "etc/d", "usr", "usr/bin", "usr/bin/a"]
    assert members["usr/bin/a"].mtime == members["etc/d"].mtime == DATE
    assert members["etc/b"].mtime == DATE - 10
    assert members["etc/c"].mode == 0o755
    assert all(info.uid == info.gid == 0 and info.uname == info.gname == "" for info in members.values())


def test_a_hard_link_comes_after_its_file_and_not_without_it(tmp_path: Path) -> None:
    pair = (
        member("./usr/bin/z", b"program"),
        member("./usr/bin/a", kind=tarfile.LNKTYPE, target="./usr/bin/z"),
    )
    tree = Tree(DATE)
    tree.add_archive(archive(tmp_path / "both", *pair), everything)
    _, members = written(tree)
    assert list(members)[-1] == "usr/bin/a"
    assert members["usr/bin/a"].linkname == "usr/bin/z"
    with pytest.raises(ConflictError, match="left out"):
        Tree(DATE).add_archive(tmp_path / "both", lambda path, _: path != "usr/bin/z")


def test_two_packages_cannot_have_one_file(tmp_path: Path) -> None:
    tree = Tree(DATE)
    folder = member("./etc", kind=tarfile.DIRTYPE, mode=0o755)
    tree.add_archive(archive(tmp_path / "first", folder, member("./etc/a", b"1")), everything)
    with pytest.raises(ConflictError, match="/etc/a"):
        tree.add_archive(archive(tmp_path / "second", folder, member("./etc/a", b"2")), everything)


def test_a_layer_on_top_has_what_is_new_or_other_and_cannot_remove(tmp_path: Path) -> None:
    packaged = archive(tmp_path / "below", member("./etc/same", b"1"), member("./etc/other", b"1"))
    below, above = Tree(DATE), Tree(DATE + 5)
    for tree in (below, above):
        tree.add_archive(packaged, everything)
        tree.file("etc/house", "same")
    above.file("etc/other", "2")
    above.file("etc/new", "3")
    assert sorted(above.without(below).entries) == ["etc/new", "etc/other"]
    above.remove("etc/same")
    with pytest.raises(ConflictError, match="/etc/same"):
        above.without(below)


def test_content_is_read_through_links(tmp_path: Path) -> None:
    tree = Tree(DATE)
    tree.add_archive(archive(tmp_path / "a", member("./usr/share/x", b"inside")), everything)
    tree.link("etc/x", "../usr/share/x")
    tree.link("etc/y", "/etc/x")
    assert tree.read("etc/y") == b"inside"


@pytest.fixture(scope="module")
def authorities() -> dict[str, bytes]:
    found = {}
    for name in ("Zeta Root.crt", "Főtanúsítvány.crt"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        begin = datetime(2026, 1, 1, tzinfo=UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(days=3650))
            .sign(key, hashes.SHA256())
        )
        found[name] = certificate.public_bytes(serialization.Encoding.PEM)
    return found


def test_openssl_reads_the_bundle(authorities: dict[str, bytes]) -> None:
    bundle = pem_bundle({name: content.rstrip(b"\n") for name, content in authorities.items()})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=bundle.decode())
    assert context.cert_store_stats()["x509"] == len(authorities)


def test_a_java_keystore_is_the_same_each_time_and_sealed(authorities: dict[str, bytes]) -> None:
    store = java_truststore(authorities, date=DATE)
    assert store == java_truststore(dict(reversed(authorities.items())), date=DATE)
    assert store[:12] == bytes.fromhex("feedfeed" + "00000002" + "00000002")
    sealed = "changeit".encode("utf-16-be") + b"Mighty Aphrodite" + store[:-20]
    assert hashlib.sha1(sealed, usedforsecurity=False).digest() == store[-20:]
    for content in authorities.values():
        assert ssl.PEM_cert_to_DER_cert(content.decode()) in store


CONTROL = """Package: zlib1g
Source: zlib (1:1.2)
Version: 1:1.2.13.dfsg-1
Architecture: amd64
Maintainer: Somebody <somebody@example.com>
Multi-Arch: same
Description: compression library - runtime
 More of it."""
ZLIB = Unpacked(Package("zlib1g", "1:1.2.13.dfsg-1", "amd64", "zlib1g.deb", 3, "ab" * 32), CONTROL, DATE, Path("none"))


def test_dpkg_s_record_says_that_packages_are_installed() -> None:
    assert installed([ZLIB]).startswith("Package: zlib1g\nStatus: install ok installed\nSource: zlib (1:1.2)\n")
    assert list_name(ZLIB) == "zlib1g:amd64.list"


def test_a_bill_of_materials_names_each_package_by_its_address_and_is_the_same_each_time() -> None:
    bill = bill_of_materials("base/debian", "12.4", [ZLIB], date=DATE, subject="sha256:00")
    assert bill == bill_of_materials("base/debian", "12.4", [ZLIB], date=DATE, subject="sha256:00")
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert bill["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"
    (component,) = bill["components"]
    assert component["purl"] == "pkg:deb/debian/zlib1g@1%3A1.2.13.dfsg-1?arch=amd64&distro=debian-bookworm"
    assert component["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert component["properties"] == [{"name": "debian:source", "value": "zlib"}]
    assert bill["serialNumber"] != bill_of_materials("x", "1", [ZLIB], date=DATE, subject="sha256:01")["serialNumber"]


def test_a_layout_names_everything_by_its_digest(tmp_path: Path) -> None:
    tree = Tree(DATE)
    tree.file("etc/a", "a")
    layout = Layout(tmp_path / "layout")
    layer = layout.layer(tree)
    image = layout.image([layer], {"os": "linux"}, annotations={"a": "b"}, tag="1")
    bill = layout.attachment({"of": "it"}, "application/vnd.example+json", subject=image, annotations={})
    layout.finish([image, bill])
    for path in (layout.folder / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    plain = gzip.decompress(layout.path(layer.descriptor).read_bytes())
    assert (
        layout.load(layout.manifest()["config"])["rootfs"]["diff_ids"]
        == [f"sha256:{hashlib.sha256(plain).hexdigest()}"]
        == [layer.plain]
    )
    index = json.loads((layout.folder / "index.json").read_text())
    assert index["manifests"][0]["annotations"] == {"org.opencontainers.image.ref.name": "1"}
    attached = layout.load(layout.manifests()[1])
    assert attached["subject"]["digest"] == image["digest"]
    assert attached["artifactType"] == "application/vnd.example+json"
    on_top = Layout(tmp_path / "on-top")
    assert on_top.share(layout) == [layer]
