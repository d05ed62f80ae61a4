"""`haneul doctor`: what the installation wants of this host, held against what the host has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from haneul.app import platform_kage
from haneul.app.installation import component_store, ports, ports_at_address, project_folder, this_host
from haneul.app.platform_balancer import networks_of, own_networks, settings_of
from haneul.host.doctor import Finding, findings
from haneul.host.doctor_gather import PROGRAMS, PROGRAMS_OF_KAGE, Expectations, gather
from haneul.host.networks import host_networks
from haneul.kernel.clock import SystemClock
from haneul.management.certificates import Held, nearest
from haneul.management.image_hub import is_wanted
from haneul.management.ranges import ranges_of
from haneul.management.settings import ManagementSettings


async def examine() -> list[dict[str, Any]]:
    """Return the findings about this host as plain data, worst first."""
    defaults = ManagementSettings(address="", host_name="")
    networks = [(route.network, route.device) for route in await host_networks()]
    ranges = ranges_of(defaults.state, networks)
    kage = platform_kage.is_wanted(defaults.state)
    expectations = Expectations(
        state=defaults.state,
        runtime=defaults.runtime,
        cache=component_store().cache,
        ranges=(
            ("management pods", ranges.pods),
            ("management services", ranges.services),
            *(
                ("load balancers", one)
                for one in own_networks(networks_of(settings_of(defaults.state, networks)), networks)
            ),
        ),
        ports=ports(kage=kage),
        ports_at_address=ports_at_address(hub=is_wanted(defaults.state)),
        programs={**PROGRAMS, **(PROGRAMS_OF_KAGE if kage else {})},
        packages=_packages(project_folder() / "components" / "system-packages.txt"),
    )
    found = findings(await gather(expectations))
    if os.geteuid() == 0:
        found += expiry_findings((await this_host()).certificates(), SystemClock().now())
        found.sort(key=lambda finding: ("error", "warning", "info").index(finding.severity))
    return [asdict(finding) for finding in found]


def expiry_rows(certificates: Sequence[Held], now: datetime) -> list[dict[str, Any]]:
    """Return, for `haneul status`, the leaf and the authority that end first; ready is what nobody need look at."""
    rows = []
    for kind, authority in (("certificate", False), ("authority", True)):
        first = nearest(entry for entry in certificates if entry.authority is authority)
        if first is not None:
            worrying = any(entry.worrying(now) for entry in certificates if entry.authority is authority)
            detail = f"ends in {first.left(now).days} days, the first of its kind"
            rows.append({"name": first.name, "kind": kind, "ready": not worrying, "detail": detail})
    return rows


def expiry_findings(certificates: Sequence[Held], now: datetime) -> list[Finding]:
    """Return what is to be said about certificates: those that should be renewed by now, authorities a year before."""
    found = []
    for entry in certificates:
        days = entry.left(now).days
        if entry.authority and entry.worrying(now):
            found.append(
                Finding(
                    "authority-ends",
                    "error" if days < 90 else "warning",
                    f"the authority {entry.name} ends in {days} days",
                    "all that it signed is void then: the platform does not answer any more",
                    "replace it in time: docs/howto/renew-certificates.md",
                )
            )
        elif entry.worrying(now):
            what = f"the certificate {entry.name} ends in {days} days" if entry.whole else f"{entry.name} has no key"
            found.append(
                Finding(
                    "certificate-not-renewed",
                    "error" if days < 1 else "warning",
                    f"{what} and was not renewed by itself",
                    "once it has ended, the platform does not answer any more",
                    "run 'haneul renew' and look at the log of the host service 'certificates'",
                )
            )
    return found


def _packages(path: Path) -> tuple[str, ...]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return tuple(line for line in lines if line)
