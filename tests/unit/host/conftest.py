"""Golden files of what is rendered for the host."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

_GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare with a golden file; ``HANEUL_UPDATE_GOLDEN=1`` writes it anew for review with ``git diff``."""

    def compare(name: str, text: str) -> None:
        path = _GOLDEN / name
        if os.environ.get("HANEUL_UPDATE_GOLDEN") == "1":
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{name} is not there; HANEUL_UPDATE_GOLDEN=1 makes it"
        assert text == path.read_text()

    return compare
