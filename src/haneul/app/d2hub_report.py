"""Tells a hub which images a cluster runs: pods of the one, whole reports to the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from haneul.cli.hub import HubClient, HubContext, HubContexts, parse_hub_url
from haneul.cli.input import read_secret_file
from haneul.d2hub.inventory import Running, parse_cluster
from haneul.d2hub.names import project_of
from haneul.d2hub.reporting import running_in
from haneul.kernel.ending import told_to_end
from haneul.kernel.errors import HaneulError, InvalidInputError
from haneul.kernel.kube import KubeClient
from haneul.kernel.kube_http import HttpKubeClient, access_from_kubeconfig, access_in_cluster

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ReportSettings:
    """Which cluster is reported to which hub; without a hub, to the one that the caller has signed in to."""

    cluster: str
    kubeconfig: Path | None = None
    hub: str = ""
    user: str = ""
    secret_file: Path | None = None
    authority: Path | None = None

    def __post_init__(self) -> None:
        parse_cluster(self.cluster)
        if bool(self.user) != (self.secret_file is not None):
            raise InvalidInputError(
                "a user and a secret belong together", hint="give --user and --secret-file, or neither"
            )
        if not self.hub and (self.user or self.authority):
            raise InvalidInputError("--user and --ca are for a hub that is named", hint="name it with --hub")

    def client(self) -> HubClient:
        """Return a client of the hub; its secret is read now, as it may be another one than before."""
        if not self.hub:
            return HubContexts.default().client()
        secret = read_secret_file(self.secret_file) if self.secret_file else ""
        return HubClient(HubContext(parse_hub_url(self.hub), self.user, self.authority), secret)

    def kube(self) -> HttpKubeClient:
        """Return a client of the cluster. Raises InvalidInputError if it would come as nobody."""
        try:
            access = access_in_cluster() if self.kubeconfig is None else access_from_kubeconfig(self.kubeconfig)
        except OSError as error:
            raise InvalidInputError(
                "this does not run in a cluster", hint="name the cluster's kubeconfig with --kubeconfig"
            ) from error
        if not access.client_certificate and not access.token_file:
            raise InvalidInputError(
                f"{self.kubeconfig} has no client certificate", hint="programs that give credentials are not run here"
            )
        return HttpKubeClient(access, user_agent="haneul-d2hub-report")


async def report_once(settings: ReportSettings) -> int:
    """Report, and return how many images of workloads run. Raises what the cluster or the hub refuses."""
    async with settings.kube() as kube:
        return await reported(kube, settings.client, settings.cluster)


async def report_without_end(settings: ReportSettings, every: timedelta) -> None:
    """Report until SIGTERM or SIGINT. What fails is logged, and tried again with the next turn."""
    if every <= timedelta(0):
        raise InvalidInputError("--every is no time", hint="write 60s")
    ended = told_to_end()
    while not ended.is_set():
        try:
            entries = await report_once(settings)
            _log.info("reported", cluster=settings.cluster, entries=entries)
        except HaneulError as error:
            _log.warning("no report; the last one holds", cluster=settings.cluster, code=error.code, why=error.detail)
        try:
            async with asyncio.timeout(every.total_seconds()):
                await ended.wait()
        except TimeoutError:
            continue


async def reported(kube: KubeClient, client: Callable[[], HubClient], cluster: str) -> int:
    """Make a report of a cluster and send it; return how many entries it has."""
    running = await running_in(kube)
    await tell(running, client, cluster)
    return len(running)


async def tell(running: Iterable[Running], client: Callable[[], HubClient], cluster: str) -> None:
    """Send a cluster's report."""
    body: dict[str, Any] = {"images": [asdict(one) for one in sorted(running)]}

    def send() -> None:
        with client() as hub:
            hub.put(f"inventory/{cluster}", body, scope=f"repository:{project_of(cluster)}:push")

    await asyncio.to_thread(send)
