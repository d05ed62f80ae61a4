"""Grammars of what people write into Ingress objects: each text becomes a value of its own type, or is refused. Pure.

Every parser raises ValueError with what it expects. No value that leaves here has a control character, a quote, a
backslash or, where nginx would read it as a variable, a dollar sign. Lengths are bounded: nginx takes no word of more
than 4096 bytes.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST: Final = 1000
#: How many entries a list may have.
LONGEST_LIST: Final = 256
#: What the proxy's own paths begin with.
RESERVED: Final = "/_haneul"
LONGEST_SECONDS: Final = 24 * 3600
LARGEST_SIZE: Final = 1 << 40

_LABEL: Final = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_SIZE: Final = re.compile(r"([0-9]{1,13})([kKmMgG]?)")
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
# RFC 9110 section 5.6.2, without what nginx or a shell of it could read otherwise.
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_COOKIE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_COOKIE_PATH: Final = re.compile(r"/[A-Za-z0-9/_.~-]{0,255}")
# RFC 3986 section 3.3 and 3.4, without quotes and the dollar sign.
_REFERENCE: Final = re.compile(r"[A-Za-z0-9/?:@!&()*+,;=._~%-]*")
_URL: Final = re.compile(r"(https?)://([A-Za-z0-9.-]+)(?::([0-9]{1,5}))?(/[^#]*)?")
_ORIGIN: Final = re.compile(r"(https?)://(\*\.)?([A-Za-z0-9.-]+)(?::([0-9]{1,5}))?")
_FIELD_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")
_LONGEST_FIELD: Final = 4096
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_MEMBER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+:/-]{0,127}")
_WORDS: Final = re.compile(r"[A-Za-z0-9 ._,:@()-]{1,128}")
#: Headers that frame a request, or say where it came from.
_FRAMING: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-real-ip",
    }
)
_AUDIT_ALONE: Final = ("all", "nothing", "off")
_AUDIT_WORD: Final = re.compile(r"errors|matched|slow=[0-9]{1,6}(?:ms|s)")
_AUDIT_SAMPLE: Final = re.compile(r"sample=([0-9]{1,3}(?:\.[0-9]{1,2})?)%")
_ESCAPED: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def parse_flag(text: str) -> bool:
    """Return what ``true`` or ``false`` says."""
    if text not in ("true", "false"):
        raise ValueError("it is 'true' or 'false'")
    return text == "true"


def parse_switch(text: str) -> bool:
    """Return what ``on`` or ``off`` says; ``true`` and ``false`` are taken too."""
    if text in ("on", "off"):
        return text == "on"
    return parse_flag(text)


def parse_number(text: str, least: int, most: int) -> int:
    """Return a whole number between two bounds, both allowed."""
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise ValueError(f"it is a whole number from {least} to {most}")
    return int(text)


def parse_audit(text: str) -> str:
    """Return which requests the audit trail keeps, without blanks: words that :mod:`haneul.trail.policy` reads."""
    words = [word.strip() for word in text.split(",")]
    alone = len(words) == 1 and words[0] in _AUDIT_ALONE
    if len(set(words)) != len(words) or not (alone or all(map(_is_kept, words))):
        raise ValueError(
            "it is 'errors', 'slow=2s', 'matched' and 'sample=1%', each once, or 'all', 'nothing' or 'off' alone"
        )
    return ",".join(words)


def _is_kept(word: str) -> bool:
    sample = _AUDIT_SAMPLE.fullmatch(word)
    return bool(_AUDIT_WORD.fullmatch(word)) or (sample is not None and 0 < float(sample[1]) <= 100)


def parse_seconds(text: str) -> int:
    """Return a time in whole seconds, written as a number or with an ``s`` behind it."""
    return parse_number(text.removesuffix("s"), 1, LONGEST_SECONDS)


def parse_size(text: str) -> int:
    """Return a size in bytes: a number, with ``k``, ``m`` or ``g`` behind it for powers of 1024; 0 is no limit."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError("it is a number of bytes, with k, m or g behind it, such as 8m")
    size = int(found[1]) * _UNITS[found[2].lower()]
    if size > LARGEST_SIZE:
        raise ValueError("it is more than 1024g")
    return size


def parse_host(text: str) -> str:
    """Return a host name in small letters (RFC 1123 section 2.1), which may begin with ``*.`` for one label."""
    host = text.lower()
    bare = host.removeprefix("*.")
    if len(host) > 253 or not _HOST.fullmatch(bare) or (bare != host and "." not in bare):
        raise ValueError("it is a host name, or one with '*' for its first label")
    return host


def parse_plain_host(text: str) -> str:
    """Return a host name without a wildcard."""
    if text.startswith("*"):
        raise ValueError("it is a host name without '*'")
    return parse_host(text)


