"""Takes secrets and personal data out of a record before anything leaves the process that read it. Pure.

- Fields with a telling name: headers, cookies, parameters of queries and forms, keys of JSON.
- Shapes, wherever they stand: bearer tokens, JSON Web Tokens, private keys, card numbers, addresses of e-mail.
- What was taken out of one place is taken out of all others, also where it stands decoded, as in what rules say.
- What cannot be read is not guessed at: such a body becomes its size, and so does what a rule quotes from a whole body
  or a whole query if there was a secret in it, as a quotation may be cut anywhere.

The client's address stays: without it no incident is told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import unquote_plus

from haneul.trail.model import Record

MASK: Final = "***"
#: Headers whose values are secret whatever they are.
_HEADERS: Final = frozenset(
    {
        "authorization",
        "proxyauthorization",
        "cookie",
        "setcookie",
        "xapikey",
        "xauthtoken",
        "xcsrftoken",
        "xxsrftoken",
        "xforwardedaccesstoken",
        "xamzsecuritytoken",
    }
)
#: Names that have one of these anywhere are secret, written with or without '-', '_' and capitals.
_TELLING: Final = (
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "authorization",
    "session",
    "cardnumber",
    "creditcard",
    "signature",
    "iban",
)
#: And those that are one of these.
_EXACT: Final = frozenset(
    {"pass", "pin", "otp", "code", "auth", "jwt", "sid", "ssn", "cvv", "cvc", "cvv2", "card", "pan", "sig", "key"}
)
_URLS: Final = frozenset(
    {"referer", "location", "contentlocation", "origin", "refresh", "xoriginalurl", "xoriginaluri"}
)

_BEARER: Final = re.compile(r"(?i)\b(bearer|basic|digest|negotiate|token)(\s+|%20|\+)([A-Za-z0-9._~+/=:-]{6,})")
_JWT: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?")
_PRIVATE_KEY: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_DIGITS: Final = re.compile(r"(?<![0-9])[0-9](?:[ +-]?[0-9]|%20(?=[0-9])[0-9]){12,18}(?![0-9])")
_EMAIL: Final = re.compile(r"[A-Za-z0-9._%+-]{1,64}(?:@|%40)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")
#: A rule names what it looked at: a part by its name, or a whole.
_LOOKED_AT: Final = re.compile(
    r"\b(ARGS[A-Z_]*|REQUEST_HEADERS|REQUEST_COOKIES|RESPONSE_HEADERS|MULTIPART[A-Z_]*):([^\s:`'\"]{1,256})"
)
_WHOLES: Final = re.compile(
    r"\b(REQUEST_BODY|QUERY_STRING|REQUEST_URI|REQUEST_URI_RAW|REQUEST_LINE|FULL_REQUEST|RESPONSE_BODY|XML|FILES|JSON)\b"
)
#: A shorter secret is not searched for elsewhere: too much would be that by chance.
_SHORTEST: Final = 4
_SHORTEST_TOKEN: Final = 10
_SHORTEST_CARD: Final = 13
#: Names whose verdict is remembered; clients may invent any number of them.
_MOST_NAMES: Final = 10_000
_MOST_INSIDE: Final = 64
_LONGEST_NAME: Final = 100


@dataclass(frozen=True)
class Masks:
    """What a site adds: names of fields, and expressions whose matches are masked wherever they stand."""

    names: tuple[str, ...] = ()
    expressions: tuple[re.Pattern[str], ...] = ()
    #: Names that are not masked though they look like it.
    open_names: tuple[str, ...] = ()
    _names: frozenset[str] = field(init=False, repr=False)
    _open: frozenset[str] = field(init=False, repr=False)
    _verdicts: dict[str, bool] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_names", frozenset(map(_bare, self.names)))
        object.__setattr__(self, "_open", frozenset(map(_bare, self.open_names)))

    def names_secret(self, name: str) -> bool:
        """Say whether the value of a field with this name is secret."""
        known = self._verdicts.get(name)
        if known is None:
            known = self._judged(_bare(unquote_plus(name)))
            if len(self._verdicts) < _MOST_NAMES and len(name) < _LONGEST_NAME:
                self._verdicts[name] = known
        return known

    def _judged(self, bare: str) -> bool:
        if bare in self._open:
            return False
        return bare in self._names or bare in _EXACT or any(word in bare for word in _TELLING)


def mask_record(record: Record, masks: Masks) -> Record:
    """Return the record without secrets and personal data."""
    return _Masking(masks).record(record)


class _Masking:
    """One record's: what was taken out is remembered, to be found elsewhere."""

    def __init__(self, masks: Masks) -> None:
        self._masks = masks
        self._taken: set[str] = set()
        #: Whether there was a body in which nobody knows what is secret.
        self._closed_body = False

    def record(self, record: Record) -> Record:
        request = self._side(record.request)
        response = self._side(record.response)
        messages = [self._message(message) for message in record.audit_data.get("messages", ())]
        rest = {name: value for name, value in record.audit_data.items() if name != "messages"}
        made = replace(record, request=request, response=response, audit_data={"messages": messages, **rest})
        secrets = sorted((one for one in self._taken if len(one) >= _SHORTEST and one != MASK), key=len, reverse=True)
        # What names and times say is not searched: a secret that is the name of a method would take it out.
        found = re.compile("|".join(map(re.escape, secrets))) if secrets else None

        def elsewhere(text: str) -> str:
            return self._shapes(found.sub(MASK, text) if found else text)

        kept = {"method", "protocol", "host", "status"}
        return Record(
            {
                name: _deep(value, self._shapes) if name == "request_id" else value
                for name, value in made.transaction.items()
            },
            {name: value if name in kept else _deep(value, elsewhere) for name, value in made.request.items()},
            {name: value if name in kept else _deep(value, elsewhere) for name, value in made.response.items()},
            {
                "messages": [
                    {name: value if name in _RULES_OWN else _deep(value, elsewhere) for name, value in message.items()}
                    for message in messages
                ],
                **rest,
            },
        )

    def _side(self, part: Mapping[str, Any]) -> dict[str, Any]:
        headers = [[str(name), str(value)] for name, value in part.get("headers", ())]
        kinds = [value for name, value in headers if name.lower() == "content-type"]
        made = dict(part)
        made["headers"] = [[name, self._header(name, value)] for name, value in headers]
        if "uri" in part:
            made["uri"] = self._url(str(part["uri"]))
        made["body"] = self._body(str(part.get("body", "")), kinds[0] if kinds else "")
        return made

    def _header(self, name: str, value: str) -> str:
        bare = _bare(name)
        if bare == "cookie":
            return self._cookies(value)
        if bare == "setcookie":
            first, _, attributes = value.partition(";")
            cookie, _, secret = first.partition("=")
            return f"{cookie}={self._take(secret)}" + (f";{attributes}" if attributes else "")
        if bare in ("authorization", "proxyauthorization"):
            scheme, _, secret = value.partition(" ")
            return f"{scheme} {self._take(secret)}" if secret else self._take(value)
        if bare in _HEADERS or self._masks.names_secret(name):
            return self._take(value)
        return self._url(value) if bare in _URLS else value

    def _cookies(self, value: str) -> str:
        made = []
        for cookie in value.split(";"):
            name, equals, secret = cookie.partition("=")
            made.append(f"{name}={self._take(secret)}" if equals else self._take(name))
        return ";".join(made)

    def _url(self, value: str) -> str:
        """Return a URL, absolute or not, with masked parameters, also behind its '#', and without a password."""
        place, hash_mark, fragment = value.partition("#")
        path, mark, query = place.partition("?")
        path = re.sub(r"//([^/@?#]*)@", lambda found: f"//{self._login(found[1])}@", path)
        return path + mark + self._pairs(query) + hash_mark + self._pairs(fragment)

    def _login(self, value: str) -> str:
        user, colon, password = value.partition(":")
        return self._take(user) + colon + self._take(password)

    def _pairs(self, text: str) -> str:
        made = []
        for piece in re.split("([&;])", text):
            name, equals, value = piece.partition("=")
            made.append(f"{name}={self._take(value)}" if equals and self._masks.names_secret(name) else piece)
        return "".join(made)

    def _body(self, body: str, kind: str) -> str:
        if not body:
            return ""
        media = kind.partition(";")[0].strip().lower()
        if media == "application/x-www-form-urlencoded":
            return self._pairs(body)
        if media == "application/json" or media.endswith("+json"):
            try:
                return json.dumps(self._json(json.loads(body, strict=False), 0), separators=(",", ":"))
            except (ValueError, RecursionError):
                pass
        self._take(body)
        self._closed_body = True
        return f"{MASK} {len(body)} characters of {media or 'no type'}"

    def _json(self, value: Any, depth: int) -> Any:
        if depth > _MOST_INSIDE:
            raise ValueError("it is too deep")
        if isinstance(value, dict):
            return {
                name: self._all(inner, depth) if self._masks.names_secret(name) else self._json(inner, depth + 1)
                for name, inner in value.items()
            }
        if isinstance(value, list):
            return [self._json(inner, depth + 1) for inner in value]
        return value

    def _all(self, value: Any, depth: int) -> str:
        """Return the mask for everything below a secret key."""
        if depth > _MOST_INSIDE:
            raise ValueError("it is too deep")
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        for inner in inside:
            self._all(inner, depth + 1)
        if value is not None and not isinstance(value, dict | list | bool):
            self._take(str(value))
        return MASK

    def _message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a rule said, without what it quotes of secrets; a quotation may be a piece, or decoded."""
        said = " ".join(str(value) for name, value in message.items() if name not in _RULES_OWN)
        looked = [(place, name) for place, name in _LOOKED_AT.findall(said)]
        secret = any(
            place == "REQUEST_COOKIES"
            or self._masks.names_secret(name.rpartition(".")[2])
            or ("HEADERS" in place and _bare(name) in _HEADERS)
            for place, name in looked
        )
        unknown = self._closed_body and not looked
        if not secret and not unknown and not (self._taken and _WHOLES.search(said)):
            return dict(message)
        return {name: value if name in _RULES_OWN else _deep(value, lambda _: MASK) for name, value in message.items()}

    def _take(self, secret: str) -> str:
        """Take out a value; an empty one stays."""
        if not secret:
            return secret
        self._taken |= {secret, secret.strip(), unquote_plus(secret), secret.strip('"')}
        return MASK

    def _shapes(self, text: str) -> str:
        # Looking for a few characters first is many times faster, and nearly every text has none of them.
        if "-----BEGIN" in text:
            text = _PRIVATE_KEY.sub(MASK, text)
        if len(text) > _SHORTEST_TOKEN:
            text = _BEARER.sub(rf"\1\2{MASK}", text)
        if "eyJ" in text:
            text = _JWT.sub(MASK, text)
        if len(text) >= _SHORTEST_CARD:
            text = _DIGITS.sub(lambda found: MASK if _is_card(found[0]) else found[0], text)
        if "@" in text or "%40" in text:
            text = _EMAIL.sub(MASK, text)
        for expression in self._masks.expressions:
            text = expression.sub(MASK, text)
        return text


#: Fields of a message that are the rule's own words.
_RULES_OWN: Final = frozenset(
    {"rule", "file", "lineNumber", "severity", "ver", "rev", "tags", "maturity", "accuracy", "reference"}
)


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _is_card(text: str) -> bool:
    """Say whether digits are a card's number (ISO/IEC 7812-1 annex B)."""
    digits = [int(character) for character in re.sub("%20|[^0-9]", "", text)]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def _deep(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value of JSON with every text in it changed; names of fields too, but for those that are ours."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(name): _deep(inner, change) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_deep(inner, change) for inner in value]
    return value


def expressions_of(texts: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    """Return expressions that a site adds. Raises ValueError if one is none, or matches nothing at all."""
    made = []
    for text in texts:
        try:
            expression = re.compile(text)
        except re.error as error:
            raise ValueError(f"{text!r} is no regular expression: {error}") from error
        if expression.search(""):
            raise ValueError(f"{text!r} matches what is empty")
        made.append(expression)
    return tuple(made)
