"""Registries side by side: the same cases, in turn, in one run, with authorisation on in every request.

Each case is measured several times, the registries taking turns, so that what else the machine does meets all alike;
what counts is the median of the rounds.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Sequence
from typing import Any, Final, Protocol

import httpx2

from haneul.bench.registry_figures import CASES, Case, RegistryFigures, RegistryPlan, Round
from haneul.bench.statistics import percentile
from haneul.kernel.clock import Clock
from haneul.kernel.errors import CommandFailedError
from haneul.kernel.progress import Progress

_MIB: Final = 1 << 20
REPOSITORY: Final = "bench/pulls"
PUSHED: Final = "bench/pushes"
_MANY: Final = tuple(f"bench/pushes-{number}" for number in range(32))
REPOSITORIES: Final = (REPOSITORY, PUSHED, *_MANY)
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"


class Registry(Protocol):
    """A registry that was started for the benchmark."""

    name: str
    address: str
    port: int

    async def authorization(self, repositories: Sequence[str]) -> str:
        """Return the header's value that lets everything be pulled from and pushed to these."""
        ...

    def memory_mib(self) -> float:
        """Return the resident memory of its processes."""
        ...


class RegistryBench:
    """Measures registries that run."""

    def __init__(self, registries: Sequence[Registry], *, clock: Clock, progress: Progress) -> None:
        self._registries, self._clock, self._progress = registries, clock, progress
        self._paths: dict[str, str] = {}

    async def run(self, plan: RegistryPlan, figures: RegistryFigures) -> None:
        """Measure every case; ``figures`` fills as it goes on."""
        for registry in self._registries:
            with self._progress.stage(f"images for {registry.name}"):
                await self._seed(registry)
        for case in CASES:
            about = plan.rounds * plan.seconds * len(self._registries)
            with self._progress.stage(case.name, expected_seconds=about):
                for _ in range(plan.rounds):
                    for registry in self._registries:
                        rounds = figures.rounds.setdefault(case.name, {}).setdefault(registry.name, [])
                        rounds.append(await self._measure(registry, case, plan.seconds))
        figures.memory |= {registry.name: registry.memory_mib() for registry in self._registries}

    async def _seed(self, registry: Registry) -> None:
        """Push one blob of each size, and an image that names them, as any client would."""
        base = f"http://{registry.address}:{registry.port}"
        headers = {"Authorization": await registry.authorization(REPOSITORIES)}
        async with httpx2.AsyncClient(base_url=base, headers=headers, timeout=120, trust_env=False) as http:
            entries = []
            for size in sorted({case.blob for case in CASES if case.blob}):
                data = bytes(index % 251 for index in range(4096)) * (size // 4096)
                entries.append(await _push_blob(http, data))
                self._paths[f"{size}"] = f"/v2/{REPOSITORY}/blobs/{entries[-1]['digest']}"
            document = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": entries[0], "layers": entries[1:]}
            content = json.dumps(document).encode()
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            path = f"/v2/{REPOSITORY}/manifests/"
            answer = await http.put(f"{path}latest", content=content, headers={"Content-Type": _MANIFEST})
            answer.raise_for_status()
            self._paths |= {"tag": f"{path}latest", "digest": f"{path}{digest}"}

    async def _measure(self, registry: Registry, case: Case, seconds: float) -> Round:
        repositories = _MANY if case.many else (PUSHED,)
        job: dict[str, Any] = {
            "kind": "push" if case.image else "pull",
            "address": registry.address,
            "port": registry.port,
            "host": f"{registry.address}:{registry.port}",
            "authorization": await registry.authorization(REPOSITORIES),
            "connections": case.connections,
            "seconds": seconds,
            "method": case.method,
            "path": self._paths.get(case.reference or str(case.blob), ""),
            "bytes": case.image,
            "repositories": list(repositories),
        }
        load = await _in_own_process(job)
        latencies = load["latencies"]
        if not latencies:
            raise CommandFailedError(f"{registry.name} answered nothing of {case.name!r}: {load['failures']}")
        return Round(
            rate=len(latencies) / load["seconds"],
            mib=load["moved"] / load["seconds"] / _MIB,
            p50=percentile(latencies, 0.5) * 1000,
            p99=percentile(latencies, 0.99) * 1000,
            failures=load["failures"],
        )


async def _push_blob(http: httpx2.AsyncClient, data: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    begun = await http.post(f"/v2/{REPOSITORY}/blobs/uploads/")
    begun.raise_for_status()
    # Kept whole: a query that the registry put there is part of the upload.
    location = begun.headers["location"]
    joint = "&" if "?" in location else "?"
    (await http.put(f"{location}{joint}digest={digest}", content=data)).raise_for_status()
    return {"mediaType": "application/octet-stream", "digest": digest, "size": len(data)}


async def _in_own_process(job: dict[str, Any]) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "haneul.bench.registry_load",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 26,
    )
    out, said = await asyncio.wait_for(process.communicate(json.dumps(job).encode()), job["seconds"] + 120)
    if process.returncode != 0:
        raise CommandFailedError(f"the load ended with {process.returncode}: {said.decode()[-500:]}")
    load: dict[str, Any] = json.loads(out)
    return load
