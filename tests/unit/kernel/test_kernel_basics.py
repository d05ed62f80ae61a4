"""Names, files, waiting, certificates and merging: the kernel's small parts."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import DeadlineExceededError, InvalidInputError
from haneul.kernel.files import NotPrivateError, read_plain, read_private, write_atomically
from haneul.kernel.kube import is_ready, is_true
from haneul.kernel.kube_merge import matches, merge_applied, merge_patch
from haneul.kernel.names import parse_label
from haneul.kernel.pki import KeyPair, LeafProfile, issue_authority, issue_leaf, sign_request
from haneul.kernel.waiting import wait_for

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


# Names.


@pytest.mark.parametrize("text", ["a", "a1", "shop", "a-b", "a" * 63])
def test_labels_are_taken_as_they_are(text: str) -> None:
    assert parse_label(text, what="name") == text


@pytest.mark.parametrize(
    "text", ["", "-a", "a-", "1a", "A", "a.b", "a_b", "a b", "a\n", "é", "a" * 64, "$(id)", "../x"]
)
def test_what_is_no_label_is_refused_with_its_name(text: str) -> None:
    with pytest.raises(InvalidInputError, match="cluster name") as refusal:
        parse_label(text, what="cluster name")
    assert refusal.value.hint


def test_longest_is_the_caller_s() -> None:
    assert parse_label("abcd", what="name", longest=4) == "abcd"
    with pytest.raises(InvalidInputError):
        parse_label("abcde", what="name", longest=4)


@given(st.text(max_size=8))
def test_no_text_that_is_taken_is_harmful(text: str) -> None:
    try:
        parse_label(text, what="name")
    except InvalidInputError:
        return
    assert text.isascii() and text == text.lower() and text.replace("-", "").isalnum()


# Files.


def test_file_is_written_with_its_mode_and_a_second_time_not(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "secret"
    assert write_atomically(path, "one", mode=0o600)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("one", 0o600)
    before = path.stat()
    assert not write_atomically(path, "one", mode=0o600)
    assert path.stat().st_ino == before.st_ino


def test_changed_content_or_mode_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"one")
    assert write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert write_atomically(path, b"two", mode=0o640)
    assert path.stat().st_mode & 0o777 == 0o640


def test_mode_is_exact_whatever_the_mask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "open", "x", mode=0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o644


def test_failure_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_process_left_does_not_disturb(tmp_path: Path) -> None:
    (tmp_path / f".file.{os.getpid()}.tmp").write_text("half")
    assert write_atomically(tmp_path / "file", "whole")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def in_its_place(path: Path, what: str) -> None:
    """Put there what is no plain file, or one that is too long."""
    path.unlink(missing_ok=True)
    match what:
        case "pipe":
            os.mkfifo(path, 0o600)
        case "link":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "long":
            path.touch(0o600)
            os.truncate(path, 1 << 40)


@pytest.mark.parametrize("what", ["pipe", "link", "folder", "long"])
def test_what_is_no_plain_file_is_neither_waited_for_nor_read(tmp_path: Path, what: str) -> None:
    in_its_place(tmp_path / "secret", what)
    reads: tuple[Callable[[Path], object], ...] = (read_plain, read_private)
    for read in reads:
        with pytest.raises(OSError, match="secret"):
            read(tmp_path / "secret")


def test_a_link_is_followed_only_where_nobody_else_can_make_one(tmp_path: Path) -> None:
    write_atomically(tmp_path / "secret", "s3cret", mode=0o600)
    (tmp_path / "link").symlink_to("secret")
    assert read_private(tmp_path / "link") == "s3cret"
    reads: tuple[Callable[[Path], object], ...] = (read_plain, lambda path: read_private(path, follow=False))
    for read in reads:
        with pytest.raises(OSError, match="link"):
            read(tmp_path / "link")
    (tmp_path / "secret").chmod(0o640)
    with pytest.raises(NotPrivateError):
        read_private(tmp_path / "link")


@pytest.mark.parametrize("what", ["pipe", "link", "long"])
def test_in_somebody_else_s_folder_anything_is_replaced(tmp_path: Path, what: str) -> None:
    in_its_place(tmp_path / "file", what)
    owner = os.geteuid(), os.getegid()
    assert write_atomically(tmp_path / "file", "ours", owner=owner)
    assert not write_atomically(tmp_path / "file", "ours", owner=owner)
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "file").read_text() == "ours"


def test_in_somebody_else_s_folder_a_link_to_what_is_wanted_is_replaced(tmp_path: Path) -> None:
    write_atomically(tmp_path / "other", "same")
    (tmp_path / "file").symlink_to("other")
    assert write_atomically(tmp_path / "file", "same", owner=(os.geteuid(), os.getegid()))
    assert not (tmp_path / "file").is_symlink()


# Waiting.


async def test_wait_returns_what_the_probe_found_after_gentle_back_off() -> None:
    clock = VirtualClock(NOW)
    moments: list[float] = []

    async def probe() -> str | None:
        moments.append(clock.monotonic())
        return "found" if clock.monotonic() > 5 else None

    assert await wait_for(probe, what="it", timeout=30, clock=clock) == "found"
    gaps = [round(later - earlier, 6) for earlier, later in itertools.pairwise(moments)]
    assert gaps[0] == 0.1 and max(gaps) <= 1.0 and gaps == sorted(gaps)


async def test_wait_ends_at_its_deadline_and_says_what_for() -> None:
    clock = VirtualClock(NOW)

    async def never() -> bool:
        return False

    with pytest.raises(DeadlineExceededError, match="waited 10 s for the moon") as error:
        await wait_for(never, what="the moon", timeout=10, clock=clock, hint="look up")
    assert error.value.hint == "look up"
    assert 10 <= clock.monotonic() <= 11


async def test_wait_looks_at_least_once_and_lets_errors_through() -> None:
    clock = VirtualClock(NOW)

    async def at_once() -> bool:
        return True

    async def fails() -> bool:
        raise InvalidInputError("no")

    assert await wait_for(at_once, what="it", timeout=0, clock=clock)
    with pytest.raises(InvalidInputError):
        await wait_for(fails, what="it", timeout=5, clock=clock)


async def test_virtual_clock_moves_only_when_told() -> None:
    clock = VirtualClock(NOW)
    assert (clock.now(), clock.monotonic()) == (NOW, 0)
    await clock.sleep(90)
    assert (clock.now(), clock.monotonic()) == (NOW + timedelta(seconds=90), 90)


# Certificates.


def test_authority_signs_leaves_and_its_leaves_sign_nothing() -> None:
    authority = issue_authority("test", now=NOW)
    loaded = x509.load_pem_x509_certificate(authority.certificate)
    basic = loaded.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    leaf = issue_leaf(authority, LeafProfile("a", server=True), now=NOW)
    usage = x509.load_pem_x509_certificate(leaf.certificate).extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature and not usage.key_cert_sign and not usage.crl_sign


def test_certificates_are_valid_a_little_before_they_are_made() -> None:
    leaf = issue_leaf(issue_authority("test", now=NOW), LeafProfile("a", client=True), now=NOW)
    loaded = x509.load_pem_x509_certificate(leaf.certificate)
    assert loaded.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert leaf.expires() == loaded.not_valid_after_utc == NOW + timedelta(days=90)


def test_renewal_is_due_in_the_last_third_and_after() -> None:
    leaf = issue_leaf(issue_authority("test", now=NOW), LeafProfile("a", client=True), now=NOW, life=timedelta(days=9))
    assert [leaf.needs_renewal(NOW + timedelta(days=day)) for day in (0, 5, 7, 9, 10)] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_no_two_certificates_share_a_serial_number() -> None:
    authority = issue_authority("test", now=NOW)
    leaves = [issue_leaf(authority, LeafProfile("a", client=True), now=NOW) for _ in range(20)]
    assert len({x509.load_pem_x509_certificate(leaf.certificate).serial_number for leaf in leaves}) == 20


def test_private_keys_do_not_show_when_printed() -> None:
    assert "PRIVATE" not in repr(issue_authority("test", now=NOW))


def _csr(key: Any) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "whatever the asker wants")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _sign(authority: KeyPair, csr: bytes) -> x509.Certificate:
    pem = sign_request(authority, csr, LeafProfile("decided", client=True), now=NOW, life=timedelta(days=1))
    return x509.load_pem_x509_certificate(pem)


def test_of_a_request_only_the_key_is_used() -> None:
    authority, key = issue_authority("test", now=NOW), ec.generate_private_key(ec.SECP256R1())
    leaf = _sign(authority, _csr(key))
    assert leaf.public_key() == key.public_key()
    assert leaf.subject.rfc4514_string() == "CN=decided"
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


def test_requests_that_are_none_or_with_other_keys_are_not_signed() -> None:
    authority = issue_authority("test", now=NOW)
    der = bytearray(
        x509.load_pem_x509_csr(_csr(ec.generate_private_key(ec.SECP256R1()))).public_bytes(serialization.Encoding.DER)
    )
    der[der.index(b"whatever")] = ord("W")
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    for csr in (b"garbage", forged, _csr(rsa.generate_private_key(public_exponent=65537, key_size=2048))):
        with pytest.raises(ValueError, match=r".+"):
            _sign(authority, csr)


# Merging.


@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches_of_the_specification(target: Any, patch: Any, merged: Any) -> None:
    before = copy.deepcopy(target)
    assert merge_patch(target, patch) == merged
    assert target == before


@pytest.mark.parametrize(
    ("live", "wanted", "before", "merged"),
    [
        (None, {"a": 1}, None, {"a": 1}),
        ({"a": 1, "theirs": 2}, {"a": 3}, {"a": 1}, {"a": 3, "theirs": 2}),
        ({"a": 1, "b": 2}, {"a": 1}, {"a": 1, "b": 2}, {"a": 1}),
        ({"m": {"a": 1, "theirs": 2}}, {}, {"m": {"a": 1}}, {"m": {"theirs": 2}}),
        ({"m": {"a": 1}}, {}, {"m": {"a": 1}}, {}),
        ({"args": ["a", "b"]}, {"args": ["b"]}, {"args": ["a", "b"]}, {"args": ["b"]}),
        (
            {"ports": [{"name": "x", "port": 1, "nodePort": 30000}]},
            {"ports": [{"name": "x", "port": 1}]},
            {"ports": [{"name": "x", "port": 1}]},
            {"ports": [{"name": "x", "port": 1, "nodePort": 30000}]},
        ),
        (
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            {"env": [{"name": "B", "value": "3"}]},
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            {"env": [{"name": "B", "value": "3"}]},
        ),
    ],
)
def test_applying_takes_away_what_was_ours_and_leaves_the_rest(
    live: Any, wanted: Any, before: Any, merged: Any
) -> None:
    assert merge_applied(live, wanted, before) == merged


_trees = st.recursive(
    st.integers(0, 3), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
)
_objects = st.dictionaries(st.sampled_from("abc"), _trees, max_size=3)


@given(_objects, _objects)
def test_applying_twice_is_applying_once(live: dict[str, Any], wanted: dict[str, Any]) -> None:
    once = merge_applied(live, wanted, None)
    assert merge_applied(once, wanted, wanted) == once


@given(_objects, _objects)
def test_what_one_manager_applied_alone_is_exactly_what_it_applies_next(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    assert _filled(merge_applied(merge_applied(None, first, None), second, first)) == _filled(second)


def _filled(tree: Any) -> Any:
    """Return a tree without its empty branches, which nobody owns."""
    if not isinstance(tree, dict):
        return tree
    branches = {key: _filled(value) for key, value in tree.items()}
    return {key: value for key, value in branches.items() if value != {}}


@pytest.mark.parametrize(
    ("selector", "matched"),
    [
        ("", True),
        ("a=1", True),
        ("a==1", True),
        ("a=2", False),
        ("a=1, b=2", True),
        ("a=1,b=3", False),
        ("a", True),
        ("c", False),
        ("!c", True),
        ("!a", False),
        ("a!=2", True),
        ("c!=2", True),
        ("a!=1", False),
    ],
)
def test_selectors_match_as_kubernetes_documents_them(selector: str, matched: bool) -> None:
    assert matches({"a": "1", "b": "2"}, selector) is matched


# Conditions.


def test_a_condition_holds_when_the_object_says_so() -> None:
    assert is_ready({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    assert not is_ready({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})
    assert not is_ready({})
    failed = {"status": {"conditions": [{"type": "Complete", "status": "False"}, {"type": "Failed", "status": "True"}]}}
    assert (is_true(failed, "Failed"), is_true(failed, "Complete")) == (True, False)
