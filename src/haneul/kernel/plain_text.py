"""Text of strangers as a terminal or an event may have it."""

from __future__ import annotations

import json
from typing import Any


def plain(text: Any) -> str:
    """Return a text without control characters; those that it had are written as in JSON."""
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in str(text))
