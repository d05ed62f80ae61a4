"""Whether what the API reports is about now: pure comparisons of its objects with what runs.

After a cut of power the API server remembers everything as ready until the kubelet and the controllers, started again
themselves, have looked. An `up` that believed it would go on too early.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from haneul.kernel.kube import Manifest, is_ready


def running_tasks(listing: str) -> frozenset[str]:
    """Return the ids of the containers that run, from what ``ctr tasks list`` printed."""
    rows = (line.split() for line in listing.splitlines())
    return frozenset(words[0] for words in rows if len(words) == 3 and words[2] == "RUNNING")


def outdated_pods(pods: Sequence[Manifest], *, host: str, running: Collection[str]) -> list[str]:
    """Return pods of ``host`` that are reported with a running container which is not among those ``running``."""
    return [
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        for pod in pods
        if pod.get("spec", {}).get("nodeName") == host
        and any(
            "running" in status.get("state", {}) and status.get("containerID", "").rpartition("/")[2] not in running
            for status in pod.get("status", {}).get("containerStatuses", [])
        )
    ]


def replaced(pod: Manifest | None, static: Manifest) -> bool:
    """Say whether a static pod runs as its manifest says; ``pod`` is its mirror in the API.

    The kubelet takes the mirror of the former pod away only after that has ended. No mirror says nothing to the
    contrary: it comes after the pod has started.
    """

    def commands(thing: Manifest) -> list[list[str]]:
        return [entry.get("command", []) for entry in thing["spec"]["containers"]]

    return pod is None or commands(pod) == commands(static)


def outdated_counts(owners: Sequence[Manifest], pods: Sequence[Manifest]) -> list[str]:
    """Return Deployments and DaemonSets that report another number of ready pods than there are."""
    found = []
    for owner in owners:
        status = owner.get("status", {})
        reported = status.get("readyReplicas", status.get("numberReady", 0))
        wanted = owner["spec"]["selector"].get("matchLabels", {})
        namespace = owner["metadata"]["namespace"]
        matching = [
            pod
            for pod in pods
            if pod["metadata"]["namespace"] == namespace and wanted.items() <= pod["metadata"].get("labels", {}).items()
        ]
        if reported != sum(is_ready(pod) for pod in matching):
            found.append(f"{namespace}/{owner['metadata']['name']}")
    return found
