"""When signing keys are made, used and forgotten: a pure decision.

A key signs for thirty days. The next one is published a day before it signs, so that whoever verifies has seen it by
then, and a replaced one stays published for a day, longer than any token that it signed lives.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

PERIOD: Final = timedelta(days=30)
LEAD: Final = timedelta(days=1)
KEEP: Final = timedelta(days=1)


@dataclass(frozen=True)
class KeyTimes:
    """A key, and from when on it signs."""

    kid: str
    active_from: datetime


@dataclass(frozen=True)
class KeyPlan:
    """Which key signs now, from when on a key to be made shall sign, and which keys to forget."""

    signing: str | None
    make: datetime | None
    drop: tuple[str, ...]


def plan_keys(keys: Sequence[KeyTimes], now: datetime) -> KeyPlan:
    """Decide on the keys of one algorithm. The first key of all signs at once: nobody knows another yet."""
    ordered = sorted(keys, key=lambda key: (key.active_from, key.kid))
    active = [key for key in ordered if key.active_from <= now]
    drop = tuple(key.kid for key, successor in itertools.pairwise(active) if successor.active_from + KEEP <= now)
    if not active:
        return KeyPlan(None, None if ordered else now, drop)
    signing, end = active[-1], active[-1].active_from + PERIOD
    waits = len(active) < len(ordered)
    make = max(end, now + LEAD) if not waits and now >= end - LEAD else None
    return KeyPlan(signing.kid, make, drop)
