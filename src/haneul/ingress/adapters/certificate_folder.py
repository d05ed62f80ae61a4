"""The port ``CertificateStore`` in a folder that only its owner may enter.

```
FOLDER/account.key              the account's key, PEM
FOLDER/certificates/HOST.json   chain and key, PEM; the order that was begun for another one
                                and since when nobody wants them, if nobody does
FOLDER/refusals.json            how often each host was refused, until when, and why
FOLDER/orders.json              when hosts that had no certificate were ordered for the last time
```
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from haneul.ingress.model import Certificate
from haneul.ingress.renewals import Refusals
from haneul.kernel.errors import UnavailableError
from haneul.kernel.files import write_atomically
from haneul.kernel.pki import new_private_key, private_key_pem

_log = structlog.get_logger(__name__)


class CertificateFolder:
    """Files that are replaced whole; one that cannot be read is as if it were not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._certificates = folder / "certificates"

    def account_key(self) -> bytes:
        """Return the key of the folder's own account, PEM; the first time it is made."""
        return account_key(self._folder)

    def certificates(self) -> dict[str, Certificate]:
        """Return every host's certificate."""
        found = {}
        for file in sorted(self._certificates.glob("*.json")):
            document = _read(file)
            if isinstance(document.get("chain"), str) and isinstance(document.get("key"), str):
                found[file.stem] = Certificate(document["chain"].encode(), document["key"].encode())
        return found

    def keep(self, host: str, certificate: Certificate) -> None:
        """Keep the certificate of a host, whose order is at its end."""
        document = {"chain": certificate.chain.decode(), "key": certificate.key.decode()}
        self._write(self._file(host), document)

    def order(self, host: str) -> str:
        """Return a host's order."""
        return str(_read(self._file(host)).get("order", ""))

    def ordered(self, host: str, kept: str) -> None:
        """Keep a host's order, or forget it."""
        before = _read(self._file(host))
        document = {name: text for name, text in before.items() if name != "order"} | ({"order": kept} if kept else {})
        if document != before:
            self._write(self._file(host), document)

    def refusals(self) -> dict[str, Refusals]:
        """Return what was refused."""
        found = {}
        for host, entry in _read(self._folder / "refusals.json").items():
            try:
                found[host] = Refusals(int(entry["count"]), datetime.fromisoformat(entry["after"]), str(entry["why"]))
            except (KeyError, TypeError, ValueError):
                _log.warning("a refusal cannot be read", host=host)
        return found

    def remember(self, refusals: Mapping[str, Refusals]) -> None:
        """Keep what was refused."""
        entries = {host: {**asdict(entry), "after": entry.after.isoformat()} for host, entry in refusals.items()}
        self._write(self._folder / "refusals.json", entries)

    def orders(self) -> dict[str, datetime]:
        """Return when hosts without a certificate were ordered for."""
        found = {}
        for host, text in _read(self._folder / "orders.json").items():
            if moment := _moment(text):
                found[host] = moment
            else:
                _log.warning("the moment of an order cannot be read", host=host)
        return found

    def count(self, orders: Mapping[str, datetime]) -> None:
        """Keep when they were."""
        self._write(self._folder / "orders.json", {host: moment.isoformat() for host, moment in orders.items()})

    def tidy(self, wanted: Collection[str], now: datetime, longest: timedelta) -> set[str]:
        """Note in files of unwanted hosts since when they are; delete and return those that were for too long."""
        gone = set()
        for file in sorted(self._certificates.glob("*.json")):
            document, host = _read(file), file.stem
            since = _moment(document.get("unwanted"))
            if not document:
                # It may be that it could not be read just now.
                continue
            if host in wanted:
                if "unwanted" in document:
                    self._write(file, {name: text for name, text in document.items() if name != "unwanted"})
            elif since is None or since > now:
                self._write(file, document | {"unwanted": now.isoformat()})
            elif now - since > longest:
                self._delete(file)
                gone.add(host)
        return gone

    def _delete(self, file: Path) -> None:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise UnavailableError(f"{file} cannot be deleted: {error.strerror}") from error

    def _file(self, host: str) -> Path:
        return self._certificates / f"{host}.json"

    def _write(self, file: Path, document: Mapping[str, Any]) -> None:
        try:
            for folder in (self._folder, self._certificates):
                _prepare(folder)
            write_atomically(file, json.dumps(document, sort_keys=True, indent=1), mode=0o600)
        except OSError as error:
            raise UnavailableError(f"{file} cannot be written: {error.strerror}") from error


def account_key(folder: Path) -> bytes:
    """Return the key of an account, ``account.key`` in its folder, PEM; the first time it is made."""
    _prepare(folder)
    file = folder / "account.key"
    if not file.exists():
        write_atomically(file, private_key_pem(new_private_key()), mode=0o600)
    return file.read_bytes()


def _prepare(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def _moment(text: Any) -> datetime | None:
    """Return a moment with its zone, in ISO 8601; None for whatever else."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else None


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        _log.warning("a file cannot be read; it is as if it were not there", file=str(file), detail=str(error))
        return {}
    return document if isinstance(document, dict) else {}
