"""Which member has which slot of a hash, so that few clients move when members change. Pure.

Each slot goes to the member that has the highest weight for it (rendezvous hashing; Thaler and Ravishankar, 1998). A
member that goes gives up its own slots alone, and one that comes takes only those that it gets.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Final

#: So many that members' shares differ little, and few enough for the kernel to be told of again and again.
SLOTS: Final = 1024


def slots(members: Sequence[str], count: int = SLOTS) -> list[int]:
    """Return for each slot the place in ``members`` of the one that has it. Raises ValueError without any."""
    if not members:
        raise ValueError("slots are members'")
    weights = [struct.unpack(f">{count}Q", hashlib.shake_128(name.encode()).digest(8 * count)) for name in members]
    return [max(range(len(members)), key=lambda number: (weights[number][slot], number)) for slot in range(count)]
