"""What ModSecurity is told: to look and never to refuse, by the Core Rule Set, and to write each transaction. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Bytes of a request's body that rules see and a record has.
BODY: Final = 128 << 10
#: ModSecurity's parts: headers and bodies both ways as far as rules ask for them, what matched, and the end.
_PARTS: Final = "ABCFHJKZ"
#: The Core Rule Set's rule that would refuse a request whose anomaly score is too high.
REFUSING: Final = "949110"


@dataclass(frozen=True)
class RuleSite:
    """Where things are on a machine; ``temporary`` is a folder that workers may write into."""

    spool: str
    temporary: str
    setup: str = "/etc/modsecurity/crs/crs-setup.conf"
    rules: str = "/usr/share/modsecurity-crs/rules/*.conf"
    unicode: str = "/etc/nginx/unicode.mapping"


def render_rules(site: RuleSite, exclusions: str = "") -> str:
    """Return ModSecurity's configuration; ``exclusions`` are the site's own rules, as they are."""
    json = '"id:200001,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=JSON"'
    xml = '"id:200000,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=XML"'
    lines = [
        "SecRuleEngine DetectionOnly",
        "SecRequestBodyAccess On",
        rf'SecRule REQUEST_HEADERS:Content-Type "^(?:application(?:/soap\+|/)|text/)xml" {xml}',
        rf'SecRule REQUEST_HEADERS:Content-Type "^application/(?:[a-z0-9.-]+\+)?json" {json}',
        f"SecRequestBodyLimit {BODY}",
        f"SecRequestBodyNoFilesLimit {BODY}",
        "SecRequestBodyLimitAction ProcessPartial",
        "SecRequestBodyJsonDepthLimit 64",
        "SecArgumentsLimit 1000",
        # Answers pass unread: rules for them need all of an answer in memory.
        "SecResponseBodyAccess Off",
        "SecPcreMatchLimit 10000",
        "SecPcreMatchLimitRecursion 10000",
        f"SecTmpDir {_quoted(site.temporary)}",
        f"SecDataDir {_quoted(site.temporary)}",
        f"SecUnicodeMapFile {_quoted(site.unicode)} 20127",
        "SecStatusEngine Off",
        "SecAuditEngine On",
        "SecAuditLogFormat JSON",
        "SecAuditLogType Concurrent",
        f"SecAuditLogStorageDir {_quoted(site.spool)}",
        "SecAuditLogFileMode 0600",
        f"SecAuditLogParts {_PARTS}",
        f"Include {_quoted(site.setup)}",
        exclusions.rstrip(),
        f"Include {_quoted(site.rules)}",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _quoted(path: str) -> str:
    if any(character in path for character in " \t\n\"'\\"):
        raise ValueError(f"{path!r} has blanks or quotes, which ModSecurity's configuration cannot have in paths")
    return path
