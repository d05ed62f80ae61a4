"""When a host's certificate is asked for: first, again before it ends, and again after a refusal. Pure.

A certificate is renewed at two thirds of its time, hosts a little apart from each other. After a refusal each try waits
twice as long as the one before, and at least as long as the authority says (RFC 8555 section 6.6, ``Retry-After``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from cryptography import x509

from haneul.ingress.model import Certificate

FIRST_PAUSE: Final = timedelta(minutes=1)
LAST_PAUSE: Final = timedelta(hours=12)
#: No authority may keep a host waiting for longer than this.
LONGEST_WAIT: Final = timedelta(days=7)
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Refusals:
    """How often in a row a host was refused a certificate, why the last time, and when it may be asked for again."""

    count: int
    after: datetime
    why: str


def refused(before: Refusals | None, host: str, why: str, wait: float | None, now: datetime) -> Refusals:
    """Return what stands after one more refusal; ``wait`` is how many seconds the authority wants."""
    count = before.count if before else 0
    # Long before the twentieth time the pause has its longest.
    pause = min(FIRST_PAUSE * 2 ** min(count, 20), LAST_PAUSE)
    pause += pause * 0.25 * _part(host, str(count))
    wanted = min(timedelta(seconds=max(wait or 0.0, 0.0)), LONGEST_WAIT)
    return Refusals(count + 1, now + max(pause, wanted), why)


def renewal(certificate: Certificate, host: str) -> datetime:
    """Return when a host's certificate is to be renewed: after two thirds of its time, and up to a thirtieth more."""
    leaf = x509.load_pem_x509_certificate(certificate.chain)
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    return begins + (ends - begins) * (2 / 3 + _part(host, "renewal") / 30)


def due(host: str, certificate: Certificate | None, refusals: Refusals | None) -> datetime:
    """Return when a host's certificate is to be asked for."""
    wanted = renewal(certificate, host) if certificate else _LONG_AGO
    return max(wanted, refusals.after) if refusals else wanted


def next_host(
    hosts: Collection[str],
    issued: Mapping[str, Certificate],
    refusals: Mapping[str, Refusals],
    held: Mapping[str, datetime],
    now: datetime,
) -> tuple[str | None, float]:
    """Return the host whose turn it is, if it is one's; and in how many seconds to look again.

    ``held`` are hosts that wait for others' orders to be long ago, and until when.
    Those that were refused least often go first, so that no host waits for one that is refused again and again.
    """
    moments = {host: max(due(host, issued.get(host), refusals.get(host)), held.get(host, _LONG_AGO)) for host in hosts}
    ready = [host for host, moment in moments.items() if moment <= now]
    if ready:
        return min(ready, key=lambda host: (_count(refusals.get(host)), moments[host], host)), 0.0
    soonest = min(moments.values(), default=now + timedelta(hours=1))
    return None, min((soonest - now).total_seconds(), 3600.0)


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """Return how many seconds ``Retry-After`` says (RFC 9110 section 10.2.3); None if it says nothing."""
    if not text:
        return None
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max((aware - now).total_seconds(), 0.0)


def _count(refusals: Refusals | None) -> int:
    return refusals.count if refusals else 0


def _part(*said: str) -> float:
    """Return a number from 0 to 1 that is always the same for the same words."""
    return int.from_bytes(hashlib.sha256("\0".join(said).encode()).digest()[:4], "big") / 0xFFFFFFFF
