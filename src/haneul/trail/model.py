"""The record of one request, in four parts, and how it is made of what ModSecurity 3 writes. Pure.

```
transaction   id, request_id, client, client_port, server, server_port, ingress, started, seconds
request       method, uri, protocol, host, headers, body
response      status, protocol, headers, body
audit_data    messages (each with its rule), producer, timing
```

Headers are pairs, in the order in which they came, so that repeated ones stay. ModSecurity repeats keys of an object
for them, which JSON leaves open (RFC 8259 section 4). Fields that are not known here keep their names and stay in their
part. Bytes that are no UTF-8 become surrogates (PEP 383), and bytes again when they are sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from haneul.kernel.errors import HaneulError

#: Bytes of one record as ModSecurity writes it; a larger one is no record.
LARGEST: Final = 4 << 20
_RENAMED: Final = {
    "client_ip": "client",
    "host_ip": "server",
    "host_port": "server_port",
}
_MOST_INSIDE: Final = 64


class UnreadableError(HaneulError):
    """What was written is no record, or not a whole one."""

    code = "trail-unreadable"
    title = "That is no audit record"
    http_status = 422
    exit_code = 2


@dataclass(frozen=True)
class Mark:
    """What a transaction is called in nginx, so that its file tells more than ModSecurity does.

    ``started`` is in seconds since 1970, ``ingress`` a short name of the Ingress that answered.
    """

    started: float
    unique: str
    request_id: str
    ingress: str


@dataclass(frozen=True)
class Record:
    """One request, its answer, and what rules said of it."""

    transaction: Mapping[str, Any]
    request: Mapping[str, Any]
    response: Mapping[str, Any]
    audit_data: Mapping[str, Any]

    @property
    def started(self) -> int:
        """Return when the request came, in milliseconds since 1970."""
        return round(datetime.fromisoformat(self.transaction["started"]).timestamp() * 1000)

    @property
    def seconds(self) -> float:
        """Return how long it took."""
        return float(self.transaction.get("seconds", 0.0))

    @property
    def host(self) -> str:
        """Return the host that was asked for, without a port."""
        return str(self.request.get("host", ""))

    @property
    def path(self) -> str:
        """Return the path as it was asked for, without the query."""
        return str(self.request.get("uri", "")).partition("?")[0]

    @property
    def status(self) -> int:
        """Return the answer's status; 0 if there was none."""
        return int(self.response.get("status") or 0)

    @property
    def client(self) -> str:
        """Return the client's address."""
        return str(self.transaction.get("client", ""))

    @property
    def request_id(self) -> str:
        """Return what the application got as X-Request-ID."""
        return str(self.transaction.get("request_id", ""))

    @property
    def rules(self) -> tuple[str, ...]:
        """Return the numbers of the rules that matched."""
        found = [str(message.get("rule", "")) for message in self.audit_data.get("messages", ())]
        return tuple(dict.fromkeys(number for number in found if number))

    def document(self) -> dict[str, Any]:
        """Return the record as it is written, for JSON."""
        return {
            "transaction": dict(self.transaction),
            "request": dict(self.request),
            "response": dict(self.response),
            "audit_data": dict(self.audit_data),
        }

    def line(self) -> bytes:
        """Return the record as one line of JSON, of ASCII alone."""
        return json.dumps(self.document(), separators=(",", ":")).encode() + b"\n"


