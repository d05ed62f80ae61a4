"""Golden files of what the management cluster is made with."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.golden import compare


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare with a golden file of this folder."""
    return partial(compare, Path(__file__).parent / "golden")
