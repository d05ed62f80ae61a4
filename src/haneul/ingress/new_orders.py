"""For how many hosts that have no certificate one is ordered within a week. Pure.

A host that is named anew is ordered for at once, and an issuer's limits are for all clusters together: whoever names
hosts in a loop would leave nothing to others. Who is ordered for again is counted once, and renewals are not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Final

#: So many hosts of a cluster, within so long.
MOST_NEW: Final = 100
WINDOW: Final = timedelta(days=7)


def counted(orders: Mapping[str, datetime], now: datetime) -> dict[str, datetime]:
    """Return which of the last orders, by host, count at a moment; what a wrong clock wrote does not."""
    return {host: moment for host, moment in orders.items() if moment - WINDOW < now < _forgotten(moment)}


def held_up(
    hosts: Collection[str], having: Collection[str], orders: Mapping[str, datetime], now: datetime
) -> dict[str, datetime]:
    """Return which hosts have to wait as others had all new orders, and until when.

    ``having`` are those with a certificate, whose orders are renewals; ``orders`` are the last new ones, by host.
    """
    recent = counted(orders, now)
    if len(recent) < MOST_NEW:
        return {}
    goes_on = _forgotten(sorted(recent.values())[-MOST_NEW])
    return {host: goes_on for host in hosts if host not in having and host not in recent}


def _forgotten(moment: datetime) -> datetime:
    """Return until when an order counts: to a full hour, so that hosts are not told another moment with each order."""
    hour = moment.replace(minute=0, second=0, microsecond=0)
    return hour + (timedelta(hours=1) if hour < moment else timedelta()) + WINDOW


def why_held_up(goes_on: datetime) -> str:
    """Return what a host is told that has to wait."""
    return (
        f"pace: hosts of this cluster had all {MOST_NEW} new certificates of {WINDOW.days} days;"
        f" more are given from {goes_on:%Y-%m-%d %H:%M} UTC on"
    )
