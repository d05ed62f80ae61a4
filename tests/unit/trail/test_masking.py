"""No secret leaves; all else stays."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haneul.trail.masking import MASK, Masks, expressions_of, mask_record
from haneul.trail.model import Record
from tests.unit.trail.samples import message, record

FORM = [("Host", "www.example.com"), ("Content-Type", "application/x-www-form-urlencoded")]
JSON = [("Host", "www.example.com"), ("Content-Type", "application/json")]
NAMES = ["password", "api_key", "X-Session-Token", "clientSecret", "cvv", "sid", "user[password]"]
#: Nothing that a record has anyway.
SECRETS = st.text("QZXJ%&=+ 0123456789'\"\\<>;/", min_size=8, max_size=30).filter(lambda text: len(text.strip()) >= 8)


def masked(made: Record, masks: Masks | None = None) -> Record:
    return mask_record(made, masks or Masks())


def written(made: Record) -> str:
    """Return all that a record says, decoded in every way in which a secret could hide."""
    text = json.dumps(made.document(), ensure_ascii=False)
    return text + "".join(re.findall(r'"([^"]*)"', text)) + made.line().decode()


@settings(max_examples=20, deadline=None)
@given(SECRETS, st.sampled_from(NAMES))
def test_no_secret_is_left_wherever_it_stood(secret: str, name: str) -> None:
    places: list[dict[str, Any]] = [
        {"uri": f"/login?{name}={quote(secret, safe='')}&a=1"},
        {"uri": f"/login?a=1;{quote(name)}={quote_plus(secret)}"},
        {"uri": f"https://u:{quote(secret, safe='')}@x.example/?a=1"},
        {"headers": [*FORM], "body": f"a=1&{name}={quote_plus(secret)}"},
        {"headers": [*JSON], "body": json.dumps({"a": [{name: secret}]})},
        {"headers": [*JSON], "body": json.dumps({name: {"deeper": [secret]}})},
        {"headers": [*JSON], "body": json.dumps({name: secret})[:-2]},
        {"headers": [("Content-Type", "multipart/form-data; boundary=x")], "body": f"--x\r\n\r\n{secret}\r\n--x--"},
        {"headers": [("Cookie", f"a=1; {name}={quote(secret)}")]},
        {"headers": [("Authorization", f"Basic {quote(secret)}")]},
        {"headers": [("Referer", f"https://www.example.com/?{name}={quote(secret, safe='')}")]},
        {"headers": [(name, quote(secret))]},
        {"answered": [("Set-Cookie", f"other={quote(secret)}; Path=/; HttpOnly")]},
        {"answered": [("Location", f"/cb#{name}={quote(secret, safe='')}")]},
    ]
    for place in places:
        # What a rule quotes is decoded, and stands elsewhere.
        quoted = message(data=f"Matched Data: {secret} found within ARGS:{name}: {secret}")
        other = message("920100", f"seen {secret} somewhere")
        made = masked(record(messages=[quoted, other], **place))
        for form in {secret, secret.strip(), quote(secret, safe=""), quote_plus(secret), quote(secret)}:
            assert form not in written(made), place
            assert json.dumps(form)[1:-1] not in made.line().decode(), place


def test_all_else_stays() -> None:
    before = record(
        "/cart/7?id=1&sort=asc#top",
        headers=[*FORM, ("User-Agent", "curl/7.88.1"), ("X-A", "1"), ("X-A", "2")],
        body="a=1&b=<script>alert(1)</script>",
        status=404,
        messages=[message()],
    )
    assert masked(before) == before


def test_what_is_masked_keeps_its_shape() -> None:
    headers = [("Cookie", "a=1; b=2"), ("Authorization", "Bearer abc.def"), ("Content-Type", "application/json")]
    made = masked(record("/?token=x1y2&a=1", headers=headers, body='{"user": "kim", "password": "x"}'))
    assert made.request["uri"] == f"/?token={MASK}&a=1"
    assert made.request["headers"][:2] == [["Cookie", f"a={MASK}; b={MASK}"], ["Authorization", f"Bearer {MASK}"]]
    assert json.loads(made.request["body"]) == {"user": "kim", "password": MASK}


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1111",
        "5500-0055-5555-5559",
        "378282246310005",
        "kim@example.com",
        "kim%40example.com",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJraW0ifQ.c2lnbmF0dXJl",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----",
        "Bearer 0123456789abcdef",
    ],
)
def test_shapes_are_masked_wherever_they_stand(text: str) -> None:
    told = record(f"/?q={text}", headers=[("X-Note", text), *FORM], body=f"note={text}", messages=[message(data=text)])
    secret = text.removeprefix("Bearer ")
    assert secret not in written(masked(told))


@pytest.mark.parametrize("text", ["4111111111111112", "0000000000000000", "20261127213002123456", "1795815002"])
def test_numbers_that_are_no_cards_stay(text: str) -> None:
    assert text in masked(record(f"/?q={text}")).request["uri"]


def test_what_a_rule_quotes_of_a_whole_body_goes_if_there_was_a_secret_in_it() -> None:
    piece = message(data="Matched Data: hunter found within REQUEST_BODY: a=1&password=hunter")
    made = masked(record(headers=FORM, body="a=1&password=hunter2", messages=[piece]))
    assert "hunter" not in written(made)
    assert made.rules == ("942100",)


def test_a_body_of_another_kind_becomes_its_size() -> None:
    made = masked(record(headers=[("Content-Type", "application/xml")], body="<p>secret</p>"))
    assert made.request["body"] == f"{MASK} 13 characters of application/xml"


def test_a_site_adds_names_and_expressions_and_opens_others() -> None:
    masks = Masks(("customer-number",), expressions_of([r"KR[0-9]{6}"]), ("page_token",))
    made = masked(record("/KR123456?customerNumber=77&page_token=3"), masks)
    assert made.request["uri"] == f"/{MASK}?customerNumber={MASK}&page_token=3"


@pytest.mark.parametrize("text", ["(", "a*"])
def test_an_expression_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"regular expression|empty"):
        expressions_of([text])
