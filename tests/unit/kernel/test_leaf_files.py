"""Leaf certificates in files: kept while they are good, made anew when they are not."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from haneul.kernel.leaf_files import LeafFiles
from haneul.kernel.pki import LeafProfile, issue_authority

NOW = datetime(2026, 11, 27, tzinfo=UTC)
LIFE = timedelta(days=90)
PROFILE = LeafProfile("app", dns_names=("app", "localhost"), addresses=("127.0.0.1", "::1"), server=True)
AUTHORITY, OTHER = issue_authority("one", now=NOW), issue_authority("one", now=NOW)


def two(folder: Path) -> LeafFiles:
    return LeafFiles(folder / "crt", folder / "key")


def one(folder: Path) -> LeafFiles:
    return LeafFiles(folder / "pem", folder / "pem", chained=True)


@pytest.mark.parametrize("files", [two, one])
def test_it_is_kept_while_it_is_good(tmp_path: Path, files: Callable[[Path], LeafFiles]) -> None:
    made, fresh = files(tmp_path).ensure(AUTHORITY, PROFILE, now=NOW, life=LIFE)
    again, anew = files(tmp_path).ensure(AUTHORITY, PROFILE, now=NOW + timedelta(days=59), life=LIFE)
    assert (fresh, anew, again) == (True, False, made)
    assert files(tmp_path).key.stat().st_mode & 0o777 == 0o600
    chain = x509.load_pem_x509_certificates(made.certificate)
    assert len(chain) == 1 + files(tmp_path).chained
    due, anew = files(tmp_path).ensure(AUTHORITY, PROFILE, now=NOW + timedelta(days=61), life=LIFE)
    assert anew
    assert due != made


@pytest.mark.parametrize("files", [two, one])
def test_other_names_another_authority_and_what_is_spoiled_make_it_anew(
    tmp_path: Path, files: Callable[[Path], LeafFiles]
) -> None:
    kept = files(tmp_path)
    kept.ensure(AUTHORITY, PROFILE, now=NOW, life=LIFE)
    assert kept.ensure(OTHER, PROFILE, now=NOW, life=LIFE)[1]
    assert kept.ensure(OTHER, LeafProfile("app", dns_names=("other",), server=True), now=NOW, life=LIFE)[1]
    for spoil in (
        lambda: kept.key.chmod(0o644),
        lambda: kept.certificate.write_text("no certificate"),
        kept.key.unlink,
    ):
        kept.ensure(OTHER, PROFILE, now=NOW, life=LIFE)
        spoil()
        assert kept.ensure(OTHER, PROFILE, now=NOW, life=LIFE)[1]
        assert not kept.ensure(OTHER, PROFILE, now=NOW, life=LIFE)[1]


@pytest.mark.parametrize("files", [two, one])
def test_pipes_and_links_in_its_place_make_it_anew(tmp_path: Path, files: Callable[[Path], LeafFiles]) -> None:
    kept = files(tmp_path)
    for path in {kept.certificate, kept.key}:
        puts: tuple[Callable[[Path], None], ...] = (
            os.mkfifo,
            lambda path: path.symlink_to("/dev/zero"),
            lambda path: path.symlink_to(path),
        )
        for put in puts:
            kept.ensure(AUTHORITY, PROFILE, now=NOW, life=LIFE)
            path.unlink()
            put(path)
            assert kept.ensure(AUTHORITY, PROFILE, now=NOW, life=LIFE)[1]
            assert not kept.ensure(AUTHORITY, PROFILE, now=NOW, life=LIFE)[1]


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    kept = two(tmp_path)
    kept.key.mkdir()
    with pytest.raises(IsADirectoryError):
        kept.ensure(AUTHORITY, PROFILE, now=NOW, life=LIFE)
