"""`haneul check`: clusters held against the CIS Kubernetes Benchmark."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from haneul.cli.client import ApiClient
from haneul.cli.context import Contexts
from haneul.cli.output import Column, Format, say, show
from haneul.kernel.errors import ConflictError, DeadlineExceededError, HaneulError

_PAUSE_SECONDS: Final = 0.5
#: Somebody else's request may take the place of ours, which is then made again.
_ASK_AGAIN_SECONDS: Final = 15.0


class Shown(StrEnum):
    """Which items to show."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    WARN = "warn"
    NOT_APPLICABLE = "not-applicable"


Results = Annotated[
    list[Shown] | None, typer.Option("--only", help="Show only items with this result; may be repeated.")
]


class ItemsFailError(HaneulError):
    """Items of the benchmark fail without a reason that the platform knows."""

    code = "benchmark-items-fail"
    title = "The cluster fails items of the benchmark"
    exit_code = 12


_COLUMNS: Final = [
    Column("ITEM", lambda item: item["id"]),
    Column("RESULT", lambda item: item["result"]),
    Column("ASKS", lambda item: item["title"]),
    Column("CHECKED", lambda item: item["how"], wide=True),
    Column("MEND", lambda item: item["mend"] if item["result"] in ("fail", "warn") else "", wide=True),
    Column("REASON", lambda item: item["reason"], wide=True),
    Column("SEEN", lambda item: item["seen"]),
]


def check_tree(platform: Callable[..., None]) -> typer.Typer:
    """Return the commands; ``platform`` checks the host that it runs on."""
    app = typer.Typer(help="Clusters held against the CIS Kubernetes Benchmark.", no_args_is_help=True)
    app.command("cluster")(check_cluster)
    app.command("platform")(platform)
    return app


def check_cluster(
    name: Annotated[str, typer.Argument(help="Name of the cluster.")],
    project: Annotated[str | None, typer.Option("--project", "-p", help="Project; by default the one in use.")] = None,
    results: Results = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = 90,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")] = Format.TABLE,
) -> None:
    """Hold a cluster against the benchmark: every item, what was seen, and what a person must look at.

    Ends with 0 if no item fails without a known reason, with 12 if one does.

    Examples:

        haneul check cluster shop

        haneul check cluster shop --only fail --only warn -o wide

        haneul check cluster shop -o json
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        report = wait_for_report(client, f"/projects/{owner}/clusters/{name}/benchmark", name, timeout=timeout)
    show_report(report, results, output)


def wait_for_report(client: ApiClient, path: str, name: str, *, timeout: float) -> dict[str, Any]:
    """Ask for a check and return the report that answers it. Raises DeadlineExceededError."""
    asked: str = client.post(path, {})["asked"]
    say(f"waiting for the operator to look at {name}")
    until, again = time.monotonic() + timeout, time.monotonic() + _ASK_AGAIN_SECONDS
    while time.monotonic() < until:
        report = _report(client, path)
        # Requests begin with the moment at which the platform took them.
        if report is not None and report["asked"] >= asked:
            return report
        if time.monotonic() >= again:
            client.post(path, {})
            again = time.monotonic() + _ASK_AGAIN_SECONDS
        time.sleep(_PAUSE_SECONDS)
    raise DeadlineExceededError(
        f"{name} was not checked within {timeout:g} s", hint=f"'haneul cluster get {name}' shows what it waits on"
    )


def show_report(report: dict[str, Any], results: list[Shown] | None, output: Format) -> None:
    """Print a report, then how many items came out how. Raises ItemsFailError if one fails without a reason."""
    items = report["items"]
    wanted = {result.value.replace("-", " ") for result in results or list(Shown)}
    chosen = [item for item in items if item["result"] in wanted]
    if output in (Format.JSON, Format.YAML):
        show([{**report, "items": chosen}], _COLUMNS, output, single=True)
    else:
        show(chosen, _COLUMNS, output)
    counts = Counter(item["result"] for item in items)
    explained = sum(1 for item in items if item["result"] == "fail" and item["reason"])
    say(
        f"{report['subject']}, {report['benchmark']}: {counts['pass']} pass, {counts['fail']} fail "
        f"({explained} of them for a reason: -o wide), {counts['warn']} for a person to look at, "
        f"{counts['not applicable']} not applicable"
    )
    bad = [item["id"] for item in items if item["result"] == "fail" and not item["reason"]]
    if bad:
        raise ItemsFailError(f"{report['subject']} fails {', '.join(bad)}", hint="'-o wide' shows how to mend them")


def _report(client: ApiClient, path: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = client.get(path)
    except ConflictError:
        return None
    return found
