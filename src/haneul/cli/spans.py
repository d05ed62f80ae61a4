"""Stretches of time as people write them: ``90m``, ``24h``, ``7d``. Pure."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from haneul.kernel.errors import InvalidInputError

_SPAN: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST: Final = timedelta(days=36_500)


def parse_span(text: str) -> timedelta:
    """Return a stretch of time. Raises InvalidInputError."""
    found = _SPAN.fullmatch(text)
    span = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta.max
    if span > _LONGEST:
        raise InvalidInputError(f"{text[:40]!r} is no stretch of time", hint="such as 90m, 24h or 7d")
    return span
