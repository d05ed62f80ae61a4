"""Under which names stores keep content."""

from __future__ import annotations

import secrets

from haneul.d2hub.digests import Digest


def new_content_key(digest: Digest) -> str:
    """Return a key that was never used and will not be again: the hash, and a mark that no other copy has."""
    return f"{digest.algorithm}/{digest.hex[:2]}/{digest.hex}.{secrets.token_hex(6)}"
