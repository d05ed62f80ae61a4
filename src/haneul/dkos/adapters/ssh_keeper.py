"""Keeping one machine what its claim says: a cluster's node, or being put back as it was found.

A keeper looks at its machine again and again, over one connection while that holds, and does the next thing that is
missing. All that it knows can be seen again on the machine and in the store, so a keeper that was killed at any
instant is continued by the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets as randomness
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from importlib.resources import files
from typing import Final

import structlog

from haneul.dkos.adapters.node_pack import NodePack, archive
from haneul.dkos.adapters.ssh_machines import SshMachines, in_words
from haneul.dkos.adapters.ssh_session import MachineSession, NodeState
from haneul.dkos.machines import PRESET_LABEL, Claim, InstalledNode, Machine
from haneul.dkos.ports import NodeAnnouncement, ProvidedNode
from haneul.dkos.preflight import MachineFacts, refusal
from haneul.kernel.errors import ConflictError, HaneulError, HostNotReadyError, NotFoundError

_log = structlog.get_logger(__name__)

_LOOK_SECONDS: Final = 5.0
_BACKOFF_FIRST, _BACKOFF_LAST = 1.0, 30.0
_SYSTEM_MIB, _SYSTEM_MILLICORES = 256, 100
_PROGRAMS: Final = ("run-node", "enter-node", "haneul-node.service", "machine.sh")

#: Gives the node image's files of a version of Kubernetes. Raises HostNotReadyError for one that is not there.
Pack = Callable[[str], Awaitable[NodePack]]


class MachineKeeper:
    """Keeps one claimed machine until it is nobody's."""

    def __init__(self, machine: Machine, claim: Claim, *, machines: SshMachines, pack: Pack) -> None:
        self.claim = claim
        self.seen = _seen_last(machine, claim)
        self._project, self._name, self._uid = machine.project, machine.name, machine.uid
        self._machines = machines
        self._pack = pack
        self._wanted: NodeAnnouncement | None = None
        self._credentials = b""
        self._wake = asyncio.Event()

    def want(self, node: NodeAnnouncement) -> None:
        """Say what the machine shall be. From here on it is seen as that, and running only once it is."""
        if node != self._wanted:
            self._wanted = node
            self._wake.set()
        revision = revision_of(node)
        if self.seen.revision != revision:
            message = "the machine's node is to be made"
            self.seen = replace(
                self.seen, instance="", running=False, started=None, message=message, revision=revision, era=node.era
            )

    def look(self) -> None:
        """Look again now: the claim changed."""
        self._wake.set()

    async def run(self) -> None:
        """Work until the machine is nobody's, or nobody knows it any more."""
        backoff = _BACKOFF_FIRST
        while True:
            try:
                machine = await self._current()
                if machine is None:
                    return
                async with self._machines.open(machine) as session:
                    backoff = _BACKOFF_FIRST
                    await self._keep(session)
                    return
            except HaneulError as error:
                await self._tell(in_words(error))
            await self._pause(backoff)
            backoff = min(backoff * 2, _BACKOFF_LAST)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _current(self) -> Machine | None:
        """Return the machine while it is the claim's; None once it is not."""
        try:
            machine = await self._machines.store.get(self._project, self._name)
        except NotFoundError:
            return None
        claim = machine.status.claim
        if machine.uid != self._uid or claim is None or claim.owner != self.claim.owner:
            return None
        self.claim = claim
        return machine

    async def _keep(self, session: MachineSession) -> None:
        """Look and act until the machine is nobody's any more, over one connection."""
        while machine := await self._current():
            if self.claim.releasing:
                await self._release(session, machine)
            else:
                state = await session.state()
                if self._wanted is not None:
                    state = await self._bring(session, machine, self._wanted, state)
                self._see(state)
                await self._tell("")
                await self._pause(_LOOK_SECONDS)

    async def _release(self, session: MachineSession, machine: Machine) -> None:
        message = "the machine is being put back as it was found"
        self.seen = replace(self.seen, instance="", running=False, started=None, message=message)
        await session.run("reset", self.claim.owner)
        with contextlib.suppress(ConflictError):
            # Whoever changed it meanwhile, the next look releases what they left.
            free = machine.status.model_copy(update={"claim": None, "node": None, "message": ""})
            await self._machines.store.report(machine, free)
        _log.info("machine released", machine=self._name, cluster=self.claim.cluster)

    async def _bring(
        self, session: MachineSession, machine: Machine, node: NodeAnnouncement, state: NodeState
    ) -> NodeState:
        """Do what is missing between what the machine is and the node that it shall be."""
        owner = self.claim.owner
        if state.owner not in ("", owner):
            raise HostNotReadyError(
                f"the machine is a node of {state.owner} already", hint="take it out of that cluster first"
            )
        new = state.revision != revision_of(node)
        if new:
            await self._install(session, machine, node, fresh=not state.owner)
        credentials = _credentials_of(node)
        if self._credentials != credentials:
            # A bundle of authorities that changed is taken up by the running node, which reads it from this file.
            await session.run("credential", owner, contents=archive(_bootstrap(node)))
            self._credentials = credentials
        if new or not state.running:
            self._note("the machine's node starts")
            await session.run("start", owner)
            return await session.state()
        return state

    async def _install(self, session: MachineSession, machine: Machine, node: NodeAnnouncement, *, fresh: bool) -> None:
        owner = self.claim.owner
        pack = await self._pack(node.version)
        self._note("the machine is examined")
        if fresh and (said := refusal(await self._machines.examine(session, machine, owner))):
            raise HostNotReadyError(f"the machine does not fit: {said}", hint=f"'haneul machine check {self._name}'")
        facts = await session.facts()
        await session.run("begin", owner)
        if (await session.run("have", pack.name)).strip() != "yes":
            await self._send(session, pack)
        self._note("the machine's node is set up")
        contents = archive(machine_files(node, machine, facts, pack))
        instance = randomness.token_hex(8)
        await session.run("install", owner, instance, revision_of(node), str(node.era), pack.name, contents=contents)
        self._credentials = _credentials_of(node)
        _log.info("node installed", machine=self._name, node=node.name, cluster=self.claim.cluster)

    async def _send(self, session: MachineSession, pack: NodePack) -> None:
        """Send the parts that the machine does not have, then let it unpack them all."""
        there = set((await session.run("parts")).split())
        wanted = frozenset(pack.parts) - there
        sent = len(set(pack.parts)) - len(wanted)
        reader = pack.read(wanted)
        while part := await asyncio.to_thread(next, reader, None):
            self._note(f"the node's files are sent, {sent} of {len(set(pack.parts))} parts are there")
            if part[0] in wanted - there:
                await session.send_part(*part)
                there.add(part[0])
                sent += 1
        await session.run("unpack", pack.name, *pack.parts)

    def _note(self, message: str) -> None:
        self.seen = replace(self.seen, message=message)

    def _see(self, state: NodeState) -> None:
        if not state.revision or (self._wanted is not None and state.revision != revision_of(self._wanted)):
            # It is not made yet, or something else was asked for meanwhile: it stays to be seen as what it will be.
            self.seen = replace(self.seen, instance="", running=False, started=None)
            return
        self.seen = ProvidedNode(
            self.claim.node,
            instance=state.instance,
            address=self.seen.address,
            running=state.running,
            started=state.started,
            message="" if state.running else "the machine's node does not run",
            revision=state.revision,
            era=state.era,
        )

    async def _tell(self, message: str) -> None:
        """Let people see what the machine waits for, and the next process what is known of its node.

        Of the node itself nothing is forgotten because the machine is silent: its cluster knows more.
        """
        if message:
            self._note(message)
        with contextlib.suppress(HaneulError):
            machine = await self._current()
            if machine is None:
                return
            status = machine.status.model_copy(update={"message": message, "node": self._installed()})
            if status != machine.status:
                await self._machines.store.report(machine, status)

    def _installed(self) -> InstalledNode | None:
        seen = self.seen
        if not seen.revision:
            return None
        return InstalledNode(revision=seen.revision, era=seen.era, instance=seen.instance, started=seen.started)


