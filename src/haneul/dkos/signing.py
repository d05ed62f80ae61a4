"""Answering the certificate requests of one cluster's nodes: asks :mod:`joining`, signs, writes the answer down."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping

import structlog

from haneul.dkos.events import Event, certificate_refused, certificate_signed
from haneul.dkos.joining import NODE_CERTIFICATE_LIFE, AnnouncedNode, Grant, NotYet, Refusal, decide
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import CERTIFICATE_REQUESTS, KubeApiError, KubeClient, Manifest
from haneul.kernel.pki import KeyPair, sign_request

_log = structlog.get_logger(__name__)


#: Says, at this very moment, what bars a node from a certificate; nothing if nothing does.
Bars = Callable[[str], Awaitable[str]]


class NodeSigner:
    """Signs for the nodes that were announced last. Requests that may become right are kept and tried again.

    An announcement may be as old as the last look. So right before a signature ``bars`` is asked once more: what was
    taken back a moment ago, and a machine that was replaced since, count.
    """

    def __init__(self, *, authority: KeyPair, clock: Clock, tell: Callable[[Event], None], bars: Bars) -> None:
        self._authority = authority
        self._clock = clock
        self._tell = tell
        self._bars = bars
        # Nobody knows yet who may join: until the first announcement, requests wait instead of being refused for good.
        self._announced: Mapping[str, AnnouncedNode] | None = None
        self._waiting: dict[str, Manifest] = {}
        # Requests that this process answers or has answered; an older state of one may still be on its way here.
        self._answered: set[str] = set()

    async def announce(self, client: KubeClient, announced: Mapping[str, AnnouncedNode]) -> None:
        """Take note of which nodes may join, and look again at the requests that waited for it."""
        self._announced = announced
        for request in list(self._waiting.values()):
            name = request["metadata"]["name"]
            try:
                # What waited may be answered or gone by now.
                if (current := await client.get(CERTIFICATE_REQUESTS, name)) is None:
                    self.forget(request)
                else:
                    await self.answer(client, current)
            except HaneulError as error:
                # One request's trouble is not its cluster's; it is kept and comes again at the next call.
                _log.warning("certificate request not answered", request=name, error=str(error))

    async def answer(self, client: KubeClient, request: Manifest) -> None:
        """Answer one request, unless it is answered already or not ours to answer."""
        name = request["metadata"]["name"]
        status = request.get("status", {})
        if status.get("certificate") or any(entry["type"] == "Denied" for entry in status.get("conditions", [])):
            self._waiting.pop(name, None)
            return
        if self._announced is None:
            self._waiting[name] = request
            return
        decision = decide(request, self._announced)
        if decision is None or name in self._answered:
            return
        if isinstance(decision, NotYet):
            self._waiting[name] = request
            return
        self._waiting.pop(name, None)
        self._answered.add(name)
        try:
            if isinstance(decision, Refusal):
                _log.warning("node certificate refused", request=name, reason=decision.reason)
                await self._write_condition(client, name, "Denied", decision.reason)
                self._tell(certificate_refused(request["spec"].get("username", ""), decision.reason))
            elif await self._bars(decision.node):
                self._answered.discard(name)
                self._waiting[name] = request
            else:
                await self._grant(client, request, decision)
        except BaseException as error:
            self._answered.discard(name)
            # It would not come by itself again: a request that nobody answers does not change.
            if not (isinstance(error, KubeApiError) and error.reason == "NotFound"):
                self._waiting[name] = request
            raise

    def forget(self, request: Manifest) -> None:
        """Take note that a request is gone."""
        self._answered.discard(request["metadata"]["name"])
        self._waiting.pop(request["metadata"]["name"], None)

    async def _grant(self, client: KubeClient, request: Manifest, grant: Grant) -> None:
        name = request["metadata"]["name"]
        certificate = sign_request(
            self._authority,
            base64.b64decode(request["spec"]["request"]),
            grant.profile,
            now=self._clock.now(),
            life=NODE_CERTIFICATE_LIFE,
        )
        # A tenant's own approval signs nothing, but Kubernetes does not let it be changed, so it stays as it is.
        conditions = request.get("status", {}).get("conditions", [])
        if not any(entry["type"] == "Approved" for entry in conditions):
            await self._write_condition(client, name, "Approved", grant.reason)
        encoded = base64.b64encode(certificate).decode()
        await client.patch(CERTIFICATE_REQUESTS, name, {"status": {"certificate": encoded}}, subresource="status")
        _log.info("node certificate signed", request=name, node=grant.profile.common_name)
        node = grant.profile.common_name.removeprefix("system:node:")
        self._tell(certificate_signed(node, serving=grant.profile.server))

    async def _write_condition(self, client: KubeClient, name: str, kind: str, message: str) -> None:
        condition = {"type": kind, "status": "True", "reason": "DecidedByDkos", "message": message}
        await client.patch(CERTIFICATE_REQUESTS, name, {"status": {"conditions": [condition]}}, subresource="approval")
