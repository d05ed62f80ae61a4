"""Telling readers of a cluster: the operator makes and keeps its record for each of them. Level-triggered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from haneul.dkos.address_claims import given_address
from haneul.dkos.cluster_record import ClusterRecord, Standing, record_of, secret_of
from haneul.dkos.credentials import public_token_keys
from haneul.dkos.masters import MadeMasters
from haneul.dkos.model import Cluster
from haneul.dkos.naming import Naming
from haneul.dkos.ports import ProvidedNode
from haneul.dkos.readers import Reader
from haneul.kernel.clock import Clock
from haneul.kernel.kube import SECRETS, KubeAccess, KubeClient
from haneul.kernel.pki import KeyPair, LeafProfile, issue_leaf


class ClusterRecords:
    """The records of all clusters; what this process wrote last is not written again until :meth:`forget`."""

    def __init__(
        self, client: KubeClient, readers: Sequence[Reader] = (), *, naming: Naming | None = None, clock: Clock
    ) -> None:
        """Without a ``naming``, clusters have no domains."""
        self._client = client
        self.readers = tuple(readers)
        self.naming = naming
        self._clock = clock
        self._written: dict[str, tuple[object, ...]] = {}
        self._nodes: dict[str, tuple[str, ...]] = {}

    def forget(self, uid: str) -> None:
        """Look at a cluster's records anew at the next call, in case somebody else changed them."""
        self._written.pop(uid, None)
        self._nodes.pop(uid, None)

    async def follow(self, cluster: Cluster, made: MadeMasters, machines: Iterable[ProvidedNode] = ()) -> None:
        """Have a running cluster worked for."""
        keyring = made.keyring
        inputs = (
            made.endpoints.inside,
            keyring.issuer("cluster").certificate,
            keyring.trusted("cluster"),
            keyring.token_keys,
        )
        if self._written.get(cluster.uid) == inputs:
            return
        nodes = addresses(machines)
        for reader in self.readers:
            await self._follow(reader, cluster, made, nodes if reader.nodes else ())
        self._written[cluster.uid], self._nodes[cluster.uid] = inputs, nodes

    async def _follow(self, reader: Reader, cluster: Cluster, made: MadeMasters, nodes: tuple[str, ...]) -> None:
        url, trusted = made.endpoints.inside, made.keyring.trusted("cluster")
        kept = await self._of(reader, cluster.uid)
        access = kept.access if kept is not None else None
        now = self._clock.now()
        fits = access is not None and (access.server, access.authority) == (url, trusted)
        if access is None or not fits or KeyPair(access.client_certificate, access.client_key).needs_renewal(now):
            profile = LeafProfile(reader.user, (reader.user,), client=True)
            leaf = issue_leaf(made.keyring.issuer("cluster"), profile, now=now)
            access = KubeAccess(url, trusted, leaf.certificate, leaf.key)
        record = ClusterRecord(
            cluster.uid,
            cluster.project,
            cluster.name,
            "" if self.naming is None else self.naming.domain(cluster),
            Standing.FOLLOWED,
            access,
            (str(cluster.spec.network.pods), str(cluster.spec.network.services)),
            nodes,
            await given_address(self._client, reader, cluster.uid) if reader.addresses else "",
            public_token_keys(made.keyring) if reader.token_keys else b"",
        )
        if record != kept:
            await self._client.apply(SECRETS, secret_of(record, reader))

    async def locate(self, cluster: Cluster, machines: Iterable[ProvidedNode]) -> None:
        """Say where the machines of a followed cluster are now, also when its API does not answer.

        An address of a machine that is gone is soon somebody else's: nobody may be led there any more.
        """
        nodes = addresses(machines)
        if self._nodes.get(cluster.uid) == nodes:
            return
        for reader in self.readers:
            kept = await self._of(reader, cluster.uid) if reader.nodes else None
            if kept is not None and kept.standing is Standing.FOLLOWED and kept.nodes != nodes:
                await self._client.apply(SECRETS, secret_of(replace(kept, nodes=nodes), reader))
        self._nodes[cluster.uid] = nodes

    async def rest(self, cluster: Cluster) -> None:
        """Have everything left as it is, and nobody ask the cluster's API, which would wake it."""
        if self._written.get(cluster.uid) == (Standing.ASLEEP,):
            return
        for reader in self.readers:
            kept = await self._of(reader, cluster.uid)
            if kept is not None and (kept.standing is not Standing.ASLEEP or kept.nodes):
                await self._client.apply(SECRETS, secret_of(replace(kept, standing=Standing.ASLEEP, nodes=()), reader))
        self._written[cluster.uid] = (Standing.ASLEEP,)

    async def end(self, cluster: Cluster) -> None:
        """Have all that was made for a deleted cluster withdrawn; its API cannot be reached any more."""
        for reader in self.readers:
            kept = await self._of(reader, cluster.uid)
            if kept is not None and kept.standing is not Standing.DELETED:
                ended = replace(kept, standing=Standing.DELETED, access=None, nodes=())
                await self._client.apply(SECRETS, secret_of(ended, reader))
        self.forget(cluster.uid)

    async def _of(self, reader: Reader, uid: str) -> ClusterRecord | None:
        found = await self._client.get(SECRETS, reader.record_name(uid), reader.name)
        return None if found is None else record_of(found)


def addresses(machines: Iterable[ProvidedNode]) -> tuple[str, ...]:
    """Return where machines are that run."""
    return tuple(sorted({machine.address for machine in machines if machine.running and machine.address}))
