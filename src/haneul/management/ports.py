"""What the management cluster needs of others."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Artifacts(Protocol):
    """Built programs and images. All raise HostNotReadyError for what is not built."""

    def program(self, name: str) -> Path:
        """Return an executable."""
        ...

    def image_archive(self, name: str) -> Path:
        """Return an image's OCI archive."""
        ...

    def image_reference(self, name: str) -> str:
        """Return the name under which an image is known once it is loaded."""
        ...
