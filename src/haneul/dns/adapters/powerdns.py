"""PowerDNS by its HTTP API (PowerDNS Authoritative documentation "Built-in Webserver and HTTP API", version 4.7).

The mark is a comment of the record set, which the server keeps with it and no resolver sees: nothing is doubled. The
LMDB backend of that version keeps no comments, and is refused for it.

A batch is one ``PATCH``, which is one transaction of the server's database. The API knows no precondition: what is
there is compared right before, and who changes the same record set by the API within those milliseconds is overwritten.

Asked for one name, version 4.7 sends the comments of the whole zone. So a zone is read once, and what it has is known
as long as its serial is the one that the last change of ours led to: with ``SOA-EDIT-API`` the server raises it at each
change by the API, whoever's. If it is another, the names of a change are asked for, as they are in zones without that
setting, until the zone is read the next time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from haneul.dns.model import (
    CNAME,
    TYPES,
    Acknowledgement,
    Change,
    Key,
    Present,
    RecordSet,
    RecordsRefusedError,
    ZoneChangedError,
    ZoneState,
    absolute,
)
from haneul.dns.picture import Picture
from haneul.kernel.errors import ForbiddenError, InvalidInputError, NotFoundError, UnavailableError

_CALL_SECONDS, _CONNECT_SECONDS = 20.0, 5.0
_MARK: Final = "haneul-dns owner="
_MARKED: Final = re.compile(rf"{_MARK}(\S+)")
_UNREACHED: Final = "is 'url' in the provider's file right, is the server's API on, and can this machine reach it?"
_NO_COMMENTS: Final = "does not support editing comments"
_IN_THE_WAY: Final = re.compile("[Cc]onflicts with (pre-existing|another) RRset")
#: So many names are asked for one by one, more of them with the whole zone.
_FEW_NAMES: Final = 8
#: Seconds after which a zone is read whole whatever its serial: who writes into the server's database raises none.
_KNOWN_SECONDS: Final = 240.0


@dataclass(frozen=True)
class PowerDnsAccess:
    """Where the API is, its key, and what its certificate is checked by: an authority's file, or the system's."""

    url: str
    key: str = field(repr=False)
    zones: tuple[str, ...]
    server: str = "localhost"
    authority: Path | None = None


@dataclass(frozen=True)
class _Known:
    """What a zone had when its serial was ``serial``; ``until`` is a moment of the loop's clock."""

    serial: int
    negative_ttl: int
    until: float
    picture: Picture


