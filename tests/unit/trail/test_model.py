"""What ModSecurity writes becomes a record of four parts."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.trail.model import Record, UnreadableError, parse_record, record_of_line
from tests.unit.trail.samples import INGRESSES, STARTED, message, record, transaction


def test_a_record_has_four_parts_and_what_it_is_found_by() -> None:
    made = record(status=503, messages=[message("942100"), message("942100"), message("949110")])
    assert list(json.loads(made.line())) == ["transaction", "request", "response", "audit_data"]
    assert (made.host, made.path, made.status) == ("www.example.com", "/cart", 503)
    assert (made.client, made.request_id) == ("192.0.2.7", "incident-0001")
    assert made.rules == ("942100", "949110")
    assert made.started == round(STARTED * 1000)
    assert made.audit_data["timing"]["seconds"] == made.seconds == 0.5
    assert made.audit_data["producer"]["modsecurity"].startswith("ModSecurity v3")
    assert made.transaction["ingress"] == "shop/web"


def test_repeated_headers_stay_in_their_order() -> None:
    headers = [("Host", "www.example.com"), ("X-A", "1"), ("Accept", "*/*"), ("X-A", "2")]
    made = record(headers=headers, answered=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    assert made.request["headers"] == [list(header) for header in headers]
    assert made.response["headers"] == [["Set-Cookie", "a=1"], ["Set-Cookie", "b=2"]]


def test_fields_that_are_not_known_stay() -> None:
    made = record(novelty={"x": [1, 2]})
    assert made.transaction["novelty"] == {"x": [1, 2]}
    assert made.transaction["server_id"] == "2ce1"


def test_a_field_that_is_repeated_elsewhere_keeps_all_values() -> None:
    text = transaction().replace(b'"server_id": "2ce1"', b'"novelty": {"a": 1, "b": 2, "a": 3}')
    made = parse_record(text, ended=STARTED, ingresses={})
    assert made.transaction["novelty"] == {"a": [1, 3], "b": 2}
    assert made.transaction["ingress"] == ""


def test_bytes_that_are_no_text_stay_bytes() -> None:
    text = transaction("/RAW").replace(b"RAW", b"\xff\xfe")
    made = parse_record(text, ended=STARTED, ingresses={})
    again = record_of_line(made.line())
    assert again.path.encode("utf-8", "surrogateescape") == b"/\xff\xfe"
    assert made.line().isascii()


@pytest.mark.parametrize("host", ["www.example.com:8443", "WWW.example.com"])
def test_the_host_is_without_port_and_in_small_letters(host: str) -> None:
    assert record(headers=[("host", host)]).host == "www.example.com"


def test_the_host_may_be_an_address() -> None:
    assert record(headers=[("Host", "[2001:db8::1]:443")]).host == "2001:db8::1"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b'{"transaction": []}',
        transaction()[:-40],
        transaction().replace(b"~", b"-"),
        b"[" * 100_000,
        transaction(deep=json.loads("[" * 80 + "]" * 80)),
    ],
)
def test_what_is_no_transaction_is_refused(text: bytes) -> None:
    with pytest.raises(UnreadableError):
        parse_record(text, ended=STARTED, ingresses=INGRESSES)


@given(st.binary(max_size=300))
def test_nothing_that_is_written_breaks_reading(text: bytes) -> None:
    with contextlib.suppress(UnreadableError):
        assert isinstance(parse_record(text, ended=STARTED, ingresses={}), Record)
    with contextlib.suppress(UnreadableError):
        assert isinstance(record_of_line(text), Record)


def test_a_line_becomes_the_same_record() -> None:
    made = record(messages=[message()])
    assert record_of_line(made.line()) == made
