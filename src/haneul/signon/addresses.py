"""Where a browser may be sent back to: https addresses of one domain, and nothing that only looks like one. Pure.

Browsers read addresses leniently (the URL standard of WHATWG): ``\\`` is ``/`` to them, ``https:evil.test`` and
``//evil.test`` are addresses, tabs and line ends are skipped. So what is allowed is written down whole, to the letter,
instead of what is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from haneul.kernel.errors import InvalidInputError

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
#: Scheme, host, port, then a path and query of the characters that an address may have (RFC 3986, appendix A).
_ADDRESS: Final = re.compile(
    rf"https://(?P<host>{_LABEL}(?:\.{_LABEL})*)(?::(?P<port>[0-9]{{1,5}}))?"
    r"(?P<rest>/[A-Za-z0-9._~!$&'()*+,;=:@%/?\[\]|{}^-]*)?"
)
_LONGEST: Final = 2048
_HTTPS: Final = 443


@dataclass(frozen=True)
class Sites:
    """The hosts of one domain, and the gate's own address among them. All are reached at the same port."""

    domain: str
    host: str
    port: int = _HTTPS

    @property
    def url(self) -> str:
        """Return the gate's own origin."""
        return f"https://{self.host}" if self.port == _HTTPS else f"https://{self.host}:{self.port}"

    def allows(self, address: str) -> bool:
        """Say whether a browser may be sent to an address."""
        found = _ADDRESS.fullmatch(address) if len(address) <= _LONGEST else None
        if found is None or int(found["port"] or _HTTPS) != self.port:
            return False
        return found["host"] == self.domain or found["host"].endswith(f".{self.domain}")


def sites_of(url: str, domain: str) -> Sites:
    """Return the sites of the gate's own URL and its domain. Raises InvalidInputError."""
    if not _DOMAIN.fullmatch(domain) or domain.replace(".", "").isdigit():
        raise InvalidInputError(
            f"{domain!r} is no domain that cookies can be for", hint="write it small, with two labels at least"
        )
    found = _ADDRESS.fullmatch(url)
    port = int(found["port"] or _HTTPS) if found is not None else 0
    if found is None or found["rest"] not in (None, "/") or not 0 < port < 1 << 16:
        raise InvalidInputError(f"{url!r} is no https address without a path", hint="https://auth.apps.example.com")
    sites = Sites(domain, found["host"], port)
    if not sites.allows(sites.url):
        raise InvalidInputError(f"{found['host']} is no host of {domain}", hint="browsers would not take its cookies")
    return sites
