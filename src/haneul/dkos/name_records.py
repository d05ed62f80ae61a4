"""Telling names' controllers of a cluster: the operator makes and keeps its record. Level-triggered."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from haneul.dkos.masters import MadeMasters
from haneul.dkos.model import Cluster
from haneul.dkos.name_record import NAMESPACE, NameRecord, Standing, record_name, record_of, secret_of
from haneul.dkos.naming import PUBLISHERS, Naming
from haneul.kernel.clock import Clock
from haneul.kernel.kube import SECRETS, KubeAccess, KubeClient
from haneul.kernel.pki import KeyPair, LeafProfile, issue_leaf

_PROFILE: Final = LeafProfile("haneul:names", (PUBLISHERS,), client=True)


class NameRecords:
    """The records of all clusters; what this process wrote last is not written again until :meth:`forget`."""

    def __init__(self, client: KubeClient, naming: Naming, *, clock: Clock) -> None:
        self._client = client
        self.naming = naming
        self._clock = clock
        self._written: dict[str, tuple[object, ...]] = {}

    def forget(self, uid: str) -> None:
        """Look at a cluster's record anew at the next call, in case somebody else changed it."""
        self._written.pop(uid, None)

    async def follow(self, cluster: Cluster, made: MadeMasters) -> None:
        """Have a running cluster's names published."""
        url, authority = made.endpoints.inside, made.keyring.issuer("cluster")
        trusted = made.keyring.trusted("cluster")
        inputs = (url, authority.certificate, trusted)
        if self._written.get(cluster.uid) == inputs:
            return
        kept = await self._of(cluster.uid)
        access = kept.access if kept is not None else None
        now = self._clock.now()
        fits = access is not None and (access.server, access.authority) == (url, trusted)
        if access is None or not fits or KeyPair(access.client_certificate, access.client_key).needs_renewal(now):
            leaf = issue_leaf(authority, _PROFILE, now=now)
            access = KubeAccess(url, trusted, leaf.certificate, leaf.key)
        record = NameRecord(
            cluster.uid,
            cluster.project,
            cluster.name,
            self.naming.domain(cluster),
            Standing.FOLLOWED,
            access,
            (str(cluster.spec.network.pods), str(cluster.spec.network.services)),
        )
        if record != kept:
            await self._client.apply(SECRETS, secret_of(record))
        self._written[cluster.uid] = inputs

    async def rest(self, cluster: Cluster) -> None:
        """Have names left as they are, and nobody ask the cluster's API, which would wake it."""
        if self._written.get(cluster.uid) == (Standing.ASLEEP,):
            return
        kept = await self._of(cluster.uid)
        if kept is not None and kept.standing is not Standing.ASLEEP:
            await self._client.apply(SECRETS, secret_of(replace(kept, standing=Standing.ASLEEP)))
        self._written[cluster.uid] = (Standing.ASLEEP,)

    async def end(self, cluster: Cluster) -> None:
        """Have a deleted cluster's names withdrawn; its API cannot be reached any more."""
        kept = await self._of(cluster.uid)
        if kept is not None and kept.standing is not Standing.DELETED:
            await self._client.apply(SECRETS, secret_of(replace(kept, standing=Standing.DELETED, access=None)))
        self.forget(cluster.uid)

    async def _of(self, uid: str) -> NameRecord | None:
        found = await self._client.get(SECRETS, record_name(uid), NAMESPACE)
        return None if found is None else record_of(found)
