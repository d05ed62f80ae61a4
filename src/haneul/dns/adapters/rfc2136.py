"""Servers that take dynamic updates (RFC 2136), signed with TSIG (RFC 8945), such as BIND and Knot; with dnspython.

The mark of a record set is a TXT record at ``_haneul-<type>.<name>``. It is written in the same message, and a message
is done whole or not at all (RFC 2136 section 3.4). What a change was decided on are the message's prerequisites
(section 2.4), so the server itself sees to it that nothing is overwritten that is not as it was, or not ours. What is
there is read by zone transfer (RFC 5936).
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.tsig
import dns.update
import dns.xfr
import dns.zone
from dns.rdtypes.ANY.SOA import SOA

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
from haneul.kernel.errors import ForbiddenError, HaneulError, InvalidInputError, NotFoundError, UnavailableError

_CALL_SECONDS: Final = 10.0
_TRANSFER_SECONDS: Final = 60.0
_MARK_TTL: Final = 60
_MARK_LABEL: Final = re.compile(rf"_haneul-({'|'.join(TYPES).lower()})\.(.+)")
_MARK: Final = re.compile(r'"haneul-dns owner=(\S+)"')
_NOT_AS_IT_WAS: Final = frozenset({dns.rcode.YXDOMAIN, dns.rcode.YXRRSET, dns.rcode.NXRRSET, dns.rcode.NXDOMAIN})
_NO_RECORDS: Final = frozenset({dns.rcode.FORMERR, dns.rcode.NOTZONE})
_NOT_ALLOWED: Final = frozenset({dns.rcode.REFUSED, dns.rcode.NOTAUTH})
#: BIND takes so many records of one set unless ``max-records-per-type`` says otherwise; of more it only says SERVFAIL.
_MANY_RECORDS: Final = 100
_UNREACHED: Final = "are 'address' and 'port' in the provider's file right, and can this machine reach the server?"
_HINT: Final = "the server must know the key, and let it update and transfer the zone"


@dataclass(frozen=True)
class UpdateAccess:
    """A primary server's address, and the key that it knows; the secret in base64, as ``tsig-keygen`` writes it."""

    address: str
    zones: tuple[str, ...]
    key_name: str
    secret: str = field(repr=False)
    port: int = 53
    algorithm: str = "hmac-sha256"


class UpdatedServer:
    """One primary server. Raises InvalidInputError if the key is none."""

    def __init__(self, access: UpdateAccess) -> None:
        self._access = access
        try:
            secret = base64.b64decode(access.secret, validate=True)
            self._key = dns.tsig.Key(access.key_name, secret, access.algorithm)
        except (ValueError, dns.exception.DNSException) as error:
            raise InvalidInputError(
                f"the key {access.key_name!r} for {self.server} is none",
                hint="the file has the secret alone, in base64, as 'tsig-keygen' writes it",
            ) from error

    @property
    def server(self) -> str:
        """Return its address."""
        return f"the DNS server at {self._access.address} port {self._access.port}"

    @property
    def zones(self) -> Sequence[str]:
        """Return the zones that are published to."""
        return [absolute(zone) for zone in self._access.zones]

    async def read(self, zone: str) -> ZoneState:
        """Transfer the zone."""
        found = dns.zone.Zone(zone, relativize=False)
        query, _ = dns.xfr.make_query(found, serial=None, keyring=self._key)
        try:
            await dns.asyncquery.inbound_xfr(
                self._access.address,
                found,
                query,
                port=self._access.port,
                timeout=_CALL_SECONDS,
                lifetime=_TRANSFER_SECONDS,
            )
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise self._trouble(zone, error) from error
        apex = found.find_rdataset(found.origin or dns.name.root, dns.rdatatype.SOA)
        soa = apex[0]
        if not isinstance(soa, SOA):
            raise UnavailableError(f"{self.server} sent a zone {zone} without a start")
        # A resolver remembers for the smaller of the record's TTL and its last number (RFC 2308 section 5).
        return ZoneState(zone, soa.serial, min(apex.ttl, soa.minimum), _without_marks(_sets(found)))

    async def apply(self, zone: str, owner: str, changes: Sequence[Change]) -> Acknowledgement:
        """Send one message, and ask for the serial that it led to."""
        update = dns.update.UpdateMessage(zone, keyring=self._key)
        going = {change.key for change in changes if change.after is None}
        try:
            for change in changes:
                _require(update, change, owner, going)
            for change in changes:
                _put(update, change, owner)
            await self._ask(zone, update, RecordsRefusedError if _is_large(changes) else UnavailableError)
        except (dns.exception.TooBig, dns.exception.SyntaxError) as error:
            raise RecordsRefusedError(f"{self.server}: {str(error) or type(error).__name__}") from error
        question = dns.message.make_query(zone, dns.rdatatype.SOA)
        question.use_tsig(self._key)
        answer = await self._ask(zone, question)
        serials = [record.serial for found in answer.answer for record in found if isinstance(record, SOA)]
        if not serials:
            raise UnavailableError(f"{self.server} does not answer for {zone}")
        return Acknowledgement(self.server, zone, serials[0])

    async def close(self) -> None:
        """Each message has a connection of its own."""

    async def _ask(
        self, zone: str, message: dns.message.Message, failure: type[HaneulError] = UnavailableError
    ) -> dns.message.Message:
        try:
            answer = await dns.asyncquery.tcp(message, self._access.address, _CALL_SECONDS, port=self._access.port)
        except (dns.exception.TooBig, dns.exception.SyntaxError):
            raise
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise self._trouble(zone, error) from error
        code = answer.rcode()
        if code == dns.rcode.NOERROR:
            return answer
        detail = f"{self.server} answers {dns.rcode.to_text(code)} about {zone}"
        if code in _NOT_AS_IT_WAS:
            raise ZoneChangedError(detail)
        if code in _NO_RECORDS:
            raise RecordsRefusedError(detail)
        if code in _NOT_ALLOWED:
            raise ForbiddenError(detail, hint=_HINT)
        raise failure(detail)

    def _trouble(self, zone: str, error: Exception) -> HaneulError:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        detail = f"{self.server}, zone {zone.rstrip('.')}: {why or 'it closed the connection'}"
        if isinstance(error, dns.xfr.TransferError) and error.rcode == dns.rcode.NOTAUTH:
            return NotFoundError(detail, hint="make the zone there first, with this server as its primary")
        if isinstance(error, dns.tsig.PeerError | dns.tsig.BadSignature | dns.xfr.TransferError):
            return ForbiddenError(detail, hint=_HINT)
        return UnavailableError(detail, hint=_UNREACHED)


