"""The file system of an image, decided purely: packages' files, less what no container needs, and the house's own.

Maintainers' scripts do not run. What those of the packages in the table would have done, and an image needs, is done
here: accounts, name service, time zone, authorities, links.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from haneul.components.base_images.deb import Unpacked
from haneul.components.base_images.record import installed, list_name
from haneul.components.base_images.table import HOME, LEAVE_OUT, USER, USER_ID, BaseImage
from haneul.components.base_images.tree import Tree, merged_links
from haneul.components.base_images.trust import java_truststore, pem_bundle

_AUTHORITIES: Final = "usr/share/ca-certificates"
_BUNDLE: Final = "etc/ssl/certs/ca-certificates.crt"
_JAVA_TRUST: Final = "etc/ssl/certs/java/cacerts"
_EVERYBODY: Final = 0o1777
_DOCUMENTATION: Final = "usr/share/doc/"


def root_of(
    images: Sequence[BaseImage], packages: Mapping[str, Sequence[Unpacked]], house: Mapping[str, Path], *, date: int
) -> Tree:
    """Return the whole file system of the last of ``images``, each of which stands on the one before.

    ``packages`` and ``house`` (a folder of files) are by the image's name; ``packages`` of an image are all that it
    has. ``date``, in seconds since the epoch, is the latest of any file.
    """
    tree = Tree(date)
    for link, target in merged_links().items():
        tree.link(link, target)
    _add_packages(tree, images, packages)
    _add_accounts(tree)
    _add_system(tree)
    _add_authorities(tree, java=any(row.java_trust for row in images), date=date)
    for row in images:
        for path, target in row.links:
            tree.link(path, target)
        _add_house(tree, house.get(row.name))
    return tree


def _add_packages(tree: Tree, images: Sequence[BaseImage], packages: Mapping[str, Sequence[Unpacked]]) -> None:
    patterns = [*LEAVE_OUT, *(pattern for row in images for pattern in row.leave_out)]

    def wanted(path: str, bare: bool) -> bool:
        if path.startswith(_DOCUMENTATION):
            # A package whose licence is another's has a link in the place of its folder.
            return posixpath.basename(path) == "copyright" or (bare and path.count("/") == _DOCUMENTATION.count("/"))
        return not any(fnmatchcase(path, pattern) for pattern in patterns)

    everything = sorted(packages[images[-1].name], key=lambda unpacked: unpacked.package.name)
    for unpacked in everything:
        paths = tree.add_archive(unpacked.files, wanted)
        listed = "".join(f"/{path}\n" for path in sorted(paths))
        tree.file(f"var/lib/dpkg/info/{list_name(unpacked)}", listed)
    tree.file("var/lib/dpkg/status", installed(everything))


def _add_accounts(tree: Tree) -> None:
    """As base-passwd's script does, and one account more. There is no bash, so nobody's shell is one."""
    people = tree.read("usr/share/base-passwd/passwd.master").decode().replace(":/bin/bash", ":/bin/sh")
    groups = tree.read("usr/share/base-passwd/group.master").decode()
    tree.file("etc/passwd", f"{people}{USER}:*:{USER_ID}:{USER_ID}:{USER}:{HOME}:/usr/sbin/nologin\n")
    tree.file("etc/group", f"{groups}{USER}:*:{USER_ID}:\n")
    tree.folder(HOME.lstrip("/"), mode=0o700, uid=USER_ID, gid=USER_ID)


def _add_system(tree: Tree) -> None:
    for path in ("tmp", "var/tmp"):
        tree.folder(path, mode=_EVERYBODY)
    for path in ("app", "run", "var/lib", "var/log"):
        tree.folder(path)
    tree.link("var/run", "../run")
    tree.link("var/lock", "../run/lock")
    tree.file("etc/nsswitch.conf", tree.read("usr/share/libc-bin/nsswitch.conf"))
    tree.file("etc/timezone", "Etc/UTC\n")
    tree.link("etc/localtime", "/usr/share/zoneinfo/Etc/UTC")


def _add_authorities(tree: Tree, *, java: bool, date: int) -> None:
    """Put all authorities into the one file that programs read, and where OpenSSL looks by itself."""
    found = {
        posixpath.basename(path): tree.read(path)
        for path in tree.entries
        if path.startswith(f"{_AUTHORITIES}/") and path.endswith(".crt")
    }
    tree.remove(_AUTHORITIES)
    tree.file(_BUNDLE, pem_bundle(found))
    tree.link("usr/lib/ssl/cert.pem", f"/{_BUNDLE}")
    tree.link("usr/lib/ssl/certs", "/etc/ssl/certs")
    if java:
        tree.file(_JAVA_TRUST, java_truststore(found, date=date))


def _add_house(tree: Tree, folder: Path | None) -> None:
    if folder is None or not folder.is_dir():
        return
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            tree.file(str(path.relative_to(folder)), path.read_bytes())
