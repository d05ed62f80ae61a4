"""One cluster's restore, as its controller keeps it: a table of steps, each seen from the status, each to be repeated.

========  ========================================================================================  ==========
state     what is done                                                                              becomes
========  ========================================================================================  ==========
None      the data is made from the backup, beside what runs; a backup that cannot give it changes  Prepared,
          nothing                                                                                   or Failed
Prepared  the API server ends, then etcd; then the data is put in place, the old data aside; what   Placed,
          fails there is tried again, for nobody knows how far it came                              or Failed
Placed    the masters run again, and when they are ready and the API answers, the old data is       Done
          deleted; whoever sees that it is the wrong moment asks for another one meanwhile
========  ========================================================================================  ==========

Nodes that the restored state does not know are made anew. That may take as long as it likes: a machine that nobody
reaches, or that nobody lets in, holds no restore up.

What touches files runs as Jobs in the backup worker's namespace, each with exactly this member's folder. Neighbours:
:mod:`haneul.dkos.backup.placing` is what the Jobs do, :mod:`haneul.dkos.controller` looks here before anything else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from haneul.dkos.backup.record import NAMESPACE
from haneul.dkos.backup.recording import BackupRecords
from haneul.dkos.control_plane import CLUSTER_LABEL, ROLE_LABEL, hosts_of
from haneul.dkos.etcd_slots import FOUNDER, PEER_PORT, slot_of, volume_name
from haneul.dkos.events import Tell, restore_began, restore_failed, restored
from haneul.dkos.hibernation import Level
from haneul.dkos.masters import Masters
from haneul.dkos.model import (
    NEVER,
    Cluster,
    ClusterStatus,
    NodeProviderName,
    RestoreState,
    RestoreStatus,
)
from haneul.dkos.ports import NodeProvider, ProvidedNode
from haneul.dkos.restore_jobs import RestoreSettings, end_jobs, job_name, restore_job
from haneul.dkos.states import restoring_status, serves
from haneul.kernel.kube import JOBS, PERSISTENT_VOLUMES, PODS, KubeClient, Manifest, is_true

_PLACE_WAIT_FIRST: Final = timedelta(seconds=10)
_PLACE_WAIT_LAST: Final = timedelta(minutes=5)


@dataclass(frozen=True)
class Outcome:
    """How a Job ended: what it says, or why it refused, or that it failed without a word; nothing while it works."""

    said: Mapping[str, Any] | None = None
    refused: str = ""
    failed: bool = False

    @property
    def why(self) -> str:
        """Return why it did not do what it was to do; nothing if it did or works."""
        return self.refused or ("its Job failed; look at the operator's log" if self.failed else "")


class Restoring:
    """The restore of one cluster."""

    def __init__(
        self,
        management: KubeClient,
        *,
        masters: Masters,
        providers: Mapping[NodeProviderName, NodeProvider],
        records: BackupRecords,
        settings: RestoreSettings,
        tell: Tell,
    ) -> None:
        self._management = management
        self._masters = masters
        self._providers = providers
        self._records = records
        self._settings = settings
        self._tell = tell
        #: When data that could not be put in place is tried again, and how long after that.
        self._place_again = NEVER
        self._place_wait = _PLACE_WAIT_FIRST

    async def look(self, cluster: Cluster, now: datetime) -> ClusterStatus:
        """Bring a restore that is due one step further; the status says which."""
        seen = _seen(cluster, now)
        if seen.state is RestoreState.FAILED:
            return restoring_status(cluster, seen, "RestoreFailed", seen.message, now)
        if seen.state is RestoreState.NONE:
            return await self._prepare(cluster, seen, now)
        return await self._place(cluster, seen, now)

    async def _prepare(self, cluster: Cluster, seen: RestoreStatus, now: datetime) -> ClusterStatus:
        request = cluster.spec.restore
        if cluster.status.restore.number != request.number:
            if not await end_jobs(self._management, cluster, kept=request.number):
                # The last job of the restore before deletes what this one's would make.
                return restoring_status(cluster, cluster.status.restore, "Preparing", "its last jobs end", now)
            self._tell(cluster, restore_began())
        if not request.source and not await self._has_its_founder_alone(cluster):
            why = "it has or had other etcd members than its first one; restore it as a new cluster (--as NEW)"
            return await self._failed(cluster, seen, why, now)
        if request.source:
            # Nothing of it runs before it has its data; its place and its keys are there.
            made = await self._masters.ensure(cluster, Level.NOTHING)
            await self._records.follow(cluster, made)
            source = await self._records.of(request.source)
            if source is None or source.project != cluster.project:
                return await self._failed(cluster, seen, "that backup is not there", now)
        outcome = await self._job(cluster, "prepare")
        if outcome.why:
            return await self._failed(cluster, seen, outcome.why, now)
        if outcome.said is None:
            return restoring_status(cluster, seen, "Preparing", "the data is being made from the backup", now)
        update = {
            "state": RestoreState.PREPARED,
            "revision": outcome.said.get("revision", 0),
            "keys": outcome.said.get("keys", 0),
            "prepare_seconds": outcome.said.get("seconds", 0.0),
        }
        return restoring_status(cluster, seen.model_copy(update=update), "Prepared", "the masters end", now)

    async def _failed(self, cluster: Cluster, seen: RestoreStatus, why: str, now: datetime) -> ClusterStatus:
        """A restore in place that cannot be is given up, and the cluster goes on; a new cluster stays without data."""
        # Pods of what was given up would count as something of the cluster that still runs.
        await end_jobs(self._management, cluster)
        self._tell(cluster, restore_failed(why))
        failed = seen.model_copy(update={"state": RestoreState.FAILED, "message": why})
        return restoring_status(cluster, failed, "RestoreFailed", why, now)

    async def _place(self, cluster: Cluster, seen: RestoreStatus, now: datetime) -> ClusterStatus:
        running = await self._masters_left(cluster)
        if "kube-apiserver" in running:
            # While etcd takes its last writes, which the backup still gets.
            await self._masters.ensure(cluster, Level.ETCD)
            return restoring_status(cluster, seen, "ApiEnding", "waiting for the API server to end", now)
        await self._masters.ensure(cluster, Level.NOTHING)
        if "etcd" in running:
            return restoring_status(cluster, seen, "EtcdEnding", "waiting for etcd to end", now)
        outcome = Outcome() if now < self._place_again else await self._job(cluster, "place")
        if outcome.refused:
            return await self._failed(cluster, seen, outcome.refused, now)
        if outcome.failed:
            # It may have come anywhere: to give it up now could begin an empty cluster.
            self._place_again = now + self._place_wait
            self._place_wait = min(2 * self._place_wait, _PLACE_WAIT_LAST)
        if now < self._place_again:
            words = "the data could not be put in place, which is tried again; look at the member's host"
            return restoring_status(cluster, seen, "PlacingFailed", words, now)
        if outcome.said is None:
            return restoring_status(cluster, seen, "Placing", "the data is being put in place", now)
        placed = seen.model_copy(update={"state": RestoreState.PLACED, "placed": now})
        return restoring_status(cluster, placed, "Placed", "the masters start", now)

    async def replace_lost(
        self, cluster: Cluster, wanted: Sequence[str], provided: Sequence[ProvidedNode], nodes: Sequence[Manifest]
    ) -> None:
        """Have machines made anew whose nodes the restored state does not know.

        A kubelet registers only when it starts.
        """
        seen = cluster.status.restore
        if seen.placed == NEVER:
            return
        known = {node["metadata"]["name"] for node in nodes}
        provider_of = {name: pool.provider for pool in cluster.spec.node_pools for name in pool.node_names}
        for machine in provided:
            is_older = machine.started is not None and machine.started < seen.placed
            if machine.name in wanted and machine.name not in known and is_older:
                await self._providers[provider_of[machine.name]].remove(cluster, machine.name)

    async def settle(self, cluster: Cluster, status: ClusterStatus) -> ClusterStatus:
        """Delete what was replaced once the masters serve what was restored; nodes may take longer, or never come."""
        seen = status.restore
        if seen.state is not RestoreState.PLACED or not serves(status):
            return status
        outcome = await self._job(cluster, "clear")
        if outcome.said is None and not outcome.why:
            return status
        await end_jobs(self._management, cluster)
        self._tell(cluster, restored(seen.revision))
        return status.model_copy(update={"restore": seen.model_copy(update={"state": RestoreState.DONE})})

    async def _has_its_founder_alone(self, cluster: Cluster) -> bool:
        """Say whether etcd is the member that began the cluster: others would go on with the old state."""
        volumes = await self._management.list(PERSISTENT_VOLUMES, labels=f"{CLUSTER_LABEL}={cluster.uid}")
        return all(slot.index == 0 and slot.member == FOUNDER for slot in (slot_of(one, "") for one in volumes))

    async def _masters_left(self, cluster: Cluster) -> set[str]:
        pods = await self._management.list(PODS, cluster.masters_namespace, labels=f"{CLUSTER_LABEL}={cluster.uid}")
        return {pod["metadata"]["labels"].get(ROLE_LABEL, "") for pod in pods}

    async def _job(self, cluster: Cluster, step: str) -> Outcome:
        """Have a step's Job run once; return how it ended."""
        name = job_name(cluster, step)
        job = await self._management.get(JOBS, name, NAMESPACE)
        if job is None:
            volume = await self._management.get(PERSISTENT_VOLUMES, volume_name(cluster.uid, 0))
            if volume is None:
                return Outcome()
            url = f"https://{await self._masters.etcd_address(cluster)}:{PEER_PORT}"
            await self._management.apply(JOBS, restore_job(cluster, step, hosts_of(volume)[0], url, self._settings))
            return Outcome()
        if is_true(job, "Failed"):
            said = await self._said(name)
            await self._management.delete(JOBS, name, NAMESPACE)
            return Outcome(refused=str(said.get("refused", "")), failed=True)
        if not is_true(job, "Complete"):
            return Outcome()
        said = await self._said(name)
        if said.get("refused"):
            await self._management.delete(JOBS, name, NAMESPACE)
            return Outcome(refused=str(said["refused"]))
        return Outcome(said=said)

    async def _said(self, job: str) -> Mapping[str, Any]:
        """Return what the Job's last program left as its message."""
        for pod in reversed(await self._management.list(PODS, NAMESPACE, labels=f"batch.kubernetes.io/job-name={job}")):
            for container in pod.get("status", {}).get("containerStatuses", []):
                message = container.get("state", {}).get("terminated", {}).get("message", "")
                try:
                    found = json.loads(message)
                except ValueError:
                    continue
                if isinstance(found, dict):
                    return found
        return {}


def _seen(cluster: Cluster, now: datetime) -> RestoreStatus:
    seen, number = cluster.status.restore, cluster.spec.restore.number
    # Machines that the last restore left without a node are still to be made anew, should this one be given up.
    return seen if seen.number == number else RestoreStatus(number=number, began=now, placed=seen.placed)
