"""What every way to pods has in common."""

from __future__ import annotations

import pytest

from haneul.ingress.model import Backend
from haneul.ingress.observed import Observed
from haneul.ingress.reach import NodePorts, PodAddresses, Reach
from haneul.kernel.kube import ENDPOINT_SLICES, SERVICES, Manifest
from tests.unit.ingress.objects import endpoint, observed, service, slice_of

WEB = Backend("shop", "web", "http")


@pytest.fixture(params=[PodAddresses(), NodePorts(("10.192.0.11", "10.192.0.12"))], ids=["pods", "nodes"])
def reach(request: pytest.FixtureRequest) -> Reach:
    found: Reach = request.param
    return found


def opened(reach: Reach, seen: Observed) -> Observed:
    """Let the cluster have every opening that is asked for, as its API server shows it."""
    for number, opening in enumerate(reach.openings(seen, {WEB})):
        for port in opening["spec"]["ports"]:
            port["nodePort"] = 30000 + number
        seen.see(SERVICES, opening)
    return seen


def web() -> Manifest:
    return service(selector={"app": "web"})


def test_a_pod_that_takes_requests_is_reached(reach: Reach) -> None:
    seen = opened(reach, observed(web()))
    assert reach.peers(seen, WEB)
    assert reach.openings(seen, {WEB}) == []
    assert reach.superfluous(seen, {WEB}) == []


def test_nothing_is_reached_where_no_pod_takes_requests(reach: Reach) -> None:
    seen = opened(reach, observed(web()))
    seen.see(ENDPOINT_SLICES, slice_of("web", endpoint("10.0.0.1", ready=False)))
    assert reach.peers(seen, WEB) == ()


def test_a_service_that_is_gone_is_not_reached(reach: Reach) -> None:
    seen = Observed()
    assert reach.peers(seen, WEB) == ()
    assert reach.openings(seen, {WEB}) == []


def test_somebody_elses_services_stay(reach: Reach) -> None:
    seen = observed(web(), service("other", type="NodePort"))
    assert reach.superfluous(seen, ()) == []


def test_peers_are_in_one_order(reach: Reach) -> None:
    pieces = [slice_of("web", endpoint("10.0.0.2"), name="b"), slice_of("web", endpoint("10.0.0.1"), name="a")]
    seen = opened(reach, observed(web(), *pieces))
    assert list(reach.peers(seen, WEB)) == sorted(set(reach.peers(seen, WEB)))
