"""Telling readers of a cluster: the operator makes and keeps its record for each of them. Level-triggered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from haneul.dkos.address_claims import given_address
from haneul.dkos.cluster_record import TROUBLE, ClusterRecord, Standing, record_of, secret_of
from haneul.dkos.cluster_store import QuotaStore
from haneul.dkos.credentials import public_token_keys
from haneul.dkos.masters import MadeMasters
from haneul.dkos.model import Cluster
from haneul.dkos.naming import Naming
from haneul.dkos.ports import ProvidedNode
from haneul.dkos.quota import Quotas
from haneul.dkos.readers import Reader
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import SECRETS, KubeAccess, KubeClient
from haneul.kernel.pki import KeyPair, LeafProfile, issue_leaf

_log = structlog.get_logger(__name__)
_QUOTAS_SECONDS: Final = 5.0
_TROUBLE_SECONDS: Final = 15.0


@dataclass(frozen=True)
class _Located:
    """The addresses of a cluster's machines, and how many addresses and listeners its project may have, if known."""

    nodes: tuple[str, ...]
    limits: tuple[int, int] | None

    def limited(self, kept: ClusterRecord | None) -> tuple[int, int]:
        """Return the limits of a record; while they are not known those that it has, which let nothing more come."""
        if self.limits is not None:
            return self.limits
        if kept is None or kept.most_addresses is None or kept.most_listeners is None:
            # A limit that is too low for a while takes nothing away; one too high gives what is never taken back.
            return 0, 0
        return kept.most_addresses, kept.most_listeners


class ClusterRecords:
    """The records of all clusters; what this process wrote last is not written again until :meth:`forget`."""

    def __init__(
        self,
        client: KubeClient,
        readers: Sequence[Reader] = (),
        *,
        naming: Naming | None = None,
        quotas: QuotaStore | None = None,
        clock: Clock,
    ) -> None:
        """Without a ``naming``, clusters have no domains; without ``quotas``, nobody set any."""
        self._client = client
        self.readers = tuple(readers)
        self.naming = naming
        self._clock = clock
        self._quotas = quotas
        #: What quotas were last, if known, and until when, by the monotonic clock, they are not asked for again.
        self._limits, self._limits_until = Quotas() if quotas is None else None, float("-inf")
        self._written: dict[str, tuple[object, ...]] = {}
        self._located: dict[str, _Located] = {}
        #: What readers said of clusters, and until when they are not asked again.
        self._troubles: dict[str, tuple[str, float]] = {}

    def forget(self, uid: str) -> None:
        """Look at a cluster's records anew at the next call, in case somebody else changed them."""
        self._written.pop(uid, None)
        self._located.pop(uid, None)
        self._troubles.pop(uid, None)

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
        located = await self._locate(cluster, machines)
        for reader in self.readers:
            await self._follow(reader, cluster, made, located)
        self._written[cluster.uid], self._located[cluster.uid] = inputs, located

    async def _follow(self, reader: Reader, cluster: Cluster, made: MadeMasters, located: _Located) -> None:
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
            located.nodes if reader.nodes else (),
            await given_address(self._client, reader, cluster.uid) if reader.addresses else "",
            public_token_keys(made.keyring) if reader.token_keys else b"",
            *(located.limited(kept) if reader.limits else ()),
        )
        if record != kept:
            await self._client.apply(SECRETS, secret_of(record, reader))

    async def locate(self, cluster: Cluster, machines: Iterable[ProvidedNode]) -> None:
        """Say where the machines of a followed cluster are now, and its project's limits, also when no API answers.

        An address of a machine that is gone is soon somebody else's: nobody may be led there any more.
        """
        located = await self._locate(cluster, machines)
        if self._located.get(cluster.uid) == located:
            return
        for reader in self.readers:
            kept = await self._of(reader, cluster.uid) if reader.nodes or reader.limits else None
            if kept is None or kept.standing is not Standing.FOLLOWED:
                continue
            wanted = replace(kept, nodes=located.nodes) if reader.nodes else kept
            if reader.limits:
                most_addresses, most_listeners = located.limited(kept)
                wanted = replace(wanted, most_addresses=most_addresses, most_listeners=most_listeners)
            if wanted != kept:
                await self._client.apply(SECRETS, secret_of(wanted, reader))
        self._located[cluster.uid] = located

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

    async def trouble(self, cluster: Cluster) -> str:
        """Return why a reader does nothing more for a cluster, in words for people; nothing if all do."""
        now = self._clock.monotonic()
        known = self._troubles.get(cluster.uid)
        if known is None or now >= known[1]:
            said = [await self._said(reader, cluster.uid) for reader in self.readers]
            known = self._troubles[cluster.uid] = "; ".join(filter(None, said)), now + _TROUBLE_SECONDS
        return known[0]

    async def _said(self, reader: Reader, uid: str) -> str:
        found = await self._client.get(SECRETS, reader.record_name(uid), reader.name)
        trouble = ((found or {}).get("metadata", {}).get("annotations") or {}).get(TROUBLE, "")
        return f"{reader.name} follows it no longer, what is there stays: {trouble}" if trouble else ""

    async def _locate(self, cluster: Cluster, machines: Iterable[ProvidedNode]) -> _Located:
        quotas = await self._known_quotas()
        amounts = quotas.of(cluster.project) if quotas is not None else None
        return _Located(addresses(machines), (amounts.addresses, amounts.listeners) if amounts is not None else None)

    async def _known_quotas(self) -> Quotas | None:
        """Return the quotas; while they cannot be read those of before, if any: no cluster is held up by that."""
        if self._quotas is not None and self._clock.monotonic() >= self._limits_until:
            self._limits_until = self._clock.monotonic() + _QUOTAS_SECONDS
            try:
                self._limits = await self._quotas.quotas()
            except HaneulError as error:
                _log.warning("quotas cannot be read; those of before hold", detail=error.detail)
        return self._limits

    async def _of(self, reader: Reader, uid: str) -> ClusterRecord | None:
        found = await self._client.get(SECRETS, reader.record_name(uid), reader.name)
        return None if found is None else record_of(found)


def addresses(machines: Iterable[ProvidedNode]) -> tuple[str, ...]:
    """Return where machines are that run."""
    return tuple(sorted({machine.address for machine in machines if machine.running and machine.address}))
