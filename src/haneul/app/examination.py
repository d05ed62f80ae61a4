"""`haneul doctor`: what the installation wants of this host, held against what the host has."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from haneul.app.installation import component_store, project_folder
from haneul.host.doctor import findings
from haneul.host.doctor_gather import Expectations, gather
from haneul.host.networks import host_networks
from haneul.management.ranges import ranges_of
from haneul.management.settings import ManagementSettings


async def examine() -> list[dict[str, Any]]:
    """Return the findings about this host as plain data, worst first."""
    defaults = ManagementSettings(address="", host_name="")
    networks = [(route.network, route.device) for route in await host_networks()]
    ranges = ranges_of(defaults.state, networks)
    expectations = Expectations(
        state=defaults.state,
        runtime=defaults.runtime,
        cache=component_store().cache,
        ranges=(
            ("management pods", ranges.pods),
            ("management services", ranges.services),
        ),
        packages=_packages(project_folder() / "components" / "system-packages.txt"),
    )
    return [asdict(finding) for finding in findings(await gather(expectations))]


def _packages(path: Path) -> tuple[str, ...]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return tuple(line for line in lines if line)
