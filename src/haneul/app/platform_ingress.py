"""What the platform's ingress serves, cluster by cluster, and what is wrong with it: for people on its host."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haneul.app.audit_switch import AuditSwitch
from haneul.app.ingress import problems_of, read_manifests, rows_of, seen_of, taken, with_certificates
from haneul.app.ingress_hosts import GrantedHosts
from haneul.app.ingress_worker import ClusterHosts, gate_of, grantee, issuer_of
from haneul.dkos.cluster_record import ClusterRecord, Standing, record_of
from haneul.dkos.readers import INGRESS
from haneul.ingress.model import Routes
from haneul.ingress.observed import Observed
from haneul.ingress.options import Options
from haneul.ingress.routes import compile_routes, hosts_asked_for
from haneul.ingress.settings import IngressSettings
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import InvalidInputError, NotFoundError
from haneul.kernel.kube import SECRETS
from haneul.kernel.kube_http import HttpKubeClient, access_from_kubeconfig
from haneul.management.ingress_host import IngressFiles
from haneul.management.settings import ManagementSettings


@dataclass(frozen=True)
class PlatformIngress:
    """The ingress of this host's platform."""

    settings: ManagementSettings

    @property
    def granted(self) -> GrantedHosts:
        """Return the hosts that clusters were granted."""
        return GrantedHosts(IngressFiles(self.settings.state).hosts, zone=self.settings.zone)

    @property
    def audit(self) -> AuditSwitch:
        """Return which clusters have an audit trail."""
        return AuditSwitch(IngressFiles(self.settings.state).audit_switch)

    async def grant(self, host: str, owner: str) -> None:
        """Let the cluster that is ``PROJECT/CLUSTER`` now serve a host. Raises NotFoundError if there is none."""
        (record,) = await self._records(owner)
        self.granted.adopt(grantee(record))
        self.granted.grant(host, grantee(record))

    async def listed(self, owner: str) -> list[dict[str, Any]]:
        """Return what is served, of one cluster (``PROJECT/CLUSTER``) or of all that are awake."""
        rows = []
        async for record, observed in self._looked_at(owner):
            routes = await self._routes(record, observed)
            # Whichever host brings no certificate has one of the platform's.
            rows += [{**_of(record), **row, "tls": row["host"] != "*"} for row in rows_of(routes, observed)]
        return rows

    async def checked(self, owner: str, manifests: Iterable[Path]) -> list[dict[str, Any]]:
        """Return what is wrong with objects, or would be with those in files if ``owner`` had them."""
        files = list(manifests)
        if not files:
            return [
                {**_of(record), **row}
                async for record, observed in self._looked_at(owner)
                for row in problems_of(await self._routes(record, observed), of_files=False)
            ]
        if not owner:
            raise InvalidInputError(
                "whose hosts the files may name depends on the cluster", hint="--cluster PROJECT/CLUSTER names it"
            )
        (record,) = await self._records(owner)
        routes = await self._routes(record, read_manifests(files))
        with tempfile.TemporaryDirectory(prefix="haneul-ingress-") as folder:
            gate = {"url": f"http://127.0.0.1:{self.settings.gate_port}"}
            settings = IngressSettings.model_validate(
                {"cluster": record.name, "kubeconfig": "", "folder": folder, "gate": gate}
            )
            await taken(settings, Path(folder), routes)
        return [{**_of(record), **row} for row in problems_of(routes, of_files=True)]

    async def _looked_at(self, owner: str) -> AsyncIterator[tuple[ClusterRecord, Observed]]:
        for record in await self._records(owner):
            # Who asks a cluster that sleeps wakes it.
            if record.access is not None and record.standing is Standing.FOLLOWED:
                async with HttpKubeClient(record.access, user_agent=INGRESS.name) as client:
                    yield record, await seen_of(client)

    async def _records(self, owner: str) -> list[ClusterRecord]:
        async with self._management() as client:
            found = await client.list(SECRETS, INGRESS.name, labels=INGRESS.record_labels)
        records = [record for secret in found if (record := record_of(secret)) and record.standing != Standing.DELETED]
        wanted = [record for record in records if owner in ("", record.cluster)]
        if owner and not wanted:
            raise NotFoundError(f"no cluster {owner} has ingress", hint="name it as PROJECT/CLUSTER, as it runs")
        return sorted(wanted, key=lambda record: (record.project, record.name))

    async def _routes(self, record: ClusterRecord, observed: Observed) -> Routes:
        refused = await ClusterHosts(record, self.granted).refused(hosts_asked_for(observed))
        files, now = IngressFiles(self.settings.state), SystemClock().now()
        issuer = issuer_of(files)
        options = Options(
            gate=gate_of(self.settings) is not None,
            refused_hosts=refused,
            addresses=(record.address,),
            supplied=True,
            issuer=issuer is not None,
            by_itself=issuer.names if issuer else None,
        )
        if issuer:
            options = with_certificates(options, issuer.store(files.certificates / record.uid), observed, now)
        return compile_routes(observed, options, now)

    @asynccontextmanager
    async def _management(self) -> AsyncIterator[HttpKubeClient]:
        if not self.settings.admin_kubeconfig.is_file():
            raise InvalidInputError(
                "there is no platform on this host, or only root sees it",
                hint="--config names the file of one cluster's ingress; 'haneul up' starts a platform",
            )
        async with HttpKubeClient(access_from_kubeconfig(self.settings.admin_kubeconfig)) as client:
            yield client


def _of(record: ClusterRecord) -> dict[str, str]:
    return {"cluster": record.cluster, "address": record.address}
