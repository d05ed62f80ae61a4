"""Transactions as ModSecurity 3 writes them, and records of them."""

from __future__ import annotations

import json
from typing import Any

from haneul.trail.model import Record, parse_record

STARTED = 1795815002.25
UNIQUE = "5a4c329a29a7a601be334a9b27ad6f89"
SHORT = "0123456789abcdef"
INGRESSES = {SHORT: "shop/web"}


def pairs(headers: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in headers) + "}"


def message(rule: str = "942100", data: str = "Matched Data: s&1c found within ARGS:id: 1' OR 1=1--") -> dict[str, Any]:
    details = {"match": "detected SQLi using libinjection.", "ruleId": rule, "data": data, "severity": "2", "tags": []}
    return {"message": "SQL Injection Attack Detected via libinjection", "details": details}


def transaction(
    uri: str = "/cart?id=1",
    *,
    headers: list[tuple[str, str]] | None = None,
    answered: list[tuple[str, str]] | None = None,
    body: str = "",
    status: int = 200,
    client: str = "192.0.2.7",
    unique: str = UNIQUE,
    request_id: str = "incident-0001",
    started: float = STARTED,
    messages: list[dict[str, Any]] | None = None,
    **more: Any,
) -> bytes:
    """Return a transaction; headers may repeat, which a dictionary could not say."""
    asked = pairs(headers if headers is not None else [("Host", "www.example.com")])
    given = pairs(answered if answered is not None else [("Content-Type", "text/plain")])
    fields = {
        "client_ip": client,
        "time_stamp": "Fri Nov 27 21:30:02 2026",
        "server_id": "2ce1",
        "client_port": 58486,
        "host_ip": "192.0.2.80",
        "host_port": 80,
        "unique_id": f"{started:.3f}~{unique}~{request_id}~{SHORT}",
        "producer": {"modsecurity": "ModSecurity v3.0.9 (Linux)", "components": ["OWASP_CRS/3.3.4"]},
        "messages": messages or [],
        **more,
    }
    request = {"method": "GET", "http_version": 1.1, "uri": uri, "body": body}
    whole = json.dumps(fields)[:-1]
    asked = json.dumps(request)[:-1] + f',"headers":{asked}}}'
    given = f'{{"http_code":{status},"headers":{given}}}'
    return f'{{"transaction":{whole},"request":{asked},"response":{given}}}}}'.encode()


def record(uri: str = "/cart?id=1", *, seconds: float = 0.5, **more: Any) -> Record:
    started = more.get("started", STARTED)
    return parse_record(transaction(uri, **more), ended=started + seconds, ingresses=INGRESSES)
