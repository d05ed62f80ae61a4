"""A program that has one host certified and writes down what is to be shown: to be killed by tests at any moment."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from haneul.ingress.adapters.acme_authority import AcmeAuthority, Issuing
from haneul.ingress.adapters.certificate_folder import CertificateFolder
from haneul.ingress.issuing import Issuer
from haneul.kernel.clock import SystemClock
from haneul.kernel.files import write_atomically


async def certify(folder: Path, directory: str, trust: Path, host: str) -> None:
    store, clock = CertificateFolder(folder), SystemClock()
    authority = AcmeAuthority(Issuing(directory, (), store.account_key(), trust), clock)
    issuer = Issuer(authority, store, clock)
    if host in issuer.issued:
        (folder / "idle").touch()

    def show() -> None:
        # What one before this was asked for may be looked for until now.
        file = folder / "shown.json"
        before = json.loads(file.read_text()) if file.exists() else {}
        write_atomically(file, json.dumps({**before, **issuer.challenges}))
        issuer.serves([host], issuer.challenges)

    issuer.when_changed(show)
    show()
    await issuer.run()


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    asyncio.run(certify(Path(told["folder"]), told["directory"], Path(told["trust"]), told["host"]))
