"""The ledger of what is under way, and of how much there may be: one ConfigMap, changed by compare and swap.

A creation writes its claim before it makes anything, so that nobody else gets its ranges; a change that makes a cluster
larger writes what the cluster is to become, so that nobody else gets its room in the project's quota. The quotas lie in
the same object, so a decision made under older limits loses. Who deletes a project closes it first: while it is closed
nothing is created in it, and while something is being created it cannot be closed.

Entries of processes that ended expire. What was claimed is not begun after half of a claim's life, and no call lasts as
long as the other half.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from pydantic import ValidationError

from haneul.dkos.cluster_store import being_created, being_deleted
from haneul.dkos.model import Cluster, ClusterSpec
from haneul.dkos.quota import QuotaLimits, Quotas
from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError, HaneulError
from haneul.kernel.kube import CONFIG_MAPS, KubeApiError, KubeClient, Manifest

_NAME: Final = "cluster-claims"
_NAMESPACE: Final = "haneul-system"
_LIFE: Final = timedelta(seconds=60)
_TRIES: Final = 20


@dataclass(frozen=True)
class Closing:
    """A project that is closed, since when, and an id by which it is opened again."""

    id: str
    project: str
    since: datetime


@dataclass(frozen=True)
class Entries:
    """What stands in the ledger: clusters being created, clusters as they are to become, closed projects, limits."""

    claims: tuple[Cluster, ...] = ()
    changes: tuple[Cluster, ...] = ()
    closings: tuple[Closing, ...] = ()
    quotas: Quotas = field(default_factory=Quotas)


#: Returns the spec to claim, knowing the ledger's entries; called again when somebody else was faster.
Decide = Callable[[Entries], Awaitable[ClusterSpec]]


class ClaimLedger:
    """Claims of clusters, closed projects, and quotas."""

    def __init__(self, client: KubeClient, *, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def claim(self, project: str, name: str, decide: Decide) -> Cluster:
        """Write the claim of a new cluster down. Raises ConflictError in a closed project."""

        async def wanted(entries: Entries) -> ClusterSpec:
            if any(closing.project == project for closing in entries.closings):
                raise being_deleted(project)
            return await decide(entries)

        return await self._add(
            project, name, wanted, lambda entries, claim: replace(entries, claims=(*entries.claims, claim))
        )

    async def claim_change(self, project: str, name: str, decide: Decide) -> Cluster:
        """Write down what a cluster is to become."""
        return await self._add(
            project, name, decide, lambda entries, claim: replace(entries, changes=(*entries.changes, claim))
        )

    async def withdraw(self, claim: Cluster) -> None:
        """Take a claim back. Should that fail, it expires, and what it held is free a little later."""

        async def remove(entries: Entries) -> Entries:
            return replace(
                entries,
                claims=tuple(kept for kept in entries.claims if kept.uid != claim.uid),
                changes=tuple(kept for kept in entries.changes if kept.uid != claim.uid),
            )

        with contextlib.suppress(HaneulError):
            await self._change(remove)

    def still_good(self, claim: Cluster) -> None:
        """Raise ConflictError if what was claimed may not be begun any more, because others may soon be told it."""
        if self._clock.now() - claim.created > _LIFE / 2:
            raise ConflictError("the platform took too long to answer", hint="try again")

    async def close(self, project: str) -> Closing:
        """Let nothing more be created in a project. Raises ConflictError while something is."""
        closing = Closing(uuid.uuid4().hex, project, self._clock.now())

        async def add(entries: Entries) -> Entries:
            if any(claim.project == project for claim in entries.claims):
                raise being_created(project)
            return replace(entries, closings=(*entries.closings, closing))

        await self._change(add)
        return closing

    async def open(self, closing: Closing) -> None:
        """Open a project again. Should that fail, the entry expires."""

        async def remove(entries: Entries) -> Entries:
            return replace(entries, closings=tuple(kept for kept in entries.closings if kept.id != closing.id))

        with contextlib.suppress(HaneulError):
            await self._change(remove)

    async def quotas(self) -> Quotas:
        """Return all limits that were set."""
        return written(await self._client.get(CONFIG_MAPS, _NAME, _NAMESPACE)).quotas

    async def set_quota(self, project: str | None, limits: QuotaLimits) -> None:
        """Set the limits of a project, or the platform's."""

        async def put(entries: Entries) -> Entries:
            return replace(entries, quotas=entries.quotas.with_limits(project, limits))

        await self._change(put)

    async def _add(
        self, project: str, name: str, decide: Decide, extended: Callable[[Entries, Cluster], Entries]
    ) -> Cluster:
        made: list[Cluster] = []

        async def add(entries: Entries) -> Entries:
            spec = await decide(entries)
            claim = Cluster(
                project=project, name=name, uid=uuid.uuid4().hex, generation=0, created=self._clock.now(), spec=spec
            )
            made[:] = [claim]
            return extended(entries, claim)

        await self._change(add)
        return made[0]

    async def _change(self, decide: Callable[[Entries], Awaitable[Entries]]) -> None:
        for attempt in range(_TRIES):
            # Before whatever is decided on: what is taken back between the two is to be seen in what is read then.
            found = await self._client.get(CONFIG_MAPS, _NAME, _NAMESPACE)
            wanted = _manifest(await decide(self._fresh(found)))
            try:
                if found is None:
                    await self._client.create(CONFIG_MAPS, wanted)
                else:
                    wanted["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
                    await self._client.patch(CONFIG_MAPS, _NAME, wanted, _NAMESPACE)
            except KubeApiError as error:
                if error.reason not in ("Conflict", "AlreadyExists"):
                    raise
                await self._clock.sleep(0.01 * (attempt + 1))
            else:
                return
        raise ConflictError("too many clusters are being created or changed at once", hint="try again in a moment")

    def _fresh(self, manifest: Manifest | None) -> Entries:
        """Return the entries that have not expired."""
        since = self._clock.now() - _LIFE
        entries = written(manifest)
        return replace(
            entries,
            claims=tuple(claim for claim in entries.claims if claim.created > since),
            changes=tuple(claim for claim in entries.changes if claim.created > since),
            closings=tuple(closing for closing in entries.closings if closing.since > since),
        )


def written(manifest: Manifest | None) -> Entries:
    """Return all entries of the ledger as its ConfigMap has them."""
    data = (manifest or {}).get("data") or {}

    def clusters(key: str) -> tuple[Cluster, ...]:
        return tuple(Cluster.model_validate(entry) for entry in json.loads(data.get(key, "[]")))

    closings = tuple(
        Closing(entry["id"], entry["project"], datetime.fromisoformat(entry["since"]))
        for entry in json.loads(data.get("closings", "[]"))
    )
    return Entries(clusters("claims"), clusters("changes"), closings, _quotas(data.get("quotas", "{}")))


def _quotas(text: str) -> Quotas:
    try:
        return Quotas.model_validate_json(text)
    except ValidationError as error:
        raise HaneulError(
            "what is stored of the quotas is not valid",
            hint=f"correct the entry 'quotas' of the ConfigMap {_NAME} in {_NAMESPACE}, or remove it",
        ) from error


def _manifest(entries: Entries) -> Manifest:
    def text(claims: tuple[Cluster, ...]) -> str:
        return json.dumps([claim.model_dump(mode="json", by_alias=True) for claim in claims])

    closings = [
        {"id": closing.id, "project": closing.project, "since": closing.since.isoformat()}
        for closing in entries.closings
    ]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _NAME, "namespace": _NAMESPACE},
        "data": {
            "claims": text(entries.claims),
            "changes": text(entries.changes),
            "closings": json.dumps(closings),
            "quotas": entries.quotas.model_dump_json(by_alias=True, exclude_none=True),
        },
    }
