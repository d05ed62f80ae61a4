"""Whatever stands in an Ingress, nginx takes the configuration, and nothing else is served otherwise."""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haneul.kernel.kube import Manifest
from tests.ingress_proxy import Application, ground
from tests.unit.ingress.gateway_objects import gateway, gateway_class
from tests.unit.ingress.objects import ingress
from tests.unit.ingress.test_gateway_api import hostile_route
from tests.unit.ingress.test_rendering import hostile_ingress

MANY = st.lists(st.one_of(hostile_ingress(), hostile_route()), min_size=20, max_size=20)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(MANY)
def test_nginx_takes_what_was_parsed(objects: list[Manifest]) -> None:
    async def take() -> None:
        async with ground() as made:
            for number, evil in enumerate(objects):
                evil["metadata"]["name"] = f"evil-{number}"
                made.see(evil)
            made.see(ingress("web"), gateway_class(), gateway())
            made.point("web", Application("none", port=9))
            configuration, _ = made.made()
            await made.proxy.check(configuration)

    asyncio.run(take())
