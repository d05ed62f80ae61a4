"""Carrying out the replacement of a cluster's authorities: looks what a step still waits for, and begins the next.

:mod:`haneul.dkos.rotation` decides. Every look may be the first of a new process: nothing is relied on that could not
be seen again, and what is done twice (writing secrets anew) does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog

from haneul.dkos.keyring import Keyring
from haneul.dkos.masters import MadeMasters, Masters
from haneul.dkos.model import Cluster
from haneul.dkos.rotation import Step, Verdict, decide
from haneul.kernel.clock import Clock
from haneul.kernel.kube import CONFIG_MAPS, NAMESPACES, SECRETS, KubeApiError, KubeClient, Manifest

_log = structlog.get_logger(__name__)

#: In each namespace, what its pods trust the API server by (Kubernetes documentation "Root CA certificate").
_ROOTS: Final = "kube-root-ca.crt"
_AT_ONCE: Final = 8


class AuthorityRotation:
    """The replacement of one cluster's authorities."""

    def __init__(self, masters: Masters, *, clock: Clock) -> None:
        self._masters = masters
        self._clock = clock
        self._rewritten: int | None = None

    async def look(
        self, cluster: Cluster, made: MadeMasters, tenant: KubeClient | None, *, waiting_nodes: Sequence[str]
    ) -> Verdict:
        """Go on to the next step if the present one is done; return where the replacement stands.

        ``tenant`` is None while the cluster's API does not answer; ``waiting_nodes`` are those that are not yet
        there as the present keyring wants them.
        """
        record = made.keyring.record
        if tenant is None and record.step is Step.STEADY:
            # Nothing begins in a cluster that is down, or that only begins to wake.
            return Verdict(Step.STEADY)
        verdict = decide(
            record,
            requested=cluster.spec.authorities.revision,
            expires=made.keyring.expires,
            waits_on=await self._waits_on(cluster, made, tenant, waiting_nodes),
            grace=timedelta(seconds=cluster.spec.authorities.grace_seconds),
            now=self._clock.now(),
        )
        if verdict.step is not record.step:
            _log.info("authorities' replacement goes on", cluster=cluster.uid, era=record.era, step=verdict.step.value)
            await self._masters.begin(cluster, made, verdict.step)
        return verdict

    async def _waits_on(
        self, cluster: Cluster, made: MadeMasters, tenant: KubeClient | None, waiting_nodes: Sequence[str]
    ) -> str:
        keyring = made.keyring
        step = keyring.record.step
        if step is Step.STEADY:
            return ""
        if tenant is None:
            return "the API server to answer"
        if unfinished := await self._masters.unfinished(cluster, made):
            return ", ".join(unfinished)
        if step is Step.NODES and waiting_nodes:
            return ", ".join(waiting_nodes)
        if step in (Step.SPREAD, Step.WITHDRAW):
            return await _namespaces_behind(tenant, keyring)
        if step is Step.ISSUE and self._rewritten != keyring.record.era:
            await rewrite_secrets(tenant)
            self._rewritten = keyring.record.era
        return ""


async def rewrite_secrets(tenant: KubeClient) -> None:
    """Have every secret written again as it is, so that none is left that the old key encrypted.

    An update that changes nothing is written all the same if what is stored was not encrypted by the first key
    (Kubernetes documentation "Encrypting Confidential Data at Rest", section "Ensure all relevant data are encrypted").
    """
    limit = asyncio.Semaphore(_AT_ONCE)

    async def rewrite(secret: Manifest) -> None:
        metadata = secret["metadata"]
        async with limit:
            try:
                await tenant.patch(SECRETS, metadata["name"], {}, metadata["namespace"])
            except KubeApiError as error:
                # What was deleted meanwhile is encrypted by no key.
                if error.reason != "NotFound":
                    raise

    secrets = await tenant.list(SECRETS)
    async with asyncio.TaskGroup() as group:
        for secret in secrets:
            group.create_task(rewrite(secret))


async def _namespaces_behind(tenant: KubeClient, keyring: Keyring) -> str:
    """Return, in words, the namespaces whose pods are not told yet whom exactly to trust now."""
    wanted = keyring.trusted("cluster").decode().strip()

    async def knows(namespace: str) -> bool:
        roots = await tenant.get(CONFIG_MAPS, _ROOTS, namespace)
        published: dict[str, str] = (roots or {}).get("data") or {}
        return published.get("ca.crt", "").strip() == wanted

    names = [
        namespace["metadata"]["name"]
        for namespace in await tenant.list(NAMESPACES)
        if "deletionTimestamp" not in namespace["metadata"]
    ]
    known = await asyncio.gather(*map(knows, names))
    missing = [name for name, is_known in zip(names, known, strict=True) if not is_known]
    return f"{_ROOTS} of {', '.join(missing[:3])}" if missing else ""
