"""Statuses of the Gateway API: written where they differ, with what others wrote into them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from haneul.ingress.states import ClassState, Condition, GatewayState, ListenerState, ParentState, RouteState
from haneul.ingress.statuses import status_patch
from haneul.kernel.kube import Manifest
from haneul.kernel.kube_objects import Place
from tests.unit.ingress.gateway_objects import gateway, gateway_class, http_route
from tests.unit.ingress.objects import NOW

LATER = NOW + timedelta(hours=1)
MOMENT, LATER_MOMENT = "2026-11-27T00:00:00Z", "2026-11-27T01:00:00Z"
ADDRESSES = ("192.0.2.10", "lb.example.com")


def accepted(*, holds: bool = True, reason: str = "Accepted") -> Condition:
    return Condition("Accepted", holds=holds, reason=reason)


def route_state(*conditions: Condition) -> RouteState:
    return RouteState(Place("HTTPRoute", "shop", "web"), (ParentState((("name", "web"),), conditions),))


def patched(manifest: Manifest, patch: Manifest | None) -> Manifest:
    assert patch is not None
    return {**manifest, "status": {**manifest.get("status", {}), **patch["status"]}}


def test_a_condition_has_all_fields_and_is_written_once() -> None:
    manifest, state = http_route(), route_state(accepted())
    made = patched(manifest, status_patch(state, manifest, (), NOW))
    [parent] = made["status"]["parents"]
    assert parent["parentRef"] == {"name": "web"}
    assert parent["controllerName"] == "haneul.dev/ingress"
    assert parent["conditions"] == [
        {
            "type": "Accepted",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": MOMENT,
            "reason": "Accepted",
            "message": "",
        }
    ]
    assert status_patch(state, made, (), LATER) is None


def test_the_moment_is_that_of_the_last_change_and_the_generation_the_last_seen() -> None:
    manifest = http_route()
    made = patched(manifest, status_patch(route_state(accepted()), manifest, (), NOW))
    made["metadata"]["generation"] = 2

    def condition(of: Manifest) -> dict[str, Any]:
        [found] = of["status"]["parents"][0]["conditions"]
        return dict(found)

    again = patched(made, status_patch(route_state(accepted()), made, (), LATER))
    assert (condition(again)["lastTransitionTime"], condition(again)["observedGeneration"]) == (MOMENT, 2)
    refused = accepted(holds=False, reason="NoMatchingParent")
    changed = patched(again, status_patch(route_state(refused), again, (), LATER))
    assert condition(changed)["lastTransitionTime"] == LATER_MOMENT
    assert condition(changed)["status"] == "False"


def test_what_other_controllers_say_stays_and_ours_goes_when_it_is_over() -> None:
    other = {"parentRef": {"name": "web"}, "controllerName": "example.com/other", "conditions": []}
    manifest = {**http_route(), "status": {"parents": [other]}}
    manifest["metadata"]["resourceVersion"] = "7"
    patch = status_patch(route_state(accepted()), manifest, (), NOW)
    assert patch
    assert patch["metadata"] == {"resourceVersion": "7"}
    made = patched(manifest, patch)
    assert [entry["controllerName"] for entry in made["status"]["parents"]] == [
        "example.com/other",
        "haneul.dev/ingress",
    ]
    gone = status_patch(RouteState(Place("HTTPRoute", "shop", "web"), ()), made, (), NOW)
    assert gone
    assert gone["status"] == {"parents": [other]}


def test_a_condition_that_does_not_hold_any_more_goes() -> None:
    manifest = http_route()
    partly = Condition("PartiallyInvalid", holds=True, reason="UnsupportedValue")
    made = patched(manifest, status_patch(route_state(accepted(), partly), manifest, (), NOW))
    made["status"]["parents"][0]["conditions"].append({"type": "example.com/Seen", "status": "True"})
    again = patched(made, status_patch(route_state(accepted()), made, (), NOW))
    assert [found["type"] for found in again["status"]["parents"][0]["conditions"]] == ["Accepted", "example.com/Seen"]


def test_gateways_have_addresses_and_listeners_and_classes_conditions() -> None:
    manifest = gateway()
    state = GatewayState(
        Place("Gateway", "shop", "web"), (accepted(),), (ListenerState("http", 3, ("HTTPRoute",), (accepted(),)),)
    )
    made = patched(manifest, status_patch(state, manifest, ADDRESSES, NOW))
    assert made["status"]["addresses"] == [
        {"type": "IPAddress", "value": "192.0.2.10"},
        {"type": "Hostname", "value": "lb.example.com"},
    ]
    [listener] = made["status"]["listeners"]
    assert (listener["name"], listener["attachedRoutes"]) == ("http", 3)
    assert listener["supportedKinds"] == [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}]
    assert status_patch(state, made, ADDRESSES, LATER) is None
    told = status_patch(ClassState(Place("GatewayClass", "", "haneul"), (accepted(),)), gateway_class(), (), NOW)
    assert told
    assert told["status"]["conditions"][0]["type"] == "Accepted"
