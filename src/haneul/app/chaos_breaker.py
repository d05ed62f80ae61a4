"""What breaks this host's platform for ``haneul bench chaos``: each kind of fault as an injection.

Targets are found in the management cluster and then in the process table, among the processes of exactly those pods;
nothing is ended by its name alone. What lasts is written down before it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from haneul.app.chaos_ground import NODES_OF, PROJECT, VICTIM, PlatformGround, node_pool
from haneul.app.installation import Installation
from haneul.bench.process_usage import HostProcesses
from haneul.chaos.adapters import packets
from haneul.chaos.adapters.flood import to_json
from haneul.chaos.adapters.journal import Journal, Record
from haneul.chaos.adapters.volumes import SmallDisk
from haneul.chaos.faults import Fault, Place, Way
from haneul.chaos.ports import Injection
from haneul.components.table import image_reference
from haneul.dkos.control_plane import ROLE_LABEL
from haneul.host.processes import command_line
from haneul.kernel import processes
from haneul.kernel.clock import Clock
from haneul.kernel.errors import DeadlineExceededError, HaneulError, UnavailableError
from haneul.kernel.files import write_atomically
from haneul.kernel.kube import CONFIG_MAPS, DEPLOYMENTS, PODS, SERVICES, Manifest, is_ready
from haneul.kernel.kube_http import HttpKubeClient
from haneul.kernel.processes import Found
from haneul.kernel.progress import SilentProgress
from haneul.kernel.waiting import wait_for
from haneul.management.remains import Site

_MASTERS: Final = f"cluster-{PROJECT}-{VICTIM}"
_NODES: Final = f"nodes-{PROJECT}-{VICTIM}"
_STRUCK_NODE: Final = "default-0-0"
_PLATFORM: Final = "haneul-system"
_STATIC: Final = "kubernetes.io/config.hash"
_LOAD: Final = "chaos-load"
_FILLING: Final = 100_000
_FILLINGS: Final = 2_000
_REQUESTS: Final = 380
_CONNECTIONS: Final = 24
_STEP_SECONDS: Final = 240.0
#: Some words hold numbers that count down; so often does the operator die in one step at most.
_DEATHS: Final = 8


@dataclass
class Act:
    """An injection made of up to three steps; what is left out does nothing."""

    inject_step: Callable[[], Awaitable[None]]
    heal_step: Callable[[], Awaitable[None]] | None = None
    gone_step: Callable[[], Awaitable[bool]] | None = None
    healed: bool = field(default=False, init=False)

    async def inject(self) -> None:
        """Break it."""
        await self.inject_step()

    async def heal(self) -> None:
        """Take it back, once."""
        if self.heal_step is not None and not self.healed:
            await self.heal_step()
        self.healed = True

    async def gone(self) -> bool:
        """Say whether it is gone."""
        return self.gone_step is None or await self.gone_step()


class PlatformBreaker:
    """Breaks what a fault names; the ground knows the clusters."""

    def __init__(
        self,
        installation: Installation,
        ground: PlatformGround,
        *,
        management: HttpKubeClient,
        journal: Journal,
        clock: Clock,
    ) -> None:
        self._installation = installation
        self._ground = ground
        self._management = management
        self._journal = journal
        self._clock = clock
        self._table = HostProcesses()

    async def aim(self, fault: Fault) -> Injection:
        """Find what the fault strikes."""
        aims: dict[Way, Callable[[Fault], Awaitable[Act]]] = {
            Way.KILL: self._killing,
            Way.FREEZE: self._freezing,
            Way.DELETE: self._deleting,
            Way.CUT: self._cutting,
            Way.FILL: self._filling,
            Way.LOAD: self._loading,
            Way.CHANGE: self._changing,
            Way.POWER: self._power_cut,
        }
        return await aims[fault.way](fault)

    async def clear(self) -> list[str]:
        """Take back what is written down; a record whose fault has ended by itself is only forgotten."""
        cleared = []
        for name, record in self._journal.open().items():
            await self._take_back(record)
            self._journal.end(name)
            cleared.append(name)
        return cleared

    async def _take_back(self, record: Record) -> None:
        if record["kind"] == "disk":
            await SmallDisk(Path(record["image"]), Path(record["folder"])).remove()
        elif record["kind"] == "frozen":
            processes.send([Found(**entry) for entry in record["processes"]], signal.SIGCONT)
        elif record["kind"] == "cut":
            if Found(record["pid"], record["started"]).alive:
                await packets.mend(record["pid"])
        elif record["kind"] == "flood":
            # The flood itself ends with whoever started it.
            Path(record["file"]).unlink(missing_ok=True)

    async def _killing(self, fault: Fault) -> Act:
        struck = await self._processes(fault)
        if not struck:
            raise UnavailableError(f"no {fault.part} runs at {fault.place}, so it cannot be killed")

        async def kill() -> None:
            processes.send(struck, signal.SIGKILL)

        async def runs_again() -> bool:
            now = await self._processes(fault)
            return bool(now) and not any(one.alive for one in struck)

        return Act(kill, gone_step=runs_again)

    async def _freezing(self, fault: Fault) -> Act:
        struck = await self._processes(fault)
        if not struck:
            raise UnavailableError(f"no {fault.part} runs at {fault.place}, so it cannot be frozen")

        async def freeze() -> None:
            entries = [{"pid": one.pid, "started": one.started} for one in struck]
            self._journal.begin(fault.name, {"kind": "frozen", "processes": entries})
            processes.send(struck, signal.SIGSTOP)

        async def thaw() -> None:
            processes.send(struck, signal.SIGCONT)
            self._journal.end(fault.name)

        async def runs_again() -> bool:
            now = await self._processes(fault)
            return bool(now) and not any(processes.stopped(one) for one in struck)

        return Act(freeze, thaw, runs_again)

    async def _deleting(self, fault: Fault) -> Act:
        if fault.place is Place.NODE:
            namespace, labels, fields = _NODES, "", f"metadata.name={_STRUCK_NODE}"
        else:
            namespace, labels, fields = _PLATFORM, f"app.kubernetes.io/name={fault.part}", ""

        async def pods() -> list[Manifest]:
            return await self._management.list(PODS, namespace, labels=labels, fields=fields)

        before = await pods()
        if not before:
            raise UnavailableError(f"there is no pod of {fault.part}, so it cannot be deleted")

        async def delete() -> None:
            names = [pod["metadata"]["name"] for pod in before]
            await asyncio.gather(*(self._management.delete(PODS, name, namespace, grace=0) for name in names))

        async def replaced() -> bool:
            uids = {pod["metadata"]["uid"] for pod in before}
            now = await pods()
            return bool(now) and not any(pod["metadata"]["uid"] in uids or not is_ready(pod) for pod in now)

        return Act(delete, gone_step=replaced)

    async def _cutting(self, fault: Fault) -> Act:
        # What runs the node's services is in the node's own network; pods on the node have networks of theirs.
        pids = await self._pids_of(_NODES, _STRUCK_NODE)
        found = processes.all_found(pids, lambda pid: _program(pid) == "runsvdir")
        service = await self._management.get(SERVICES, "kube-apiserver", _MASTERS)
        if not found or service is None:
            raise UnavailableError(f"there is no node {_STRUCK_NODE} to cut off")
        one = found[0]
        addresses = [str(service["spec"]["clusterIP"])]
        addresses += [pod["status"]["podIP"] for pod in await self._management.list(PODS, _MASTERS)]

        async def cut() -> None:
            self._journal.begin(fault.name, {"kind": "cut", "pid": one.pid, "started": one.started})
            await packets.cut(one.pid, addresses)

        async def mend() -> None:
            if one.alive:
                await packets.mend(one.pid)
            self._journal.end(fault.name)

        async def gone() -> bool:
            return not one.alive or not await packets.is_cut(one.pid)

        return Act(cut, mend, gone)

    async def _filling(self, fault: Fault) -> Act:
        disk, victim = self._ground.disk, self._ground.tenant(VICTIM)
        if disk is None:
            raise UnavailableError("the victim's etcd has no disk of its own")

        async def fill() -> None:
            await disk.fill()
            for number in range(_FILLINGS):
                try:
                    async with asyncio.timeout(5):
                        await victim.apply(CONFIG_MAPS, _filling(number % 10))
                except (HaneulError, TimeoutError):
                    return
            raise DeadlineExceededError("a full disk did not keep etcd from writing")

        async def emptied() -> bool:
            return not disk.ballast.exists()

        return Act(fill, disk.empty, emptied)

    async def _loading(self, fault: Fault) -> Act:
        if fault.part == "api":
            return self._flooding(fault)
        victim, name = self._ground.tenant(VICTIM), f"{_LOAD}-{fault.part}"

        async def load() -> None:
            await victim.apply(DEPLOYMENTS, load_manifest(name, fault.part))

            async def runs() -> bool:
                pods = await victim.list(PODS, "default", labels=f"app={name}")
                return any(pod["status"].get("phase") == "Running" for pod in pods)

            await wait_for(runs, what=f"the load of {fault.part}", timeout=60, clock=self._clock)

        async def end() -> None:
            with contextlib.suppress(HaneulError):
                await victim.delete(DEPLOYMENTS, name, "default")

        async def gone() -> bool:
            # A deletion that was not heard is asked for again.
            await victim.delete(DEPLOYMENTS, name, "default")
            pods = await victim.list(PODS, "default", labels=f"app={name}")
            for pod in pods:
                await victim.delete(PODS, pod["metadata"]["name"], "default", grace=0)
            return not pods

        return Act(load, end, gone)

    def _flooding(self, fault: Fault) -> Act:
        access = self._ground.access(VICTIM)
        file = self._installation.settings.state / "chaos" / "flood.access"
        running: list[asyncio.subprocess.Process] = []

        async def flood() -> None:
            self._journal.begin(fault.name, {"kind": "flood", "file": str(file)})
            write_atomically(file, to_json(access), mode=0o600)
            command = (sys.executable, "-m", "haneul.chaos.adapters.flood", str(file), str(_CONNECTIONS))
            running.append(await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL))

        async def end() -> None:
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            file.unlink(missing_ok=True)
            self._journal.end(fault.name)

        return Act(flood, end)

    async def _changing(self, fault: Fault) -> Act:
        changes: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
            "settings": ({"settings": {"maxRequestsInFlight": _REQUESTS}}, {"settings": {"maxRequestsInFlight": 400}}),
            "scale": (_nodes(NODES_OF[VICTIM] + 1), _nodes(NODES_OF[VICTIM])),
        }
        if fault.part == "operator-at-each-step":
            return Act(self._a_life_with_a_dying_operator)
        there, back = changes[fault.part]
        return Act(lambda: self._ground.change(VICTIM, there), lambda: self._ground.change(VICTIM, back))

    async def _a_life_with_a_dying_operator(self) -> None:
        """Lead a cluster through its life; each time that what it waits on changes, the operator dies."""
        life = self._ground.life_of("passing")
        for step in life:
            seen: set[str] = set()

            async def done(
                state: Callable[[], Awaitable[tuple[bool, str]]] = step.state, seen: set[str] = seen
            ) -> bool:
                try:
                    over, words = await state()
                except UnavailableError:
                    return False
                if words not in seen and not over and len(seen) < _DEATHS:
                    seen.add(words)
                    await self._delete_operator()
                return over

            await step.begin()
            await wait_for(done, what=step.what, timeout=_STEP_SECONDS, clock=self._clock, max_interval=0.2)

    async def _delete_operator(self) -> None:
        for pod in await self._management.list(PODS, _PLATFORM, labels="app.kubernetes.io/name=haneul-operator"):
            await self._management.delete(PODS, pod["metadata"]["name"], _PLATFORM, grace=0)

    async def _power_cut(self, fault: Fault) -> Act:
        site = Site(self._installation.settings, self._installation.store.cache, self._clock)

        async def cut() -> None:
            ours, _ = await asyncio.to_thread(site.processes)
            struck = [one for pid in ours if (one := processes.find(pid)) is not None]
            processes.send(struck, signal.SIGKILL)

        return Act(cut, lambda: self._installation.up(SilentProgress()))

    async def _processes(self, fault: Fault) -> list[Found]:
        """Return the living processes of the program that a fault strikes."""
        if fault.place is Place.HOST:
            states = await self._installation.services.states()
            pids = [state.pid for state in states if state.name == fault.part and state.running and state.pid]
            return processes.all_found(pids, lambda _: True)
        if fault.place is Place.MASTERS:
            pids = await self._pids_of(_MASTERS, labels=f"{ROLE_LABEL}={fault.part}")
        elif fault.place is Place.NODE:
            pids = await self._pids_of(_NODES, _STRUCK_NODE)
        else:
            pids = await self._pids_of("kube-system")
        return processes.all_found(pids, lambda pid: _program(pid) == fault.part)

    async def _pids_of(self, namespace: str, name: str = "", *, labels: str = "") -> list[int]:
        """Return the processes of pods; the kubelet knows pods from files on the host by another id than the API."""
        pods = await self._management.list(PODS, namespace, labels=labels)
        metadata = [pod["metadata"] for pod in pods if not name or pod["metadata"]["name"] == name]
        uids = [entry["uid"] for entry in metadata]
        uids += [entry["annotations"][_STATIC] for entry in metadata if _STATIC in entry.get("annotations", {})]
        return await asyncio.to_thread(self._table.of_pods, uids)


def load_manifest(name: str, part: str) -> Manifest:
    """Return a Deployment that uses up one thing of a tenant's nodes, with a pod on each if there is room."""
    scripts = {
        "processor": "for i in 1 2 3 4; do (while :; do :; done) & done; wait",
        "memory": "while :; do tail /dev/zero; sleep 0.2; done",
        "disk": "while :; do dd if=/dev/zero of=/scratch/load bs=1M count=256 conv=fsync 2>/dev/null; done",
    }
    labels = {"app": name}
    container = {
        "name": "load",
        "image": image_reference("toolbox"),
        "imagePullPolicy": "IfNotPresent",
        "args": ["sh", "-c", scripts[part]],
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    }
    pod = {
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
        "terminationGracePeriodSeconds": 0,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels},
            }
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": NODES_OF[VICTIM],
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _program(pid: int) -> str:
    """Return the name by which a process was started."""
    words = command_line(pid)
    return Path(words[0]).name if words else ""


def _filling(number: int) -> Manifest:
    metadata = {"name": f"filling-{number}", "namespace": "default"}
    data = {"random": secrets.token_hex(_FILLING)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _nodes(count: int) -> dict[str, Any]:
    return {"nodePools": [node_pool(count)]}