def record_of_line(line: bytes) -> Record:
    """Return the record that a line has. Raises UnreadableError."""
    try:
        document = json.loads(line)
        return Record(document["transaction"], document["request"], document["response"], document["audit_data"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnreadableError("it is no record of four parts") from error


def parse_mark(text: str) -> Mark:
    """Return what a transaction's name says: ``MSEC~UNIQUE~REQUEST_ID~INGRESS``. Raises UnreadableError."""
    parts = text.split("~")
    if len(parts) != 4:
        raise UnreadableError("its name is not one of ours")
    try:
        return Mark(float(parts[0]), *parts[1:])
    except ValueError as error:
        raise UnreadableError("its name has no time") from error


def parse_record(text: bytes, *, ended: float, ingresses: Mapping[str, str]) -> Record:
    """Return the record of one transaction as ModSecurity 3 writes it in JSON.

    ``ended`` is when it was written, in seconds since 1970; ``ingresses`` are names of Ingress objects by their short
    names. Raises UnreadableError.
    """
    if len(text) > LARGEST:
        raise UnreadableError(f"it has more than {LARGEST} bytes")
    try:
        written = json.loads(
            text.decode("utf-8", "surrogateescape"), strict=False, object_pairs_hook=_Pairs, parse_constant=str
        )
        found = _fields(_fields(written).pop("transaction"))
        mark = parse_mark(str(found.pop("unique_id")))
        request, response = _fields(found.pop("request", _Pairs())), _fields(found.pop("response", _Pairs()))
        messages = [_message(entry) for entry in found.pop("messages", [])]
        producer = _plain(found.pop("producer", _Pairs()))
        rest = {_RENAMED.get(name, name): _plain(value) for name, value in found.items()}
        sides = _request(request), _response(response)
        started = datetime.fromtimestamp(mark.started, UTC)
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError) as error:
        raise UnreadableError(f"it is no transaction of ModSecurity: {error}") from error
    seconds = round(max(0.0, ended - mark.started), 3)
    transaction = {
        "id": mark.unique,
        "request_id": mark.request_id,
        "ingress": ingresses.get(mark.ingress, ""),
        "started": started.isoformat(timespec="milliseconds"),
        "seconds": seconds,
        **rest,
    }
    timing = {
        "started": started.isoformat(timespec="milliseconds"),
        "ended": datetime.fromtimestamp(ended, UTC).isoformat(timespec="milliseconds"),
        "seconds": seconds,
    }
    audit_data = {"messages": messages, "producer": producer, "timing": timing}
    return Record(transaction, *sides, audit_data)


class _Pairs(list[tuple[str, Any]]):
    """An object's fields as they were written, repeated ones too."""


def _fields(pairs: Any) -> dict[str, Any]:
    if not isinstance(pairs, _Pairs):
        raise TypeError("an object is missing")
    return dict(pairs)


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a value as plain JSON; a repeated key's values become a list, so that none is lost."""
    if depth > _MOST_INSIDE:
        raise ValueError("it is too deep")
    if isinstance(value, _Pairs):
        made: dict[str, Any] = {}
        repeated = {name for number, (name, _) in enumerate(value) if name in {one for one, _ in value[:number]}}
        for name, inner in value:
            if name in repeated:
                made.setdefault(name, []).append(_plain(inner, depth + 1))
            else:
                made[name] = _plain(inner, depth + 1)
        return made
    if isinstance(value, list):
        return [_plain(inner, depth + 1) for inner in value]
    return value


def _headers(pairs: Any) -> list[list[str]]:
    if not isinstance(pairs, _Pairs):
        raise TypeError("headers are missing")
    return [[name, str(value)] for name, value in pairs]


def _request(fields: dict[str, Any]) -> dict[str, Any]:
    headers = _headers(fields.pop("headers", _Pairs()))
    hosts = [value for name, value in headers if name.lower() == "host"]
    return {
        "method": str(fields.pop("method", "")),
        "uri": str(fields.pop("uri", "")),
        "protocol": str(fields.pop("http_version", "")),
        "host": _bare_host(hosts[0]) if hosts else "",
        "headers": headers,
        "body": str(fields.pop("body", "")),
        **{name: _plain(value) for name, value in fields.items()},
    }


def _bare_host(written: str) -> str:
    host = written.lower()
    if host.startswith("["):
        return host.partition("]")[0].removeprefix("[")
    return host.partition(":")[0]


def _response(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "status": int(fields.pop("http_code", 0)),
        "headers": _headers(fields.pop("headers", _Pairs())),
        "body": str(fields.pop("body", "")),
        **{name: _plain(value) for name, value in fields.items()},
    }


def _message(entry: Any) -> dict[str, Any]:
    """Return what one rule said, with its number in front; the rest as ModSecurity calls it."""
    fields = _fields(entry)
    details = _plain(fields.pop("details", _Pairs()))
    rule = str(details.pop("ruleId", ""))
    rest = {name: _plain(value) for name, value in fields.items()}
    return {"rule": rule, **rest, **details}
