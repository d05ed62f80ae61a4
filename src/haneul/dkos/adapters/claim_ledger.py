"""The ledger of creations under way: one ConfigMap that every API process changes by compare and swap.

A creation writes its claim before it makes anything, so that nobody else gets its ranges. Who deletes a project closes
it first: while it is closed nothing is claimed in it, and while something is claimed it cannot be closed. Entries of
processes that ended expire.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from haneul.dkos.cluster_store import being_created, being_deleted
from haneul.dkos.model import Cluster, ClusterSpec
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
class _Entries:
    claims: tuple[Cluster, ...] = ()
    closings: tuple[Closing, ...] = ()


class ClaimLedger:
    """Claims of clusters, and closed projects."""

    def __init__(self, client: KubeClient, *, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def claim(
        self, project: str, name: str, decide: Callable[[Sequence[Cluster]], Awaitable[ClusterSpec]]
    ) -> Cluster:
        """Write a claim down, with the spec that ``decide`` returns when it knows all other claims.

        ``decide`` may be called again when somebody else was faster. Raises ConflictError in a closed project.
        """
        made: list[Cluster] = []

        async def add(entries: _Entries) -> _Entries:
            if any(closing.project == project for closing in entries.closings):
                raise being_deleted(project)
            spec = await decide(entries.claims)
            claim = Cluster(
                project=project, name=name, uid=uuid.uuid4().hex, generation=0, created=self._clock.now(), spec=spec
            )
            made[:] = [claim]
            return _Entries((*entries.claims, claim), entries.closings)

        await self._change(add)
        return made[0]

    async def withdraw(self, claim: Cluster) -> None:
        """Take a claim back. Should that fail, it expires, and its ranges are free a little later."""

        async def remove(entries: _Entries) -> _Entries:
            return _Entries(tuple(kept for kept in entries.claims if kept.uid != claim.uid), entries.closings)

        with contextlib.suppress(HaneulError):
            await self._change(remove)

    async def close(self, project: str) -> Closing:
        """Let nothing more be claimed in a project. Raises ConflictError while something is."""
        closing = Closing(uuid.uuid4().hex, project, self._clock.now())

        async def add(entries: _Entries) -> _Entries:
            if any(claim.project == project for claim in entries.claims):
                raise being_created(project)
            return _Entries(entries.claims, (*entries.closings, closing))

        await self._change(add)
        return closing

    async def open(self, closing: Closing) -> None:
        """Open a project again. Should that fail, the entry expires."""

        async def remove(entries: _Entries) -> _Entries:
            return _Entries(entries.claims, tuple(kept for kept in entries.closings if kept.id != closing.id))

        with contextlib.suppress(HaneulError):
            await self._change(remove)

    async def _change(self, decide: Callable[[_Entries], Awaitable[_Entries]]) -> None:
        for attempt in range(_TRIES):
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
        raise ConflictError("too many clusters are being created at once", hint="try again in a moment")

    def _fresh(self, manifest: Manifest | None) -> _Entries:
        """Return the entries that have not expired."""
        since = self._clock.now() - _LIFE
        entries = written(manifest)
        return _Entries(
            tuple(claim for claim in entries.claims if claim.created > since),
            tuple(closing for closing in entries.closings if closing.since > since),
        )


def written(manifest: Manifest | None) -> _Entries:
    """Return all entries of the ledger as its ConfigMap has them."""
    data = (manifest or {}).get("data", {})
    return _Entries(
        tuple(Cluster.model_validate(entry) for entry in json.loads(data.get("claims", "[]"))),
        tuple(
            Closing(entry["id"], entry["project"], datetime.fromisoformat(entry["since"]))
            for entry in json.loads(data.get("closings", "[]"))
        ),
    )


def _manifest(entries: _Entries) -> Manifest:
    claims = [claim.model_dump(mode="json", by_alias=True) for claim in entries.claims]
    closings = [
        {"id": closing.id, "project": closing.project, "since": closing.since.isoformat()}
        for closing in entries.closings
    ]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _NAME, "namespace": _NAMESPACE},
        "data": {"claims": json.dumps(claims), "closings": json.dumps(closings)},
    }
