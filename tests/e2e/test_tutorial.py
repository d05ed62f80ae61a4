"""The tutorial as its reader goes through it: every block, in order, in one shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_TUTORIAL = _ROOT / "docs" / "tutorial" / "first-cluster.md"
# The tests run in an environment that is set up already.
_DONE_BEFORE = ("make setup", ". .venv/bin/activate")


@pytest.mark.e2e
def test_every_block_of_the_tutorial_works(tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", _TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 8
    lines = [line for block in blocks for line in block.splitlines() if line not in _DONE_BEFORE]
    script = "set -euo pipefail\n" + "\n".join(lines) + "\n"
    environment = {
        **{name: value for name, value in os.environ.items() if name != "KUBECONFIG"},
        "HOME": str(tmp_path),
        "HANEUL_CONFIG": str(tmp_path / "config.yaml"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash"], input=script, env=environment, cwd=_ROOT, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "web-" in done.stdout
