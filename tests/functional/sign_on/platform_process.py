"""A whole platform's API in a process of its own, over TLS: ``python -m … FOLDER [PROVIDER-FILE]``.

It writes its authority, its administrator's token and its address into the folder, the address last.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvicorn
import yaml

from haneul.app.api import MIGRATIONS, create_api
from haneul.compliance.adapters.memory_looks import MemoryLooks
from haneul.dkos.adapters.backup_board import MemoryCatalogues
from haneul.dkos.adapters.kube_address_use import KubeAddressUse
from haneul.dkos.cluster_store import MemoryClusters
from haneul.dkos.event_log import MemoryEvents
from haneul.dkos.machine_store import MemoryMachines
from haneul.firewall.adapters.memory import MemoryApprovals
from haneul.identity.audit import AuditLog
from haneul.identity.issuer.assembly import IssuerSettings
from haneul.identity.issuer.relying import ProviderSettings
from haneul.identity.secrets import SecretHasher
from haneul.identity.service import Identity
from haneul.kernel.clock import SystemClock
from haneul.kernel.database import migrate, open_database
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf
from tests.functional.api.application import LIGHT, Authorities


async def main(folder: Path, provider: Path | None) -> None:
    now = datetime.now(UTC)
    authority = issue_authority("test authority", now=now)
    leaf = issue_leaf(
        authority, LeafProfile("test", addresses=("127.0.0.1",), server=True), now=now, life=timedelta(hours=1)
    )
    (folder / "ca.crt").write_bytes(authority.certificate)
    (folder / "tls.crt").write_bytes(leaf.certificate)
    (folder / "tls.key").write_bytes(leaf.key)
    clock, engine = SystemClock(), open_database(f"sqlite+aiosqlite:///{folder}/haneul.db")
    await migrate(engine, MIGRATIONS)
    hasher = SecretHasher(clock, LIGHT)
    identity = Identity(engine, audit=AuditLog(engine, clock=clock), hasher=hasher, clock=clock)
    (folder / "token").write_text((await identity.bootstrap_admin(now=now)).secret)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listening:
        origin = f"https://127.0.0.1:{listening.getsockname()[1]}"
        settings = ProviderSettings.model_validate(yaml.safe_load(provider.read_text())) if provider else None
        store, machines = MemoryClusters(clock), MemoryMachines()
        app = create_api(
            engine=engine,
            store=store,
            quotas=store,
            addresses=KubeAddressUse(MemoryKubeClient(clock=clock)),
            machines=machines,
            keys=machines,
            authorities=Authorities(),
            events=MemoryEvents(),
            looks=MemoryLooks(),
            board=MemoryApprovals(),
            backups=MemoryCatalogues(),
            reserved=[],
            clock=clock,
            version="test",
            clusters_trust_issuer=True,
            hasher=hasher,
            sign_on=IssuerSettings(origin=origin, key_file=folder / "issuer.key", provider=settings),
        )
        config = uvicorn.Config(
            app,
            ssl_certfile=str(folder / "tls.crt"),
            ssl_keyfile=str(folder / "tls.key"),
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
        (folder / "address.new").write_text(origin)
        (folder / "address.new").rename(folder / "address")
        await uvicorn.Server(config).serve(sockets=[listening])


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
