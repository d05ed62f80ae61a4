"""What is promised but not yet to be seen, and how much may be promised: one object of the management cluster.

Whoever is about to make or enlarge a cluster first writes that here, by compare and swap: who loses reads again and
decides anew. The quotas lie in the same object, so a decision made under older limits loses too. A claim whose process
ended expires; its write is never begun after half of its life, and no call lasts as long as the other half.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from pydantic import ValidationError

from haneul.dkos.model import Cluster
from haneul.dkos.quota import Quotas
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError, HaneulError
from haneul.kernel.kube import CONFIG_MAPS, KubeApiError, KubeClient, Manifest

NAME: Final = "cluster-claims"
NAMESPACE: Final = "haneul-system"
TRIES: Final = 20
_CLAIM_LIFE: Final = timedelta(seconds=60)


@dataclass(frozen=True)
class Entries:
    """The ledger's contents: clusters that are being made, clusters as they are being changed to, and the limits."""

    creations: tuple[Cluster, ...] = ()
    changes: tuple[Cluster, ...] = ()
    quotas: Quotas = field(default_factory=Quotas)

    @property
    def claims(self) -> tuple[Cluster, ...]:
        """Return every cluster that is about to be so."""
        return (*self.creations, *self.changes)

    def without(self, claim: Cluster) -> Entries:
        """Return the entries without a claim, which its uid tells from all others."""
        return replace(
            self,
            creations=tuple(kept for kept in self.creations if kept.uid != claim.uid),
            changes=tuple(kept for kept in self.changes if kept.uid != claim.uid),
        )


class Ledger:
    """The object, for every process that makes or changes clusters."""

    def __init__(self, client: KubeClient, *, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def read(self) -> tuple[Entries, str]:
        """Return what stands there, without expired claims, and its version; none is known of what is not there."""
        found = await self._client.get(CONFIG_MAPS, NAME, NAMESPACE)
        if found is None:
            return Entries(), ""
        data = found.get("data") or {}
        return (
            Entries(self._open(data.get("claims")), self._open(data.get("changes")), _quotas(data.get("quotas"))),
            found["metadata"]["resourceVersion"],
        )

    async def write(self, entries: Entries, version: str) -> bool:
        """Write if it still is of ``version``; say whether it was."""
        wanted = _manifest(entries)
        try:
            if version:
                wanted["metadata"]["resourceVersion"] = version
                await self._client.patch(CONFIG_MAPS, NAME, wanted, NAMESPACE)
            else:
                await self._client.create(CONFIG_MAPS, wanted)
        except KubeApiError as error:
            if error.reason not in ("Conflict", "AlreadyExists"):
                raise
            return False
        return True

    async def update(self, change: Callable[[Entries], Entries]) -> None:
        """Change the entries; ``change`` is called again with newer ones when somebody else was faster."""
        for attempt in range(TRIES):
            entries, version = await self.read()
            wanted = change(entries)
            if wanted == entries or await self.write(wanted, version):
                return
            await self._clock.sleep(0.01 * (attempt + 1))
        raise too_many_at_once()

    def still_good(self, claim: Cluster) -> None:
        """Raise ConflictError if what was claimed may not be begun any more, because others may soon be told it."""
        if self._clock.now() - claim.created > _CLAIM_LIFE / 2:
            raise ConflictError("the platform took too long to answer", hint="try again")

    def _open(self, written: str | None) -> tuple[Cluster, ...]:
        since = self._clock.now() - _CLAIM_LIFE
        claims = (Cluster.model_validate(entry) for entry in json.loads(written or "[]"))
        return tuple(claim for claim in claims if claim.created > since)


def too_many_at_once() -> ConflictError:
    """Return the error for who lost every time."""
    return ConflictError("too many clusters are being created or changed at once", hint="try again in a moment")


def _quotas(written: str | None) -> Quotas:
    try:
        return Quotas.model_validate_json(written or "{}")
    except ValidationError as error:
        raise HaneulError(
            "what is stored of the quotas is not valid",
            hint=f"correct the entry 'quotas' of the ConfigMap {NAME} in {NAMESPACE}, or remove it",
        ) from error


def _manifest(entries: Entries) -> Manifest:
    def text(claims: tuple[Cluster, ...]) -> str:
        return json.dumps([claim.model_dump(mode="json", by_alias=True) for claim in claims])

    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "data": {
            "claims": text(entries.creations),
            "changes": text(entries.changes),
            "quotas": entries.quotas.model_dump_json(by_alias=True, exclude_none=True),
        },
    }
