"""Where requests for a Service go when nodes' ports are the only way, and which openings that takes."""

from __future__ import annotations

from typing import Any

from haneul.ingress.model import Backend, Peer
from haneul.ingress.observed import Observed
from haneul.ingress.reach import OPENING_LABEL, NodePorts, PodAddresses, opening_of
from haneul.kernel.kube import SERVICES, Manifest, resource_of
from tests.unit.ingress.objects import endpoint, observed, service, slice_of

NODES = NodePorts(("10.192.0.11", "10.192.0.12"))
WEB = Backend("shop", "web", "http")


def exposed(number: int, **spec: Any) -> Manifest:
    made = service(**{"selector": {"app": "web"}, "type": "NodePort", **spec})
    made["spec"]["ports"][0]["nodePort"] = number
    return made


def inside() -> Manifest:
    made = service(selector={"app": "web"})
    made["metadata"]["uid"] = "uid-web"
    return made


def opened(service: Manifest, number: int = 31000) -> Manifest:
    """Return an opening as an API server shows it."""
    made = opening_of(service)
    for port in made["spec"]["ports"]:
        port |= {"nodePort": number, "targetPort": port.get("targetPort", port["port"])}
    made["spec"] |= {"clusterIP": "10.128.0.9", "externalTrafficPolicy": "Cluster"}
    return made


def test_a_service_with_ports_of_nodes_is_reached_at_these() -> None:
    seen = observed(exposed(30080))
    assert NODES.peers(seen, WEB) == (Peer("10.192.0.11", 30080), Peer("10.192.0.12", 30080))
    assert NODES.openings(seen, {WEB}) == []


def test_another_service_gets_an_opening() -> None:
    seen = observed(inside())
    assert NODES.peers(seen, WEB) == ()
    (opening,) = NODES.openings(seen, {WEB})
    assert opening["spec"]["type"] == "NodePort"
    assert opening["spec"]["selector"] == {"app": "web"}
    assert opening["metadata"]["labels"][OPENING_LABEL] == "web"
    assert [owner["uid"] for owner in opening["metadata"]["ownerReferences"]] == ["uid-web"]
    seen.see(SERVICES, opened(inside()))
    assert NODES.peers(seen, WEB) == (Peer("10.192.0.11", 31000), Peer("10.192.0.12", 31000))
    assert NODES.openings(seen, {WEB}) == []
    assert NODES.superfluous(seen, {WEB}) == []


def test_an_opening_follows_its_service() -> None:
    seen = observed(inside(), opened(inside()))
    changed = inside()
    changed["spec"]["selector"] = {"app": "other"}
    seen.see(SERVICES, changed)
    (opening,) = NODES.openings(seen, {WEB})
    assert opening["spec"]["selector"] == {"app": "other"}


def test_an_opening_goes_when_nobody_needs_it() -> None:
    opening = opened(inside())
    seen = observed(inside(), opening)
    assert [place.name for place in NODES.superfluous(seen, ())] == [opening["metadata"]["name"]]
    seen.see(SERVICES, exposed(30080))
    assert [place.name for place in NODES.superfluous(seen, {WEB})] == [opening["metadata"]["name"]]


def test_a_service_that_only_its_own_nodes_pass_on_gets_an_opening() -> None:
    seen = observed(exposed(30080, externalTrafficPolicy="Local"))
    assert NODES.peers(seen, WEB) == ()
    assert len(NODES.openings(seen, {WEB})) == 1


def test_without_a_pod_that_takes_requests_there_is_nowhere_to_go() -> None:
    seen = observed(exposed(30080), slice_of("web"))
    assert NODES.peers(seen, WEB) == ()


def test_endpoints_lead_nowhere_but_to_nodes() -> None:
    forged = slice_of("web", endpoint("10.192.0.99"), endpoint("192.0.2.1"), port=6443)
    seen = observed(exposed(30080), forged)
    assert {peer.address for peer in NODES.peers(seen, WEB)} == set(NODES.nodes)
    assert PodAddresses().peers(seen, WEB) == (Peer("10.192.0.99", 6443), Peer("192.0.2.1", 6443))


def test_a_port_that_no_api_server_gives_leads_nowhere() -> None:
    assert NODES.peers(observed(exposed(10250)), WEB) == ()


def test_somebody_elses_service_is_no_opening() -> None:
    seen = observed(inside())
    theirs = opened(inside())
    theirs["metadata"]["labels"] = {}
    seen.see(SERVICES, theirs)
    assert NODES.peers(seen, WEB) == ()
    assert NODES.superfluous(seen, ()) == []


def test_ports_without_a_protocol_of_streams_are_left_out() -> None:
    made = inside()
    made["spec"]["ports"].append({"name": "dns", "port": 53, "protocol": "UDP"})
    assert [port["name"] for port in opening_of(made)["spec"]["ports"]] == ["http"]


def test_a_service_that_is_not_there_needs_nothing() -> None:
    seen = Observed()
    seen.see(resource_of(inside()), inside())
    missing = Backend("shop", "none", "http")
    assert NODES.openings(seen, {missing}) == []
    assert NODES.peers(seen, missing) == ()
