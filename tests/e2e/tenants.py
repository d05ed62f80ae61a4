"""A tenant's side: clusters as their users see them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from haneul.app.demo import cluster_access
from haneul.app.installation import Installation
from haneul.cli.context import Contexts
from haneul.kernel.kube import CONFIG_MAPS, NAMESPACES, PERSISTENT_VOLUMES, PODS, SERVICES, KubeClient
from haneul.kernel.kube_http import HttpKubeClient
from tests.support import haneul

PROJECT = "tests"


@asynccontextmanager
async def tenant(name: str, project: str = PROJECT) -> AsyncIterator[HttpKubeClient]:
    """A cluster's own API, with a credential as any user gets it."""
    with Contexts.default().client() as client:
        access = await cluster_access(client, project, name)
    async with HttpKubeClient(access) as kube:
        yield kube


def cluster(name: str, project: str = PROJECT) -> dict[str, Any]:
    """Return a cluster as the command line shows it."""
    seen: dict[str, Any] = json.loads(haneul("cluster", "get", name, "-p", project, "-o", "json").stdout)
    return seen


def happened(name: str, reason: str, words: str = "", project: str = PROJECT) -> Callable[[], Awaitable[bool]]:
    """Return what says whether an event with this reason, and these words in its message, was told of a cluster."""

    async def told() -> bool:
        shown = await asyncio.to_thread(haneul, "cluster", "events", name, "-p", project, "-o", "json")
        return any(entry["reason"] == reason and words in entry["message"] for entry in json.loads(shown.stdout))

    return told


def remains_of(uid: str, name: str, installation: Installation) -> list[str]:
    """Return what is left of a cluster after its deletion. Not inside a running loop."""

    async def look() -> list[str]:
        async with installation.lifecycle.client() as management:
            found = [
                namespace
                for namespace in (f"cluster-{PROJECT}-{name}", f"nodes-{PROJECT}-{name}")
                if await management.get(NAMESPACES, namespace) is not None
            ]
            labels = f"dkos.haneul.dev/cluster={uid}"
            volumes = await management.list(PERSISTENT_VOLUMES, labels=labels)
            records = await management.list(CONFIG_MAPS, "haneul-waker", labels=labels)
            return found + [kept["metadata"]["name"] for kept in (*volumes, *records)]

    data: Path = installation.settings.clusters / uid
    return asyncio.run(look()) + ([str(data)] if data.exists() else [])


async def kubectl(installation: Installation, name: str, *arguments: str) -> tuple[int, str]:
    """Run kubectl against a tenant's cluster with the kubeconfig that a user gets; return status and output."""
    kubeconfig = installation.settings.state / f"test-{name}.kubeconfig"
    if not kubeconfig.exists():
        await asyncio.to_thread(haneul, "cluster", "kubeconfig", name, "-p", PROJECT, "--file", str(kubeconfig))
    process = await asyncio.create_subprocess_exec(
        str(installation.store.program("kubectl")),
        f"--kubeconfig={kubeconfig}",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(30):
            output, _ = await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    return process.returncode or 0, output.decode()


async def connect(installation: Installation, name: str, pod: str, target: str, *, seconds: int) -> tuple[int, str]:
    """Open a connection to ``address:port`` from a pod of a cluster; return status, 0 if it came about, and output."""
    return await kubectl(installation, name, "exec", pod, "--", "/agnhost", "connect", f"--timeout={seconds}s", target)


async def to_meet(kube: KubeClient) -> tuple[list[str], list[str]]:
    """Return the workload's pods, on two nodes, and what each reaches: all of them, their service and the API."""
    pods = [pod for pod in await kube.list(PODS, "default") if pod["metadata"]["labels"].get("app") == "web"]
    service = await kube.get(SERVICES, "web", "default")
    kubernetes = await kube.get(SERVICES, "kubernetes", "default")
    assert service is not None and kubernetes is not None
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    targets = [f"{pod['status']['podIP']}:8080" for pod in pods]
    targets += [f"{service['spec']['clusterIP']}:80", f"{kubernetes['spec']['clusterIP']}:443"]
    return [pod["metadata"]["name"] for pod in pods], targets
