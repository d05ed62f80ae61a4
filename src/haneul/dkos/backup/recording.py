"""Telling the backup worker of a cluster: the operator makes and keeps its record. Level-triggered."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from haneul.dkos.backup.record import NAMESPACE, Access, Record, Standing, record_name, record_of, secret_of
from haneul.dkos.backup.sealing import new_key
from haneul.dkos.etcd_changing import gateways
from haneul.dkos.masters import MadeMasters
from haneul.dkos.model import Cluster
from haneul.kernel.clock import Clock
from haneul.kernel.kube import SECRETS, KubeApiError, KubeClient
from haneul.kernel.pki import KeyPair, LeafProfile, issue_leaf

_PROFILE: Final = LeafProfile("haneul:backup", client=True)


class BackupRecords:
    """The records of all clusters; what this process wrote last is not written again until :meth:`forget`."""

    def __init__(self, client: KubeClient, *, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._written: dict[str, tuple[object, ...]] = {}

    def forget(self, uid: str) -> None:
        """Look at a cluster's record anew at the next call, in case somebody else changed it."""
        self._written.pop(uid, None)

    async def of(self, uid: str) -> Record | None:
        """Return a cluster's record."""
        found = await self._client.get(SECRETS, record_name(uid), NAMESPACE)
        return None if found is None else record_of(found)

    async def follow(self, cluster: Cluster, made: MadeMasters) -> None:
        """Have the worker back a running cluster up."""
        urls = gateways(made)
        authority, trusted = made.keyring.issuer("etcd"), made.keyring.trusted("etcd")
        inputs = (cluster.spec, made.keyring.encryption_keys, urls, authority.certificate, trusted)
        if self._written.get(cluster.uid) == inputs:
            return
        kept = await self.of(cluster.uid)
        access = kept.access if kept is not None else None
        now = self._clock.now()
        fits = access is not None and (access.urls, access.authority) == (urls, trusted)
        if access is None or not fits or KeyPair(access.certificate, access.key).needs_renewal(now):
            leaf = issue_leaf(authority, _PROFILE, now=now)
            access = Access(urls, trusted, leaf.certificate, leaf.key)
        record = Record(
            uid=cluster.uid,
            project=cluster.project,
            name=cluster.name,
            standing=Standing.FOLLOWED,
            key=kept.key if kept is not None else new_key(),
            sealing_keys={name: key.decode() for name, key in made.keyring.encryption_keys},
            spec=cluster.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
            access=access,
        )
        if kept is None:
            await self._create(record)
        elif record != kept:
            await self._client.apply(SECRETS, secret_of(record))
        self._written[cluster.uid] = inputs

    async def rest(self, cluster: Cluster) -> None:
        """Have the worker wait until the cluster wakes."""
        if self._written.get(cluster.uid) == (Standing.ASLEEP,):
            return
        kept = await self.of(cluster.uid)
        if kept is not None and kept.standing is not Standing.ASLEEP:
            await self._client.apply(SECRETS, secret_of(replace(kept, standing=Standing.ASLEEP)))
        self._written[cluster.uid] = (Standing.ASLEEP,)

    async def end(self, cluster: Cluster) -> None:
        """Have the worker keep what it has of a deleted cluster, for a time; nothing can be reached any more."""
        kept = await self.of(cluster.uid)
        if kept is not None and kept.standing is not Standing.DELETED:
            ended = replace(kept, standing=Standing.DELETED, access=None, deleted=self._clock.now())
            # A merge patch, for applying takes away only what was applied by the same name before.
            data = dict.fromkeys(secret_of(kept)["data"]) | secret_of(ended)["data"]
            await self._client.patch(SECRETS, record_name(cluster.uid), {"data": data}, NAMESPACE)
        self.forget(cluster.uid)

    async def _create(self, record: Record) -> None:
        try:
            await self._client.create(SECRETS, secret_of(record))
        except KubeApiError as error:
            if error.reason != "AlreadyExists":
                raise
            # Another process was first, and its key is the cluster's; the next look goes on with it.
