"""CoreDNS beside which names are measured: it answers what it is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from haneul.app.dns_peer import serving
from haneul.app.installation import component_store
from haneul.dns.adapters.asking import ask
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HostNotReadyError

ZONE = "first.shop.k8s.example"


async def test_it_answers_the_names_of_its_zone_and_no_others(tmp_path: Path) -> None:
    try:
        program = component_store().program("coredns")
    except HostNotReadyError:
        pytest.skip("CoreDNS is built only when it is asked for: 'haneul components build coredns'")
    names = {f"a.prod.svc.{ZONE}": "10.0.0.1", f"b.prod.svc.{ZONE}": "10.0.0.2"}
    async with serving(program, tmp_path, ZONE, names, clock=SystemClock()) as (address, port):
        assert (await ask(address, port, f"b.prod.svc.{ZONE}.", "A")).values == ("10.0.0.2",)
        assert (await ask(address, port, f"c.prod.svc.{ZONE}.", "A")).code == "NXDOMAIN"