class PowerDns:
    """One PowerDNS server. Raises InvalidInputError if the authority's file is none."""

    def __init__(self, access: PowerDnsAccess) -> None:
        try:
            self._trust = ssl.create_default_context(cafile=access.authority)
        except OSError as error:
            raise InvalidInputError(
                f"{access.authority} holds no certificate authority: {error}",
                hint="'authority' in the provider's file names it",
            ) from error
        self._access = access
        self._base = f"{access.url.rstrip('/')}/api/v1/servers/{quote(access.server)}/zones"
        self._session: aiohttp.ClientSession | None = None
        self._turn = asyncio.Lock()
        self._known: dict[str, _Known] = {}
        #: Zones that were changed since the names between were put in order.
        self._disordered: set[str] = set()

    @property
    def server(self) -> str:
        """Return the API's address."""
        return f"PowerDNS at {self._access.url}"

    @property
    def zones(self) -> Sequence[str]:
        """Return the zones that are published to."""
        return [absolute(zone) for zone in self._access.zones]

    async def read(self, zone: str) -> ZoneState:
        """Return what is known if it is young and nobody changed the zone since, or ask for the whole zone."""
        async with self._turn:
            known = self._known.get(zone)
            old = known is None or asyncio.get_running_loop().time() > known.until
            if known is None or old or await self._serial(zone) != known.serial:
                await self._order(zone)
                known = await self._look(zone)
        return ZoneState(zone, known.serial, known.negative_ttl, known.picture.sets())

    async def apply(self, zone: str, owner: str, changes: Sequence[Change]) -> Acknowledgement:
        """Compare, and send one transaction."""
        async with self._turn:
            known, present = await self._present(zone, sorted({change.key.name for change in changes}))
            _check(changes, present, owner)
            # Whatever becomes of what is sent now, only its end tells what the zone has then.
            self._known.pop(zone, None)
            self._disordered.add(zone)
            await self._call("PATCH", zone, body={"rrsets": [_rrset(change, owner) for change in changes]})
            serial = await self._serial(zone)
            if known is not None and serial == known.serial + 1:
                known.picture.take(owner, changes)
                self._known[zone] = replace(known, serial=serial)
        return Acknowledgement(self.server, zone, serial)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _present(self, zone: str, names: Sequence[str]) -> tuple[_Known | None, dict[Key, Present]]:
        """Return what there is at some names, and the whole of what is known of the zone if nobody changed it since."""
        known = self._known.get(zone)
        if known is None or await self._serial(zone) != known.serial:
            known = await self._look(zone) if len(names) > _FEW_NAMES else None
        if known is not None:
            return known, known.picture.at(names)
        found: dict[Key, Present] = {}
        for name in names:
            answer = await self._call("GET", zone, query={"rrset_name": name})
            # Version 4.7 gives the comments of all other names as sets without records.
            found |= {key: there for key, there in _sets(answer).items() if key.name == name}
        return None, found

    async def _look(self, zone: str) -> _Known:
        """Ask for the whole zone, and know it from now on if changes can be seen by its serial."""
        answer = await self._call("GET", zone)
        soa = next((entry for entry in answer["rrsets"] if entry["type"] == "SOA"), None)
        # A resolver remembers for the smaller of the record's TTL and its last number (RFC 2308 section 5).
        negative = min(soa["ttl"], int(soa["records"][0]["content"].split()[-1])) if soa else 0
        until = asyncio.get_running_loop().time() + _KNOWN_SECONDS
        known = _Known(answer["serial"], negative, until, Picture(_sets(answer)))
        if answer.get("soa_edit_api"):
            self._known[zone] = known
        else:
            self._known.pop(zone, None)
        return known

    async def _serial(self, zone: str) -> int:
        return int((await self._call("GET", zone, query={"rrsets": "false"}))["serial"])

    async def _order(self, zone: str) -> None:
        """Have the server note the names that have none but names below them; so it says that they are no wrong names.

        By itself it does so after each change, which takes the longer the more names there are, and may be turned off.
        """
        if zone in self._disordered:
            # Zones that are signed elsewhere it leaves alone.
            with contextlib.suppress(RecordsRefusedError):
                await self._call("PUT", zone, task="/rectify")
            self._disordered.discard(zone)

    async def _call(
        self,
        method: str,
        zone: str,
        *,
        task: str = "",
        query: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
    ) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers={"X-API-Key": self._access.key},
                timeout=aiohttp.ClientTimeout(total=_CALL_SECONDS, sock_connect=_CONNECT_SECONDS),
                connector=aiohttp.TCPConnector(ssl=self._trust),
            )
        place = f"{self._base}/{quote(zone)}{task}"
        try:
            async with self._session.request(method, place, params=query, json=body) as answer:
                text = await answer.text()
                if answer.status >= 400:
                    raise self._refusal(zone, answer.status, text)
                return json.loads(text) if text else {}
        except (aiohttp.ClientError, TimeoutError, OSError, json.JSONDecodeError) as error:
            raise UnavailableError(f"{self.server} does not answer: {_why(error)}", hint=_UNREACHED) from error

    def _refusal(self, zone: str, status: int, text: str) -> Exception:
        try:
            detail = str(json.loads(text)["error"])
        except (ValueError, KeyError, TypeError):
            detail = text.strip() or f"HTTP status {status}"
        said = f"{self.server}: {detail}"
        if _NO_COMMENTS in detail:
            return InvalidInputError(said, hint="marks of owners are comments: use the SQLite backend (gsqlite3)")
        if status in (401, 403):
            return ForbiddenError(said, hint="the key must be the server's api-key")
        if status == 404:
            return NotFoundError(f"{self.server} has no zone {zone}", hint="make the zone there first")
        if _IN_THE_WAY.search(detail):
            return ZoneChangedError(said)
        if status in (400, 422):
            return RecordsRefusedError(said)
        return UnavailableError(said)


def _why(error: Exception) -> str:
    """Return what went wrong in the words of the system: aiohttp's own speak of TLS where there is none."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        number, said = error.os_error.errno, error.os_error.strerror or str(error.os_error)
        return os.strerror(number) if number and said.startswith("Connect call failed") else said
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)


def _check(changes: Sequence[Change], present: dict[Key, Present], owner: str) -> None:
    """Raise ZoneChangedError unless each change finds what it was decided on."""
    going = {change.key for change in changes if change.after is None}
    for change in changes:
        there = present.get(change.key)
        if there != (Present(change.before, owner) if change.before else None):
            raise ZoneChangedError(f"{change.key.name} {change.key.type} is not as it was")
        for other in present:
            beside = other.name == change.key.name and other != change.key and other not in going
            if change.after and beside and CNAME in (other.type, change.key.type):
                raise ZoneChangedError(f"{other.name} cannot have a {change.key.type} beside a {other.type}")


def _sets(answer: dict[str, Any]) -> dict[Key, Present]:
    """Return what is there as values; types that are never ours too, as a CNAME cannot be beside them."""
    found = {}
    for entry in answer["rrsets"]:
        if not entry["records"]:
            continue
        values = sorted(record["content"] for record in entry["records"] if not record.get("disabled"))
        if entry["type"] in TYPES:
            values = [value.lower() if entry["type"] != "TXT" else value for value in values]
        records = RecordSet(entry["name"].lower(), entry["type"], entry["ttl"], tuple(values))
        found[records.key] = Present(records, _owner(entry.get("comments") or []))
    return found


def _owner(comments: Sequence[dict[str, Any]]) -> str:
    for comment in comments:
        if marked := _MARKED.fullmatch(comment["content"]):
            return marked[1]
    return ""


def _rrset(change: Change, owner: str) -> dict[str, Any]:
    place = {"name": change.key.name, "type": change.key.type}
    if change.after is None:
        return {**place, "changetype": "DELETE"}
    return {
        **place,
        "changetype": "REPLACE",
        "ttl": change.after.ttl,
        "records": [{"content": value, "disabled": False} for value in change.after.values],
        "comments": [{"content": f"{_MARK}{owner}", "account": "haneul"}],
    }
