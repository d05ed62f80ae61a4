"""Registries side by side: the same cases, in turn, in one run, with authorisation on in every request.

Each case is measured several times, the sides taking turns, so that what else the machine does meets all alike. Before
each round everything is written to the disk, so that nobody waits for what another left to the kernel. Two of our
registries take part: one of them is filled with tags before, and measured beside the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import ssl
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import httpx2

from haneul.bench.registry_connection import MANIFEST
from haneul.bench.registry_figures import BARE, FILLED, Case, RegistryFigures, RegistryPlan, Round
from haneul.bench.statistics import percentile
from haneul.kernel.clock import Clock
from haneul.kernel.errors import CommandFailedError
from haneul.kernel.process import run
from haneul.kernel.progress import Progress

_MIB: Final = 1 << 20
REPOSITORY: Final = "bench/pulls"
_PUSHED: Final = "bench/pushes"
_FIRST: Final = "bench/first"
_MANY: Final = tuple(f"bench/pushes-{number}" for number in range(16))
CATALOG: Final = "registry:catalog:*"
#: Tags of the image that is pulled; a case asks for one after the other.
_TAGS: Final = 100
#: Seconds beyond a round's own, for pushes that are under way at its end and for those that are not timed.
_GRACE: Final = 120.0
_FILL_SECONDS: Final = 1_800.0
#: Repositories that one token of ours is for, where many are filled.
_MOST_SCOPES: Final = 20
_LOOK_SECONDS: Final = 0.5
_SYNC_SECONDS: Final = 120.0


class Registry(Protocol):
    """A registry that was started for the benchmark. ``authority`` verifies its certificate; none for plain HTTP."""

    name: str
    address: str
    port: int
    authority: Path | None

    async def authorization(self, scope: str) -> str:
        """Return the header's value with a token for a scope (Docker's token specification)."""
        ...

    def memory_mib(self) -> float:
        """Return the resident memory of its process."""
        ...

    def cpu_seconds(self) -> float:
        """Return how long its process has used a processor."""
        ...


class RegistryBench:
    """Measures registries that run; their data and that of the load lie in ``folder``."""

    def __init__(self, registries: Sequence[Registry], folder: Path, *, clock: Clock, progress: Progress) -> None:
        self._registries, self._folder = registries, folder
        self._clock, self._progress = clock, progress
        self._blobs: dict[int, str] = {}
        self._manifest = ""

    async def run(self, plan: RegistryPlan, figures: RegistryFigures) -> None:
        """Measure every case; ``figures`` fills as it goes on."""
        sizes = sorted({case.blob for case in plan.cases if case.blob})
        for registry in self._registries:
            if registry.name != BARE:
                with self._progress.stage(f"images for {registry.name}"):
                    await self._seed(registry, sizes)
            if registry.name == FILLED:
                with self._progress.stage(f"{plan.tags} tags"):
                    await self._fill(registry, plan, figures)
        for case in plan.cases:
            sides = [registry for registry in self._registries if _takes_part(registry, case)]
            about = plan.rounds * (plan.seconds + 1) * len(sides)
            with self._progress.stage(case.name, expected_seconds=about):
                for turn in range(plan.rounds):
                    # Whoever was first is last the next time.
                    for registry in sides if turn % 2 == 0 else sides[::-1]:
                        rounds = figures.rounds.setdefault(case.name, {}).setdefault(registry.name, [])
                        async with self._watched(registry, figures):
                            rounds.append(await self._measure(registry, case, plan))

    async def _seed(self, registry: Registry, sizes: Sequence[int]) -> None:
        """Push one blob of each size, and an image that names them under many tags, as any client would."""
        scheme = "http" if registry.authority is None else "https"
        verify = True if registry.authority is None else ssl.create_default_context(cafile=str(registry.authority))
        headers = {"Authorization": await registry.authorization(_pushing(REPOSITORY))}
        base = f"{scheme}://{registry.address}:{registry.port}"
        async with httpx2.AsyncClient(
            base_url=base, headers=headers, verify=verify, timeout=120, trust_env=False
        ) as http:
            entries = [await _push_blob(http, b'{"os":"linux"}')]
            for size in sizes:
                entries.append(await _push_blob(http, bytes(index % 251 for index in range(4096)) * (size // 4096)))
                self._blobs[size] = entries[-1]["digest"]
            document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": entries[0], "layers": entries[1:]}
            content = json.dumps(document).encode()
            self._manifest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            for number in range(_TAGS):
                path = f"/v2/{REPOSITORY}/manifests/t{number:03}"
                answer = await http.put(path, content=content, headers={"Content-Type": MANIFEST})
                answer.raise_for_status()

    async def _fill(self, registry: Registry, plan: RegistryPlan, figures: RegistryFigures) -> None:
        """Give many repositories their tags, by the registry's own API; tokens are renewed before they end."""
        names = [f"filled-{number // 100}/app-{number}" for number in range(plan.repositories)]
        started, done = self._clock.monotonic(), 0
        for at in range(0, len(names), 100):
            tokens: dict[str, str] = {}
            for first in range(at, min(at + 100, len(names)), _MOST_SCOPES):
                together = names[first : min(first + _MOST_SCOPES, at + 100)]
                token = await registry.authorization(" ".join(map(_pushing, together)))
                tokens |= dict.fromkeys(together, token)
            job = _job(registry, "fill", tokens) | {"connections": 8, "tags": plan.tags // plan.repositories}
            load = await self._load(job, _FILL_SECONDS)
            if load["failures"]:
                raise CommandFailedError(f"{registry.name} could not be filled: {load['failures']}")
            done += len(load["latencies"])
        figures.tags = done
        figures.filled_per_second = done / (self._clock.monotonic() - started)

    async def _measure(self, registry: Registry, case: Case, plan: RegistryPlan) -> Round:
        await run(["sync", "--file-system", str(self._folder)], timeout=_SYNC_SECONDS)
        job = await self._case_job(registry, case, plan)
        before = registry.cpu_seconds()
        load = await self._load(job, plan.seconds + _GRACE)
        used = registry.cpu_seconds() - before
        latencies = load["latencies"]
        if not latencies:
            raise CommandFailedError(f"{registry.name} answered nothing of {case.name!r}: {load['failures']}")
        return Round(
            rate=len(latencies) / load["seconds"],
            mib=load["moved"] / load["seconds"] / _MIB,
            p50=percentile(latencies, 0.5) * 1000,
            p99=percentile(latencies, 0.99) * 1000,
            failures=load["failures"],
            # Images are also pushed in a round of first pulls, and the bare responder's processes are many.
            cpu=0.0 if case.first or registry.name == BARE else used / len(latencies) * 1000,
        )

    async def _case_job(self, registry: Registry, case: Case, plan: RegistryPlan) -> dict[str, Any]:
        """Return what the load does. Tokens are for what is asked for and nothing else, as clients' are."""
        timed = {"connections": case.connections, "seconds": plan.seconds}
        if case.repeats:
            pulls = f"repository:{REPOSITORY}:pull"
            token = await registry.authorization(CATALOG if case.reference == "catalog" else pulls)
            paths = [f"/{case.blob or 1024}"] if registry.name == BARE else self._paths(case)
            return _job(registry, "pull", {}) | timed | {"method": case.method, "paths": paths, "authorization": token}
        names = (_FIRST,) if case.first else _MANY if case.many else (_PUSHED,)
        tokens = {name: await registry.authorization(_pushing(name)) for name in names}
        most = max(plan.push_mib * _MIB // case.image, 1)
        kind = "first" if case.first else "push"
        return _job(registry, kind, tokens) | timed | {"bytes": case.image, "most": most, "images": plan.images}

    def _paths(self, case: Case) -> list[str]:
        if case.blob:
            return [f"/v2/{REPOSITORY}/blobs/{self._blobs[case.blob]}"]
        paths = {
            "tag": [f"/v2/{REPOSITORY}/manifests/t{number:03}" for number in range(_TAGS)],
            "digest": [f"/v2/{REPOSITORY}/manifests/{self._manifest}"],
            "tags": [f"/v2/{REPOSITORY}/tags/list?n={_TAGS}"],
            "catalog": ["/v2/_catalog?n=10"],
        }
        return paths[case.reference]

    async def _load(self, job: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Do a job in a process of its own, and return its figures."""
        # Programs in Go, which most clients are, prefer this cipher; OpenSSL would choose a slower one.
        settings = self._folder / "openssl.cnf"
        settings.write_text(
            "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n[tls]\n"
            "MinProtocol = TLSv1.3\nCiphersuites = TLS_AES_128_GCM_SHA256\n"
        )
        done = await run(
            [sys.executable, "-m", "haneul.bench.registry_load"],
            stdin=json.dumps(job).encode(),
            env={"OPENSSL_CONF": str(settings)},
            timeout=seconds,
        )
        load: dict[str, Any] = json.loads(done.stdout)
        return load

    @contextlib.asynccontextmanager
    async def _watched(self, registry: Registry, figures: RegistryFigures) -> AsyncIterator[None]:
        """Look at a registry's memory while it is under load, and once after that."""

        def look() -> None:
            figures.memory[registry.name] = max(figures.memory.get(registry.name, 0.0), registry.memory_mib())

        async def watch() -> None:
            while True:
                look()
                await self._clock.sleep(_LOOK_SECONDS)

        watching = asyncio.ensure_future(watch())
        try:
            yield
            look()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def _takes_part(registry: Registry, case: Case) -> bool:
    if registry.name == BARE:
        return case.repeats and case.group != "lists"
    return case.grows or registry.name != FILLED


def _pushing(repository: str) -> str:
    return f"repository:{repository}:pull,push"


def _job(registry: Registry, kind: str, tokens: Mapping[str, str]) -> dict[str, Any]:
    return {
        "kind": kind,
        "address": registry.address,
        "port": registry.port,
        "authority": "" if registry.authority is None else str(registry.authority),
        "authorizations": dict(tokens),
    }


async def _push_blob(http: httpx2.AsyncClient, data: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    begun = await http.post(f"/v2/{REPOSITORY}/blobs/uploads/")
    begun.raise_for_status()
    # Kept whole: a query that the registry put there is part of the upload.
    location = begun.headers["location"]
    joint = "&" if "?" in location else "?"
    (await http.put(f"{location}{joint}digest={digest}", content=data)).raise_for_status()
    return {"mediaType": "application/octet-stream", "digest": digest, "size": len(data)}
