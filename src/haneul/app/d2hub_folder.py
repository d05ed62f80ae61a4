"""The folder of a registry that runs alone, or of several: who may use it, its keys and its certificate."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog
from filelock import FileLock, Timeout

from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from haneul.kernel.files import write_atomically
from haneul.kernel.leaf_files import LeafFiles
from haneul.kernel.pki import KeyPair, LeafProfile, issue_authority

_log = structlog.get_logger(__name__)
_LEAF_LIFE: Final = timedelta(days=365)
_PRIVATE: Final = 0o600
_SETUP_SECONDS: Final = 60.0


def make_folder(data: Path) -> bool:
    """Make a registry's folder, and say whether it was not there. Raises InvalidInputError if it cannot be one."""
    made = not data.exists()
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        why = "it is a file" if data.is_file() else error.strerror
        raise _no_folder(data, f"{why}") from error
    if not os.access(data, os.W_OK | os.X_OK):
        raise _no_folder(data, "it cannot be written")
    return made


def check_folder(data: Path) -> None:
    """Raise NotFoundError if a folder is no registry's: what is mistyped is not made."""
    if not any((data / name).exists() for name in ("accounts.yaml", "token.key")):
        raise NotFoundError(
            f"{data} is no registry's folder",
            hint="name it with --data; 'haneul d2hub serve' and 'haneul d2hub user add' make one",
        )


def _no_folder(data: Path, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"{data} cannot be a registry's folder: {why}", hint="--data names a folder that you may write, or make"
    )


@contextlib.contextmanager
def in_use(data: Path, *, shared: bool) -> Iterator[None]:
    """Hold the folder: what a process remembers of it is true only if no other changes it.

    Those that remember nothing, as they share a database, hold it together. Raises ConflictError.
    """
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT, _PRIVATE)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(
                f"another registry serves {data}", hint="end that one first, or name another folder"
            ) from error
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def being_set_up(data: Path) -> Iterator[None]:
    """Keep other processes from making the same files or tables at the same time. Raises UnavailableError."""
    try:
        with FileLock(data / "setup.lock", timeout=_SETUP_SECONDS, mode=_PRIVATE):
            yield
    except Timeout as error:
        raise UnavailableError(
            f"another registry has been starting in {data} for {_SETUP_SECONDS:.0f} s", hint="look at its log"
        ) from error


def is_empty(data: Path) -> bool:
    """Say whether the folder has no content, and no database of its own."""
    return not (data / "hub.db").exists() and next((data / "blobs").glob("*/*/*"), None) is None


def mark_of(data: Path) -> Path:
    """Return the file with the folder's mark, which a database elsewhere knows it by."""
    return data / "hub.id"


def token_key(data: Path) -> bytes:
    """Return the key that signs tokens; it is made once."""
    path = data / "token.key"
    if not path.exists():
        write_atomically(path, secrets.token_bytes(32), mode=_PRIVATE)
    return path.read_bytes()


def certificate_for(data: Path, hosts: Sequence[str], clock: Clock, *, shared: bool) -> tuple[Path, Path]:
    """Return certificate and key, made anew if they are due or for other names. The authority is made once.

    In a shared folder each set of names has its own, as each process may have other names.
    """
    folder = data / "tls"
    folder.mkdir(mode=0o700, exist_ok=True)
    authority = _kept(folder / "ca.crt", folder / "ca.key")
    now = clock.now()
    if authority is None:
        authority = issue_authority("D2Hub authority", now=now)
        # The key first: a certificate without its key would be taken for whole.
        write_atomically(folder / "ca.key", authority.key, mode=_PRIVATE)
        write_atomically(folder / "ca.crt", authority.certificate)
    profile = _profile(hosts)
    name = f"tls-{_mark(profile)}" if shared else "tls"
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    leaf, made = LeafFiles(certificate, key).ensure(authority, profile, now=now, life=_LEAF_LIFE)
    if made:
        _log.info("certificate made", expires=leaf.expires().isoformat(), authority=str(folder / "ca.crt"))
    return certificate, key


def _kept(certificate: Path, key: Path) -> KeyPair | None:
    if not certificate.exists() or not key.exists():
        return None
    return KeyPair(certificate.read_bytes(), key.read_bytes())


def _profile(hosts: Sequence[str]) -> LeafProfile:
    names, addresses = {"localhost", socket.gethostname().lower()}, {"127.0.0.1", "::1"}
    for host in hosts:
        try:
            addresses.add(str(ipaddress.ip_address(host)))
        except ValueError:
            names.add(host.lower())
    addresses -= {"0.0.0.0", "::"}  # noqa: S104 - everything is no address of anything
    return LeafProfile("d2hub", dns_names=tuple(sorted(names)), addresses=tuple(sorted(addresses)), server=True)


def _mark(profile: LeafProfile) -> str:
    return hashlib.sha256(repr((profile.dns_names, profile.addresses)).encode()).hexdigest()[:12]
