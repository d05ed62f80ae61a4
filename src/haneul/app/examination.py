"""`haneul doctor`: what the installation wants of this host, held against what the host has."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from haneul.app.installation import component_store, project_folder
from haneul.host.doctor import findings
from haneul.host.doctor_gather import Expectations, gather
from haneul.management.settings import ManagementSettings


async def examine() -> list[dict[str, Any]]:
    """Return the findings about this host as plain data, worst first."""
    defaults = ManagementSettings(address="", host_name="")
    expectations = Expectations(
        state=defaults.state,
        runtime=defaults.runtime,
        cache=component_store().cache,
        ranges=(
            ("management pods", defaults.pods),
            ("management services", defaults.services),
            ("tenants' pods", "10.0.0.0/9"),
            ("tenants' services", "10.128.0.0/10"),
        ),
        packages=_packages(project_folder() / "components" / "system-packages.txt"),
    )
    return [asdict(finding) for finding in findings(await gather(expectations))]


def _packages(path: Path) -> tuple[str, ...]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return tuple(line for line in lines if line)
