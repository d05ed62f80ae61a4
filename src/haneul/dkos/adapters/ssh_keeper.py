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
from datetime import datetime
from importlib.resources import files
from typing import Final

import structlog

from haneul.dkos.adapters.node_pack import NodePack, archive
from haneul.dkos.adapters.ssh_machines import SshMachines, in_words
from haneul.dkos.adapters.ssh_session import MachineSession, NodeState
from haneul.dkos.machines import PRESET_LABEL, Claim, Machine
from haneul.dkos.ports import NodeAnnouncement, ProvidedNode
from haneul.dkos.preflight import MachineFacts, refusal
from haneul.kernel.errors import ConflictError, HaneulError, HostNotReadyError, NotFoundError

_log = structlog.get_logger(__name__)

_LOOK_SECONDS: Final = 5.0
_BACKOFF_FIRST, _BACKOFF_LAST = 1.0, 30.0
_SYSTEM_MIB, _SYSTEM_MILLICORES = 256, 100
_PROGRAMS: Final = ("run-node", "enter-node", "haneul-node.service", "machine.sh")

Pack = Callable[[], Awaitable[NodePack]]


class MachineKeeper:
    """Keeps one claimed machine until it is nobody's."""

    def __init__(self, machine: Machine, claim: Claim, *, machines: SshMachines, pack: Pack) -> None:
        self.claim = claim
        self.seen = ProvidedNode(claim.node, "", machine.spec.address, message="the machine was not looked at yet")
        self._project, self._name, self._uid = machine.project, machine.name, machine.uid
        self._machines = machines
        self._pack = pack
        self._wanted: NodeAnnouncement | None = None
        self._credential = b""
        self._wake = asyncio.Event()

    def want(self, node: NodeAnnouncement) -> None:
        """Say what the machine shall be."""
        if node != self._wanted:
            self._wanted = node
            self._wake.set()

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
        self.seen = replace(self.seen, running=False, message="the machine is being put back as it was found")
        await session.run("reset", self.claim.owner)
        with contextlib.suppress(ConflictError):
            # Whoever changed it meanwhile, the next look releases what they left.
            await self._machines.store.report(machine, machine.status.model_copy(update={"claim": None, "message": ""}))
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
        digest = made_from(node, machine)
        if state.digest != digest:
            await self._install(session, machine, node, digest=digest, fresh=not state.owner)
        credential = hashlib.sha256(node.bootstrap_kubeconfig).digest()
        if self._credential != credential:
            await session.run("credential", owner, contents=archive(_bootstrap(node)))
            self._credential = credential
        if state.digest != digest or not state.running:
            self._note("the machine's node starts")
            await session.run("start", owner)
            return await session.state()
        return state

    async def _install(
        self,
        session: MachineSession,
        machine: Machine,
        node: NodeAnnouncement,
        *,
        digest: str,
        fresh: bool,
    ) -> None:
        owner = self.claim.owner
        pack = await self._pack()
        self._note("the machine is examined")
        if fresh and (said := refusal(await self._machines.examine(session, machine, owner))):
            raise HostNotReadyError(f"the machine does not fit: {said}", hint=f"'haneul machine check {self._name}'")
        facts = await session.facts()
        await session.run("begin", owner)
        if (await session.run("have", pack.name)).strip() != "yes":
            await self._send(session, pack)
        self._note("the machine's node is set up")
        contents = archive(machine_files(node, machine, facts, pack))
        await session.run("install", owner, randomness.token_hex(8), digest, pack.name, contents=contents)
        self._credential = hashlib.sha256(node.bootstrap_kubeconfig).digest()
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
        self.seen = ProvidedNode(
            self.claim.node,
            instance=state.instance,
            address=self.seen.address,
            running=state.running,
            started=datetime.fromisoformat(state.started) if state.started else None,
            message="" if state.running else "the machine's node does not run",
        )

    async def _tell(self, message: str) -> None:
        """Let people see what the machine waits for. What is known of the node itself stays: its cluster knows more."""
        if message:
            self._note(message)
        with contextlib.suppress(HaneulError):
            machine = await self._current()
            if machine is not None and machine.status.message != message:
                await self._machines.store.report(machine, machine.status.model_copy(update={"message": message}))


def made_from(node: NodeAnnouncement, machine: Machine) -> str:
    """Return a digest of everything that makes a node another one when it changes.

    The node image is not part of it: one that was built anew would end the pods of all machines at once.
    """
    parts = [machine.spec.address, machine.spec.preset.value, node.authority.decode()]
    parts += [f"{name}\0{text}" for name, text in sorted(node.files.items())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


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
