"""Waiting for a cluster with its stages in sight, fed by the platform's own events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from haneul.cli.client import ApiClient
from haneul.cli.output import say
from haneul.cli.progress import TerminalProgress
from haneul.kernel.errors import DeadlineExceededError, InvalidInputError, NotFoundError, UnavailableError

_STAGES = {
    "Accepted": "accept the request",
    "ControlPlaneReady": "start the masters",
    "ApiAnswers": "wait for the API server to answer",
    "NetworkReady": "connect the first node",
    "NodesReady": "join the nodes",
    "AuthoritiesCurrent": "replace the authorities",
}


def describe(cluster: dict[str, Any]) -> str:
    """Return what a cluster waits on; nothing when it waits on nothing."""
    if cluster["status"]["lookAnswered"] != cluster["lookRequested"]:
        return "waiting for the operator to look at it"
    for condition in cluster["status"]["conditions"]:
        if condition["status"] != "True":
            return str(condition["message"] or _STAGES.get(condition["type"], condition["type"]))
    return "" if cluster["status"]["conditions"] else "waiting for the operator"


def is_settled(cluster: dict[str, Any]) -> bool:
    """Say whether what is seen is what was asked for last."""
    status = cluster["status"]
    return (
        status["observedGeneration"] == cluster["generation"]
        and status["lookAnswered"] == cluster["lookRequested"]
        and bool(status["conditions"])
        and all(condition["status"] == "True" for condition in status["conditions"])
    )


def wait_ready(client: ApiClient, project: str, name: str, *, timeout: float) -> dict[str, Any]:
    """Return the cluster once it is as asked. Raises DeadlineExceededError, saying what it waited on.

    Who interrupts the wait is told how to come back to it.
    """
    progress = TerminalProgress()
    deadline = time.monotonic() + timeout
    last: dict[str, Any] = {}
    with _resumable(project, name), progress.stage(f"cluster {name}", expected_seconds=12) as stage:
        while time.monotonic() < deadline:
            try:
                kind: str
                cluster: dict[str, Any]
                for kind, cluster in client.events(f"/projects/{project}/clusters", name=name):
                    if kind == "deleted":
                        raise NotFoundError(f"{name} was deleted while it was waited for")
                    last = cluster
                    _refuse_if_refused(cluster)
                    if is_settled(cluster):
                        return cluster
                    stage.note(describe(cluster))
                    if time.monotonic() >= deadline:
                        break
            except UnavailableError:
                # The stream ends with the API's own restarts; the cluster does not mind, so go on.
                time.sleep(0.5)
    waited_on = describe(last) if last else "the platform to tell of it"
    raise DeadlineExceededError(
        f"{name} is not ready after {timeout:.0f} s: {waited_on}",
        hint=f"it goes on by itself; look with 'haneul cluster get {name} -p {project}'",
    )


def wait_gone(client: ApiClient, project: str, name: str, *, timeout: float) -> None:
    """Return once the cluster and all that was made for it are gone."""
    deadline = time.monotonic() + timeout
    with TerminalProgress().stage(f"delete cluster {name}", expected_seconds=10):
        while time.monotonic() < deadline:
            try:
                client.get(f"/projects/{project}/clusters/{name}")
            except NotFoundError:
                return
            time.sleep(0.3)
    raise DeadlineExceededError(
        f"{name} is not gone after {timeout:.0f} s", hint="it goes on by itself; look with 'haneul cluster list'"
    )


@contextlib.contextmanager
def _resumable(project: str, name: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say(f"\nThe platform goes on. Come back with: haneul cluster get {name} -p {project} --wait")
        raise


def _refuse_if_refused(cluster: dict[str, Any]) -> None:
    for condition in cluster["status"]["conditions"]:
        if condition["reason"] == "SpecRefused":
            raise InvalidInputError(condition["message"], hint="delete the cluster and create it anew")
