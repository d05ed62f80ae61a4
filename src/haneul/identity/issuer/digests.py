"""Secrets with so much chance in them that their SHA-256 may be kept: codes, cookies, refresh tokens."""

from __future__ import annotations

import hashlib
import secrets


def new_secret() -> str:
    """Return 256 bits of chance as text."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
