"""Which records are kept: a grammar of a few words, and a decision. Pure.

```
errors          answers of 400 and more, and requests without one
slow=2s         that took as long or longer; also in ms
matched         those that a rule matched
sample=1%       a part of all others, chosen by their own numbers: 0.01% to 100%
all             every one
nothing         none; they are in the ring all the same
off             nginx does not look at them at all
```

Words stand with commas between them; ``all``, ``nothing`` and ``off`` stand alone.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from haneul.trail.model import Record

_SLOW: Final = re.compile(r"slow=([0-9]{1,6})(ms|s)")
_SAMPLE: Final = re.compile(r"sample=([0-9]{1,3}(?:\.[0-9]{1,2})?)%")
#: What is kept where nothing is said.
DEFAULT: Final = "errors,slow=5s,matched,sample=1%"
_FIRST_ERROR: Final = 400
_PARTS: Final = 10_000


@dataclass(frozen=True)
class Policy:
    """What is kept: ``slow`` in seconds, ``sample`` in parts of ten thousand; without both, none of those."""

    errors: bool = False
    matched: bool = False
    slow: float | None = None
    sample: int = 0
    #: Whether nginx looks at requests at all.
    watched: bool = True

    def why(self, record: Record) -> str:
        """Return why a record is kept: ``error``, ``matched``, ``slow`` or ``sample``; nothing if it is not."""
        if self.errors and not 0 < record.status < _FIRST_ERROR:
            return "error"
        if self.matched and record.rules:
            return "matched"
        if self.slow is not None and record.seconds >= self.slow:
            return "slow"
        return "sample" if _drawn(record) < self.sample else ""


def parse_policy(text: str) -> Policy:
    """Return the policy that a text says. Raises ValueError with what is expected."""
    words = [word.strip() for word in text.split(",")]
    alone = {
        "all": Policy(sample=_PARTS),
        "nothing": Policy(),
        "off": Policy(watched=False),
    }
    if len(words) == 1 and words[0] in alone:
        return alone[words[0]]
    if len(set(words)) != len(words):
        raise ValueError("a word stands there twice")
    errors, matched, slow, sample = False, False, None, 0
    for word in words:
        if word == "errors":
            errors = True
        elif word == "matched":
            matched = True
        elif found := _SLOW.fullmatch(word):
            slow = int(found[1]) / (1000 if found[2] == "ms" else 1)
        elif (found := _SAMPLE.fullmatch(word)) and 0 < float(found[1]) <= 100:
            sample = round(float(found[1]) * _PARTS / 100)
        else:
            raise ValueError("it is 'errors', 'slow=2s', 'matched', 'sample=1%', or alone 'all', 'nothing' or 'off'")
    return Policy(errors, matched, slow, sample)


def _drawn(record: Record) -> int:
    """Return a number below ten thousand, the same whenever this record is asked about."""
    digest = hashlib.blake2b(str(record.transaction.get("id", "")).encode("utf-8", "surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest()) % _PARTS
