"""Which Debian images are made of, and where this machine gets it from."""

from __future__ import annotations

import re
from typing import Final

from haneul.kernel.errors import HostNotReadyError
from haneul.kernel.process import run

DEBIAN: Final = "bookworm"


async def debian_sources() -> str:
    """Return this machine's Debian package sources as one-line entries. Raises HostNotReadyError if it has none.

    Machines have other vendors' sources too; those take no part in images. apt itself knows which entry is whose.
    """
    listed = await run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(SITE)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)",
            "Identifier: Packages",
        ],
        timeout=60,
    )
    lines = set()
    for row in listed.stdout.splitlines():
        site, release, component, origin = row.split("|")
        if origin == "Debian" and re.fullmatch(rf"{DEBIAN}(-updates|-security)?", release):
            lines.add(f"deb {site} {release} {component}")
    if not lines:
        raise HostNotReadyError(
            f"no package source of Debian {DEBIAN} is configured", hint="run 'apt-get update' and look at its errors"
        )
    return "\n".join(sorted(lines)) + "\n"
