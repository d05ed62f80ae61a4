"""Commands that are called often start fast."""

import subprocess
import sys

from haneul.app.serve import version

#: What only servers and some commands need; each takes long to import.
HEAVY = {"aiohttp", "cryptography", "fastapi", "filelock", "kopf", "pydantic", "sqlalchemy", "structlog", "uvicorn"}


def test_the_command_line_starts_without_what_only_some_commands_need() -> None:
    program = (
        "import sys, haneul.app.main; haneul.app.main.command_tree();"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert set(done.stdout.split()) & HEAVY == set()


def test_the_version_is_told_without_a_command() -> None:
    command = [sys.executable, "-m", "haneul.app.main", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == version()