def parse_hosts(text: str) -> tuple[str, ...]:
    """Return host names with commas between them."""
    return tuple(dict.fromkeys(parse_host(entry) for entry in _entries(text)))


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return addresses and networks with commas between them; host bits are cut off."""
    found = []
    for entry in _entries(text):
        if "%" in entry:
            raise ValueError(f"{entry!r} is no address or network")
        try:
            found.append(ipaddress.ip_network(entry, strict=False))
        except ValueError as error:
            raise ValueError(f"{entry!r} is no address or network") from error
    return tuple(dict.fromkeys(found))


def parse_token(text: str) -> str:
    """Return the name of a header: letters, digits, ``-`` and ``_``."""
    if not _TOKEN.fullmatch(text):
        raise ValueError("it is a name of letters, digits, '-' and '_', at most 64 of them")
    return text


def parse_tokens(text: str) -> tuple[str, ...]:
    """Return names of headers with commas between them."""
    return tuple(dict.fromkeys(parse_token(entry) for entry in _entries(text)))


def parse_answered(text: str) -> tuple[str, ...]:
    """Return names of headers that an answer may set in a request: none that frames it or says whose it is."""
    found = parse_tokens(text)
    for name in found:
        if name.lower() in _FRAMING or name.lower().startswith(("x-haneul-", "x-forwarded-")):
            raise ValueError(f"{name} is not for others to set")
    return found


def parse_header_value(text: str) -> str:
    """Return what a header has to be: printable, without quotes, backslash and dollar sign."""
    if not 0 < len(text) <= 256 or not all(" " <= character <= "~" for character in text) or set(text) & set("\"'\\$"):
        raise ValueError("it is printable text of at most 256 characters, without quotes, '\\' and '$'")
    return text


def parse_field_name(text: str) -> str:
    """Return the name of a header in small letters (RFC 9110 section 5.1)."""
    if not _FIELD_NAME.fullmatch(text):
        raise ValueError("it is the name of a header")
    return text.lower()


def parse_field_value(text: str) -> str:
    """Return the value of a header or query: printable text of at most 4096 characters (RFC 9110 section 5.5)."""
    if not 0 < len(text) <= _LONGEST_FIELD or not text.isprintable() or text != text.strip():
        raise ValueError(f"it is printable text of at most {_LONGEST_FIELD} characters")
    return text


def parse_changed(text: str) -> str:
    """Return the name of a header that a rule may change: none that frames a message or says who somebody is."""
    name = parse_field_name(text)
    if name in _FRAMING or name.startswith(("x-haneul-", "x-forwarded-")):
        raise ValueError(f"{name} is not for others to change")
    return name


def parse_methods(text: str) -> tuple[str, ...]:
    """Return methods of HTTP with commas between them."""
    found = tuple(dict.fromkeys(_entries(text)))
    if not all(re.fullmatch(r"[A-Z]{1,16}|\*", method) for method in found):
        raise ValueError("it is a list of methods such as GET, PUT")
    return found


def parse_cookie(text: str) -> str:
    """Return the name of a cookie."""
    if not _COOKIE.fullmatch(text):
        raise ValueError("it is a name of letters, digits, '-', '_' and '.', at most 64 of them")
    return text


def parse_cookie_path(text: str) -> str:
    """Return the path that a cookie is for."""
    if not _COOKIE_PATH.fullmatch(text):
        raise ValueError("it is a path of letters, digits and '/', '-', '_', '.', '~'")
    return text


def parse_choice(text: str, *choices: str) -> str:
    """Return one of some words, whatever its case, as it is written in ``choices``."""
    for choice in choices:
        if text.lower() == choice.lower():
            return choice
    raise ValueError(f"it is one of {', '.join(choices)}")


def parse_members(text: str) -> tuple[str, ...]:
    """Return names of projects, groups or people with commas between them."""
    found = tuple(dict.fromkeys(_entries(text)))
    if not all(_MEMBER.fullmatch(entry) for entry in found):
        raise ValueError("it is a list of names; letters, digits and '.', '_', '@', '+', ':', '/', '-' are in them")
    return found


def parse_words(text: str) -> str:
    """Return a few plain words, such as the name of a realm; ``off`` would ask nobody (ngx_http_auth_basic_module)."""
    if text == "off" or not _WORDS.fullmatch(text):
        raise ValueError("it is plain words of at most 128 characters, and not 'off'")
    return text


def parse_secret_name(text: str) -> str:
    """Return the name of a Secret; ``namespace/name`` is taken, and the namespace is checked where it is used."""
    parts = text.split("/")
    if len(parts) > 2 or not all(_NAME.fullmatch(part) for part in parts):
        raise ValueError("it is the name of a Secret")
    return text


@dataclass(frozen=True)
class Url:
    """An absolute address of HTTP. ``rest`` is path and query, and empty or begins with ``/``."""

    scheme: str
    host: str
    port: int | None
    rest: str
    #: Whether the path and query of the request are put behind it.
    with_request: bool = False

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{self.host}{port}{self.rest}"


def parse_url(text: str) -> Url:
    """Return an ``http`` or ``https`` address without user and fragment; ``$request_uri`` may be its end."""
    bare = text.removesuffix("$request_uri")
    found = _URL.fullmatch(bare)
    if not found or len(text) > LONGEST or not _REFERENCE.fullmatch(found[4] or "") or _ESCAPED.search(found[4] or ""):
        raise ValueError("it is an address such as https://www.example.com/path, which may end with $request_uri")
    return Url(found[1], parse_plain_host(found[2]), _port(found[3]), found[4] or "", with_request=bare != text)


@dataclass(frozen=True)
class Origin:
    """Whose scripts may ask (RFC 6454); ``wildcard`` stands for one label before the host."""

    scheme: str
    host: str
    port: int | None
    wildcard: bool = False

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{'*.' if self.wildcard else ''}{self.host}{port}"


def parse_origins(text: str) -> tuple[Origin, ...]:
    """Return origins with commas between them; ``*`` alone is nobody in particular, and is the empty tuple."""
    if text.strip() == "*":
        return ()
    found = []
    for entry in _entries(text):
        parts = _ORIGIN.fullmatch(entry)
        if not parts:
            raise ValueError(f"{entry[:60]!r} is no origin such as https://shop.example.com or https://*.example.com")
        found.append(Origin(parts[1], parse_plain_host(parts[3]), _port(parts[4]), wildcard=bool(parts[2])))
    return tuple(dict.fromkeys(found))


def parse_reference(text: str) -> str:
    """Return a path with perhaps a query, as it stands in a request."""
    if not text.startswith("/") or text.startswith("//") or len(text) > LONGEST:
        raise ValueError("it is a path that begins with one '/'")
    if not _REFERENCE.fullmatch(text) or _ESCAPED.search(text):
        raise ValueError("it is a path of the characters of RFC 3986, without quotes and '$'")
    return text


@dataclass(frozen=True)
class Rewriting:
    """What a path becomes: texts, and the numbers of groups of the path's expression, one after another."""

    parts: tuple[str | int, ...]

    @property
    def groups(self) -> int:
        """Return the highest number of a group that it names."""
        return max((part for part in self.parts if isinstance(part, int)), default=0)

    def __str__(self) -> str:
        return "".join(f"${part}" if isinstance(part, int) else part for part in self.parts)