def _require(update: dns.update.UpdateMessage, change: Change, owner: str, going: set[Key]) -> None:
    """Write down what a change was decided on."""
    name, kind = change.key.name, change.key.type
    if change.before is not None:
        update.present(name, kind, *change.before.values)
        update.present(_mark_name(change.key), "TXT", _mark(owner))
        return
    update.absent(name, kind)
    others = {key for key in going if key.name == name}
    # Servers leave out silently what cannot be beside a CNAME (RFC 2136 section 3.4.2.2), so it is asked for.
    if kind != CNAME and Key(name, CNAME) not in others:
        update.absent(name, CNAME)
    elif kind == CNAME and not others:
        update.absent(name)


def _put(update: dns.update.UpdateMessage, change: Change, owner: str) -> None:
    name, kind = change.key.name, change.key.type
    if change.before is not None:
        update.delete(name, kind)
    if change.after is None:
        update.delete(_mark_name(change.key), "TXT")
        return
    update.add(name, change.after.ttl, kind, *change.after.values)
    if change.before is None:
        # A mark may be left of a set that somebody took away by hand.
        update.replace(_mark_name(change.key), _MARK_TTL, "TXT", _mark(owner))


def _is_large(changes: Sequence[Change]) -> bool:
    return any(change.after is not None and len(change.after.values) > _MANY_RECORDS for change in changes)


def _mark_name(key: Key) -> str:
    return f"_haneul-{key.type.lower()}.{key.name}"


def _mark(owner: str) -> str:
    return f'"haneul-dns owner={owner}"'


def _sets(zone: dns.zone.Zone) -> dict[Key, RecordSet]:
    found = {}
    for name, rdataset in zone.iterate_rdatasets():
        kind = dns.rdatatype.to_text(rdataset.rdtype)
        texts = (record.to_text() for record in rdataset)
        values = tuple(sorted(text if kind == "TXT" else text.lower() for text in texts))
        records = RecordSet(str(name).lower(), kind, rdataset.ttl, values)
        found[records.key] = records
    return found


def _without_marks(sets: dict[Key, RecordSet]) -> dict[Key, Present]:
    """Return what is there with the owners that marks tell; the marks themselves are none of the zone's business."""
    owners: dict[Key, str] = {}
    marks = set()
    for key, records in sets.items():
        place = _MARK_LABEL.fullmatch(key.name)
        said = _MARK.fullmatch(records.values[0])
        if key.type == "TXT" and place and said and len(records.values) == 1:
            owners[Key(place[2], place[1].upper())] = said[1]
            marks.add(key)
    return {key: Present(records, owners.get(key, "")) for key, records in sets.items() if key not in marks}
