"""Commands that are called often start fast."""

import subprocess
import sys

#: What only servers and some commands need; each takes long to import.
HEAVY = {"aiohttp", "cryptography", "fastapi", "filelock", "kopf", "pydantic", "sqlalchemy", "structlog", "uvicorn"}


def test_the_command_line_starts_without_what_only_some_commands_need() -> None:
    program = (
        "import sys, haneul.app.main; haneul.app.main.command_tree();"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert set(done.stdout.split()) & HEAVY == set()