def parse_rewriting(text: str) -> Rewriting:
    """Return the target of a rewriting: a path, in which ``$1`` to ``$9`` stand for groups."""
    if not text.startswith("/") or len(text) > LONGEST:
        raise ValueError("it is a path that begins with '/'")
    pieces = re.split(r"\$([1-9])(?![0-9])", text)
    parts: list[str | int] = []
    for number, piece in enumerate(pieces):
        if number % 2:
            parts.append(int(piece))
        elif not _REFERENCE.fullmatch(piece) or _ESCAPED.search(piece):
            raise ValueError("it is a path of the characters of RFC 3986, and $1 to $9 for groups of the path")
        elif piece:
            parts.append(piece)
    return Rewriting(tuple(parts))


def parse_path(text: str) -> str:
    """Return a path as nginx compares it: with its escapes undone (RFC 3986 section 2.1).

    Refused is what no request would ever match, as nginx resolves it before it compares: empty and dotted segments.
    """
    if not text.startswith("/") or len(text) > LONGEST:
        raise ValueError(f"it begins with '/' and has at most {LONGEST} characters")
    if _ESCAPED.search(text):
        raise ValueError("'%' begins an escape of two hexadecimal digits")
    try:
        path = unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise ValueError("its escapes are no UTF-8") from error
    if len(path.encode()) > LONGEST:
        raise ValueError(f"it has at most {LONGEST} bytes")
    if not path.isprintable() or set(path) & set("\"'\\"):
        raise ValueError("it has no control characters, quotes or '\\'")
    if path.startswith(RESERVED):
        raise ValueError(f"what begins with {RESERVED} is the proxy's own")
    segments = path.split("/")[1:]
    if any(segment in (".", "..") for segment in segments) or any(not segment for segment in segments[:-1]):
        raise ValueError("it has no segments '', '.' or '..'")
    return path


def parse_passwords(data: str) -> bytes:
    """Return lines of names and hashed passwords, as ``htpasswd`` writes them, from a Secret's value.

    Passwords in plain text are refused, and so is what nginx would take for a comment or another field.
    """
    try:
        text = base64.b64decode(data, validate=True).decode("ascii")
    except ValueError as error:
        raise ValueError("it is no text") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    hashed = re.compile(r"[A-Za-z0-9._@+-]{1,64}:(\$(apr1|1|2[aby]|5|6)\$|\{SHA\}|\{SSHA\})[A-Za-z0-9./$+=,]{1,200}")
    if not lines or not all(hashed.fullmatch(line) for line in lines):
        raise ValueError("each line is NAME:HASH, as 'htpasswd' writes it")
    return ("\n".join(lines) + "\n").encode()


def _entries(text: str) -> list[str]:
    found = [entry.strip() for entry in text.split(",") if entry.strip()]
    if not 0 < len(found) <= LONGEST_LIST:
        raise ValueError(f"it is a list of 1 to {LONGEST_LIST} entries with commas between them")
    return found


def _port(text: str | None) -> int | None:
    return parse_number(text, 1, 65535) if text else None
