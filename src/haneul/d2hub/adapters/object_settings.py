"""The file that tells a hub of its object store, secrets and all: only its owner may read it.

It is as any bucket's (:mod:`haneul.kernel.buckets`), and may say besides:

```yaml
linkSeconds: 120                     # how long a redirect leads to content
```
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from haneul.kernel.buckets import BucketSettings, read_bucket_settings


class ObjectSettings(BucketSettings):
    """A hub's bucket."""

    link_seconds: int = Field(default=120, ge=10, le=3600)


def read_object_settings(path: Path) -> ObjectSettings:
    """Return what the file says. Raises InvalidInputError."""
    return read_bucket_settings(path, ObjectSettings)
