"""`haneul check platform`: the management cluster and this host's files, held against the benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from haneul.app.installation import Installation
from haneul.compliance.benchmark import evaluate, findings
from haneul.compliance.gather_host import HostPlaces, gather_management
from haneul.compliance.model import Report
from haneul.kernel.clock import SystemClock

_UNIT: Final = Path("/etc/systemd/system/haneul-kubelet.service")


async def check_management(installation: Installation) -> dict[str, Any]:
    """Return the report of the management cluster, seen from this host, as plain data."""
    settings = installation.settings
    places = HostPlaces(
        name=settings.host_name,
        state=settings.state,
        definitions=(_UNIT, settings.state / "services" / "kubelet.conf"),
        unit=_UNIT,
        authentication=settings.authentication,
        audit_policy=settings.audit_policy,
        encryption=settings.encryption,
    )
    async with installation.lifecycle.client() as client:
        snapshot = await gather_management(client, places)
    items = findings("management", evaluate(snapshot))
    report = Report(subject="the management cluster", examined=SystemClock().now(), items=items)
    return report.model_dump(mode="json", by_alias=True)
