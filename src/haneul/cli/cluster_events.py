"""What happened to a cluster, as tables and as a list that goes on."""

from __future__ import annotations

import time
from typing import Any, Final

from haneul.cli.client import ApiClient
from haneul.cli.output import Column, Format, age, say, show
from haneul.kernel.errors import InvalidInputError, NotFoundError

_LAST: Final = 5
_PAUSE_SECONDS: Final = 2.0

_NAME: Final = Column("NAME", lambda event: event["name"], wide=True)
#: Messages may be long, so nothing stands behind them.
COLUMNS: Final = [
    Column("LAST SEEN", lambda event: age(event["lastSeen"])),
    Column("FIRST SEEN", lambda event: age(event["firstSeen"]), wide=True),
    Column("TYPE", lambda event: event["type"]),
    Column("REASON", lambda event: event["reason"]),
    Column("COUNT", lambda event: str(event["count"])),
    _NAME,
    Column("MESSAGE", lambda event: event["message"]),
]


def last(client: ApiClient, project: str, name: str) -> list[dict[str, Any]]:
    """Return the few events that happened last; none when the cluster went meanwhile."""
    try:
        return _read(client, project, name, _LAST)
    except NotFoundError:
        return []


def show_events(client: ApiClient, project: str, name: str, *, limit: int, watch: bool, output: Format) -> None:
    """Print a cluster's events; with ``watch``, go on with new ones until the cluster is gone."""
    if watch and output not in (Format.TABLE, Format.WIDE, Format.NAME):
        raise InvalidInputError("JSON and YAML are one document", hint="leave '--watch' or '-o' out")
    found = _read(client, project, name, limit)
    show(found, [_NAME] if output is Format.NAME else COLUMNS, output)
    seen = _counts(found)
    while watch:
        time.sleep(_PAUSE_SECONDS)
        try:
            found = _read(client, project, name, limit)
        except NotFoundError:
            say(f"cluster {name} is gone")
            return
        news = [event for event in found if seen.get(event["name"]) != event["count"]]
        if news:
            show(news, [_NAME] if output is Format.NAME else COLUMNS, output, headings=False)
        seen = _counts(found)


def _read(client: ApiClient, project: str, name: str, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/projects/{project}/clusters/{name}/events", limit=limit)["items"]
    return found


def _counts(events: list[dict[str, Any]]) -> dict[str, int]:
    return {event["name"]: event["count"] for event in events}