def revision_of(node: NodeAnnouncement) -> str:
    """Return a digest of everything that makes a node another one when it changes.

    The address and the preset of a registered machine never change. Authorities are not part of it, only their era:
    the running node takes up a changed bundle. Of the node image it is the version of Kubernetes alone: whenever the
    same is built anew, all machines would be emptied, one after the other.
    """
    parts = [str(node.era), node.version, *(f"{name}\0{text}" for name, text in sorted(node.files.items()))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _seen_last(machine: Machine, claim: Claim) -> ProvidedNode:
    """Return the node as the last process saw it: a new one does not take nodes for gone that it has not met yet."""
    node = machine.status.node or InstalledNode(revision="")
    return ProvidedNode(
        claim.node,
        node.instance,
        machine.spec.address,
        running=bool(node.instance) and not claim.releasing,
        started=node.started,
        message="the machine was not looked at yet",
        revision=node.revision,
        era=node.era,
    )


def _credentials_of(node: NodeAnnouncement) -> bytes:
    return hashlib.sha256(node.bootstrap_kubeconfig + b"\0" + node.authority).digest()


def machine_files(
    node: NodeAnnouncement, machine: Machine, facts: MachineFacts, pack: NodePack
) -> Mapping[str, tuple[bytes, int]]:
    """Return the files of one machine by their place below its folder, with their modes.

    What the machine has is the node's, less a little for the machine's own system.
    """
    reserved = min(_SYSTEM_MIB, facts.memory // 4)
    own = (
        f'NODE_LABELS="$NODE_LABELS,{PRESET_LABEL}={machine.spec.preset}"\n'
        f"NODE_MEMORY_MIB={facts.memory - reserved}\n"
        f"NODE_MILLICORES={facts.cores * 1000 - _SYSTEM_MILLICORES}\n"
    )
    settings = {**node.files, "node.env": node.files["node.env"] + own}
    environment = f"NODE_ROOT={pack.name}\nNODE_ADDRESS={machine.spec.address}\n"
    return {
        **{f"settings/{name}": (text.encode(), 0o644) for name, text in settings.items()},
        **_bootstrap(node),
        **{name: (_program(name).encode(), 0o644) for name in _PROGRAMS},
        "machine.env": (environment.encode(), 0o644),
    }


def _bootstrap(node: NodeAnnouncement) -> dict[str, tuple[bytes, int]]:
    return {
        "bootstrap/kubeconfig": (node.bootstrap_kubeconfig, 0o600),
        "bootstrap/ca.crt": (node.authority, 0o644),
    }


def _program(name: str) -> str:
    return (files("haneul.dkos.adapters.machine") / name).read_text()
