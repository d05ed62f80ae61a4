"""From Gateways and HTTPRoutes to servers and statuses: attachment, precedence, conflicts, and what each is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haneul.ingress.attachments import common, covering, covers, precision
from haneul.ingress.model import Certificate, Match, Path, Reason, Routes, Scheme, Server
from haneul.ingress.observed import Observed
from haneul.ingress.options import Options
from haneul.ingress.rendering import render_configuration
from haneul.ingress.routes import compile_routes, hosts_asked_for
from haneul.ingress.states import ClassState, Condition, GatewayState, RouteState
from haneul.ingress.table import table_of
from haneul.kernel.kube import GATEWAYS, HTTP_ROUTES, Manifest
from haneul.kernel.kube_objects import Place
from tests.unit.ingress import nginx_text
from tests.unit.ingress.gateway_objects import (
    answer_headers,
    backend,
    from_all,
    full_path,
    gateway,
    gateway_class,
    grant,
    http_route,
    listener,
    match,
    prefix,
    redirect,
    request_headers,
    rewrite,
    rule,
)
from tests.unit.ingress.objects import HOST, NOW, certificate, ingress, observed, secret, service, tls_secret
from tests.unit.ingress.test_rendering import SITE, servers

GROUP = "gateway.networking.k8s.io"


def seen(*manifests: Manifest) -> Observed:
    return observed(gateway_class(), *manifests)


def compiled(*manifests: Manifest, **options: Any) -> Routes:
    return compile_routes(seen(*manifests), Options(**options), NOW)


def server(routes: Routes, host: str = HOST, scheme: Scheme = Scheme.HTTP) -> Server:
    [found] = [one for one in routes.servers if one.host == host and scheme in one.schemes]
    return found


def hosts(routes: Routes) -> list[str]:
    return [one.host for one in routes.servers]


def routes_of(found: Server) -> list[tuple[str, str]]:
    return [(location.ingress.name, location.path.text) for location in found.locations]


def said(conditions: tuple[Condition, ...]) -> dict[str, tuple[bool, str]]:
    return {one.type: (one.holds, one.reason) for one in conditions}


def gateway_state(routes: Routes, name: str = "web") -> GatewayState:
    [found] = [one for one in routes.states if isinstance(one, GatewayState) and one.place.name == name]
    return found


def listener_said(routes: Routes, name: str = "http") -> dict[str, tuple[bool, str]]:
    [found] = [one for one in gateway_state(routes).listeners if one.name == name]
    return said(found.conditions)


def parents_said(routes: Routes, name: str = "web") -> list[dict[str, tuple[bool, str]]]:
    [found] = [one for one in routes.states if isinstance(one, RouteState) and one.place.name == name]
    return [said(parent.conditions) for parent in found.parents]


def accepted(routes: Routes, name: str = "web") -> tuple[bool, str]:
    [found] = parents_said(routes, name)
    return found["Accepted"]


def problems(routes: Routes) -> dict[str, list[Reason]]:
    found: dict[str, list[Reason]] = {}
    for problem in routes.problems:
        found.setdefault(problem.ingress.name, []).append(problem.reason)
    return found


GOOD = (True, "Accepted")


def test_a_route_at_a_gateway_of_our_class_is_served_and_all_are_told() -> None:
    routes = compiled(gateway(), http_route(hosts=[HOST]))
    found = server(routes)
    assert (found.schemes, found.for_routes, routes_of(found)) == (frozenset({Scheme.HTTP}), True, [("web", "/")])
    assert accepted(routes) == GOOD
    assert parents_said(routes)[0]["ResolvedRefs"] == (True, "ResolvedRefs")
    state = gateway_state(routes)
    assert said(state.conditions) == {"Accepted": GOOD, "Programmed": (True, "Programmed")}
    assert (state.listeners[0].attached, state.listeners[0].kinds) == (1, ("HTTPRoute",))
    assert listener_said(routes) == {
        "Accepted": GOOD,
        "Programmed": (True, "Programmed"),
        "ResolvedRefs": (True, "ResolvedRefs"),
        "Conflicted": (False, "NoConflicts"),
    }
    [told] = [one for one in routes.states if isinstance(one, ClassState)]
    assert said(told.conditions) == {"Accepted": GOOD}
    assert routes.served == {Place("HTTPRoute", "shop", "web")}


@pytest.mark.parametrize(
    "objects",
    [
        [gateway_class("other", "example.com/other"), gateway(class_name="other"), http_route(hosts=[HOST])],
        [gateway(class_name="none"), http_route(hosts=[HOST])],
        [http_route(hosts=[HOST])],
        [gateway(), http_route(hosts=[HOST], parents=[{"name": "web", "kind": "Service", "group": ""}])],
    ],
)
def test_what_is_not_ours_is_left_alone(objects: list[Manifest]) -> None:
    routes = compiled(*objects)
    assert routes.servers == ()
    assert not [one for one in routes.states if isinstance(one, RouteState)]


def test_a_class_with_parameters_is_refused_and_its_gateways_are_not_served() -> None:
    routes = compiled(gateway_class(parametersRef={"name": "x"}), gateway(), http_route(hosts=[HOST]))
    [told] = routes.states
    assert isinstance(told, ClassState)
    assert said(told.conditions) == {"Accepted": (False, "InvalidParameters")}
    assert routes.servers == ()


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("a.example.com", "", "a.example.com"),
        ("", "*.example.com", "*.example.com"),
        ("a.example.com", "*.example.com", "a.example.com"),
        ("*.example.com", "a.b.example.com", "a.b.example.com"),
        ("*.a.example.com", "*.example.com", "*.a.example.com"),
        ("example.com", "*.example.com", None),
        ("a.example.com", "b.example.com", None),
        ("xexample.com", "*.example.com", None),
        ("*.example.com", "*.example.org", None),
    ],
)
def test_of_two_hosts_the_more_precise_one_is_served(one: str, other: str, both: str | None) -> None:
    assert common(one, other) == both
    assert common(other, one) == both
    if both is not None:
        assert covers(one, both)
        assert covers(other, both)


@pytest.mark.parametrize(
    ("host", "wider"),
    [
        ("a.b.example.com", ["a.b.example.com", "*.b.example.com", "*.example.com", "*.com", ""]),
        ("*.example.com", ["*.example.com", "*.com", ""]),
        ("", [""]),
    ],
)
def test_a_host_is_covered_by_wider_ones_the_most_precise_first(host: str, wider: list[str]) -> None:
    assert covering(host) == wider
    assert all(covers(one, host) for one in wider)
    assert sorted(wider, key=precision, reverse=True) == wider


def test_a_route_has_only_hosts_that_its_listener_has_too() -> None:
    routes = compiled(
        gateway("web", listener("http", "*.example.com")),
        http_route("some", hosts=["a.example.com", "b.example.org", "*.example.com"]),
        http_route("any"),
        http_route("none", hosts=["example.org"]),
    )
    assert hosts(routes) == ["*.example.com", "a.example.com"]
    assert accepted(routes, "none") == (False, "NoMatchingListenerHostname")
    assert accepted(routes, "any") == GOOD
    assert gateway_state(routes).listeners[0].attached == 2


def test_parents_are_named_by_section_and_port() -> None:
    parents: list[Manifest] = [
        {"name": "web", "sectionName": "b"},
        {"name": "web", "sectionName": "c"},
        {"name": "web", "port": 8080},
    ]
    listeners = [listener("a", "a.example.com"), listener("b", "b.example.com")]
    routes = compiled(gateway("web", *listeners), http_route(parents=parents))
    assert hosts(routes) == ["b.example.com"]
    assert [told["Accepted"] for told in parents_said(routes)] == [GOOD, *[(False, "NoMatchingParent")] * 2]
    [state] = [one for one in routes.states if isinstance(one, RouteState)]
    assert dict(state.parents[0].reference) == parents[0]


def namespace(name: str, **labels: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


@pytest.mark.parametrize(
    ("allowed", "served"),
    [
        ({}, ["shop"]),
        ({"namespaces": {"from": "Same"}}, ["shop"]),
        ({"namespaces": {"from": "All"}}, ["other", "shop", "third"]),
        ({"namespaces": {"from": "None"}}, []),
        ({"namespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "x"}}}}, ["other"]),
        (
            {
                "namespaces": {
                    "from": "Selector",
                    "selector": {
                        "matchExpressions": [
                            {"key": "team", "operator": "In", "values": ["x", "y"]},
                            {"key": "old", "operator": "DoesNotExist"},
                        ]
                    },
                }
            },
            ["other"],
        ),
        (
            {
                "namespaces": {
                    "from": "Selector",
                    "selector": {
                        "matchExpressions": [
                            {"key": "team", "operator": "NotIn", "values": ["x"]},
                            {"key": "old", "operator": "Exists"},
                        ]
                    },
                }
            },
            ["third"],
        ),
        ({"kinds": [{"kind": "GRPCRoute"}]}, []),
    ],
)
def test_listeners_say_from_where_routes_come(allowed: Manifest, served: list[str]) -> None:
    spaces = [namespace("shop"), namespace("other", team="x"), namespace("third", team="y", old="yes")]
    names = ("shop", "other", "third")
    parents = [{"name": "web", "namespace": "shop"}]
    made = [http_route(name, rule(match(f"/{name}")), hosts=[HOST], namespace=name, parents=parents) for name in names]
    services = [service(namespace=name) for name in names]
    routes = compiled(gateway("web", listener(allowedRoutes=allowed)), *spaces, *made, *services)
    assert sorted({place.name for place in routes.served}) == served
    for name in set(names) - set(served):
        assert accepted(routes, name) == (False, "NotAllowedByListeners")


def test_kinds_that_are_not_served_are_told() -> None:
    routes = compiled(gateway("web", listener(allowedRoutes={"kinds": [{"kind": "HTTPRoute"}, {"kind": "TCPRoute"}]})))
    assert listener_said(routes)["ResolvedRefs"] == (False, "InvalidRouteKinds")
    assert gateway_state(routes).listeners[0].kinds == ("HTTPRoute",)


@pytest.mark.parametrize(
    ("made", "condition", "reason"),
    [
        (listener(port=8080), "Accepted", "PortUnavailable"),
        (listener(protocol="TCP"), "Accepted", "UnsupportedProtocol"),
        (listener(secret="c", tls={"mode": "Passthrough"}), "Accepted", "UnsupportedProtocol"),
        (listener(secret="none"), "ResolvedRefs", "InvalidCertificateRef"),
        (listener(secret="broken"), "ResolvedRefs", "InvalidCertificateRef"),
        (
            listener(secret="c", tls={"certificateRefs": [{"name": "c", "kind": "X"}]}),
            "ResolvedRefs",
            "InvalidCertificateRef",
        ),
        (listener(secret="c", tls={"certificateRefs": []}), "ResolvedRefs", "InvalidCertificateRef"),
        (listener(secret="c", secret_namespace="vault"), "ResolvedRefs", "RefNotPermitted"),
    ],
)
def test_a_listener_that_is_wrong_is_told_and_not_served(made: Manifest, condition: str, reason: str) -> None:
    pair = certificate(HOST, now=NOW)
    objects = [tls_secret("c", pair), tls_secret("c", pair, namespace="vault"), secret("broken", tls_crt=b"x")]
    good = listener("good", "good.example.com")
    routes = compiled(gateway("web", made, good), http_route(hosts=[HOST, "good.example.com"]), *objects)
    told = listener_said(routes)
    assert told[condition] == (False, reason)
    assert told["Programmed"] == (False, "Invalid")
    assert hosts(routes) == ["good.example.com"]
    assert said(gateway_state(routes).conditions)["Accepted"] == (True, "ListenersNotValid")
    alone = compiled(gateway("web", made), *objects)
    assert said(gateway_state(alone).conditions) == {
        "Accepted": (False, "ListenersNotValid"),
        "Programmed": (False, "Invalid"),
    }


def test_a_certificate_of_another_namespace_needs_a_grant() -> None:
    pair = certificate(HOST, now=NOW)
    objects = [
        gateway("web", listener("https", HOST, secret="c", secret_namespace="vault")),
        http_route(hosts=[HOST]),
        tls_secret("c", pair, namespace="vault"),
    ]
    for other in (
        grant("Gateway", GROUP, "shop", to="Secret", into="shop"),
        grant("Gateway", GROUP, "other", to="Secret", into="vault"),
        grant("HTTPRoute", GROUP, "shop", to="Secret", into="vault"),
        grant("Gateway", GROUP, "shop", to="Secret", target="d", into="vault"),
    ):
        assert compiled(*objects, other).servers == ()
    for target in ("", "c"):
        routes = compiled(*objects, grant("Gateway", GROUP, "shop", to="Secret", target=target, into="vault"))
        found = server(routes, scheme=Scheme.HTTPS)
        assert found.certificate == Certificate(pair.certificate, found.certificate.key if found.certificate else b"")
        assert found.schemes == {Scheme.HTTPS}


def test_listeners_of_one_host_are_in_conflict() -> None:
    routes = compiled(gateway("web", listener("http"), listener("b", HOST), listener("c", HOST)), http_route())
    for name in ("b", "c"):
        assert listener_said(routes, name)["Conflicted"] == (True, "HostnameConflict")
        assert listener_said(routes, name)["Programmed"] == (False, "Invalid")
    assert listener_said(routes)["Programmed"] == (True, "Programmed")


def test_addresses_that_are_not_ours_cannot_be_used() -> None:
    asked = [{"type": "IPAddress", "value": "192.0.2.10"}, {"type": "IPAddress", "value": "192.0.2.99"}]
    routes = compiled(gateway(addresses=asked), addresses=("192.0.2.10",))
    assert said(gateway_state(routes).conditions)["Programmed"] == (False, "AddressNotUsable")
    routes = compiled(gateway(addresses=asked[:1]), addresses=("192.0.2.10",))
    assert said(gateway_state(routes).conditions)["Programmed"] == (True, "Programmed")


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        (backend("none"), "BackendNotFound"),
        (backend("web", 81), "BackendNotFound"),
        (backend("outside"), "BackendNotFound"),
        (backend("web", kind="Pod"), "InvalidKind"),
        (backend("web", group="example.com"), "InvalidKind"),
        (backend("web", namespace="other"), "RefNotPermitted"),
    ],
)
def test_a_backend_that_is_wrong_is_told_and_has_its_part_all_the_same(reference: Manifest, reason: str) -> None:
    outside = service("outside", type="ExternalName")
    other = service(namespace="other")
    routes = compiled(gateway(), http_route("web", rule(to=["web", reference])), outside, other)
    assert parents_said(routes)[0]["ResolvedRefs"] == (False, reason)
    assert accepted(routes) == GOOD
    assert problems(routes) == {"web": [Reason.BACKEND_MISSING]}
    [entry] = table_of(routes, seen().peers).entries.values()
    assert entry["shares"] == [{"weight": 1, "peers": [["10.0.0.1", 8080]]}, {"weight": 1, "missing": True}]


def test_a_backend_of_another_namespace_needs_a_grant() -> None:
    objects = [gateway(), http_route("web", rule(to=[backend("web", namespace="other")])), service(namespace="other")]
    routes = compiled(*objects, grant("HTTPRoute", GROUP, "shop", to="Service", into="other"))
    assert parents_said(routes)[0]["ResolvedRefs"] == (True, "ResolvedRefs")


def test_of_several_matches_the_most_precise_goes_first() -> None:
    routes = compiled(
        gateway(),
        http_route("young", rule(match("/a")), hosts=[HOST], age=5),
        http_route(
            "old",
            rule(match("/a", queries={"x": "1", "y": "1"})),
            rule(match("/a", headers={"x": "1"})),
            rule(match("/a", headers={"x": "1", "y": "1"})),
            rule(match("/a", method="GET")),
            rule(match("/a")),
            rule(match("/a/b")),
            rule(match("/a", "Exact")),
            hosts=[HOST],
            age=1,
        ),
    )
    [*found] = server(routes).locations
    assert [(one.path.match.value, one.path.text, one.ingress.name) for one in found] == [
        ("Exact", "/a", "old"),
        ("Prefix", "/a/b", "old"),
        *[("Prefix", "/a", "old")] * 5,
        ("Prefix", "/a", "young"),
    ]
    assert [one.conditions.precedence for one in found[2:]] == [
        (False, 0, 0),
        (True, -2, 0),
        (True, -1, 0),
        (True, 0, -2),
        (True, 0, 0),
        (True, 0, 0),
    ]


@pytest.mark.parametrize(
    ("path", "covering"),
    [
        (Path(Match.EXACT, "/a/b"), ["Exact /a/b", "Prefix /a/b", "Prefix /a", "Prefix /"]),
        (Path(Match.EXACT, "/a/"), ["Exact /a/", "Prefix /a/", "Prefix /a", "Prefix /"]),
        (Path(Match.PREFIX, "/a/b"), ["Prefix /a/b", "Prefix /a", "Prefix /"]),
        (Path(Match.PREFIX, "/"), ["Prefix /"]),
        (Path(Match.EXPRESSION, "/a"), ["Expression /a"]),
    ],
)
def test_a_path_is_covered_by_those_above_it(path: Path, covering: list[str]) -> None:
    assert [f"{one.match} {one.text}" for one in path.covering] == covering


def test_a_path_leads_on_to_those_above_it_until_one_takes_everything() -> None:
    routes = compiled(
        gateway(),
        http_route(
            "web",
            rule(match("/a/b", method="PUT")),
            rule(match("/a", headers={"x": "1"})),
            rule(match("/")),
            hosts=[HOST],
        ),
    )
    spots = {spot.path.text: [one.path.text for one in spot.locations] for spot in server(routes).spots}
    assert spots == {"/a/b": ["/a/b", "/a", "/"], "/a": ["/a", "/"], "/": ["/"]}
    text = render_configuration(routes, SITE).text
    assert text.count("pick(") == 4
    assert len(routes.choices) == 2


def test_a_host_is_for_ingress_objects_or_for_routes_whichever_is_older() -> None:
    both = [gateway(), http_route("new", rule(match("/admin")), hosts=[HOST], age=9)]
    routes = compiled(*both, ingress("old", age=1))
    [one] = routes.servers
    assert not one.for_routes
    assert accepted(routes, "new") == (False, "HostTaken")
    assert problems(routes) == {"new": [Reason.HOST_TAKEN]}
    assert "belongs to Ingress shop/old" in routes.problems[0].message
    routes = compiled(*both, ingress("newer", age=10))
    [one] = routes.servers
    assert one.for_routes
    assert problems(routes) == {"newer": [Reason.HOST_TAKEN]}
    assert "belongs to HTTPRoute shop/new" in routes.problems[0].message


def test_a_host_belongs_to_the_namespace_of_the_gateway_of_the_oldest_route() -> None:
    thief = http_route("thief", rule(match("/login")), hosts=[HOST], namespace="evil", age=5)
    objects = [
        gateway("web", listener(allowedRoutes=from_all())),
        gateway("web", listener("http", HOST), namespace="evil"),
        http_route("web", hosts=[HOST], age=1),
        http_route(
            "guest",
            rule(match("/guest")),
            hosts=[HOST],
            namespace="friend",
            age=7,
            parents=[{"name": "web", "namespace": "shop"}],
        ),
        thief,
        service(namespace="evil"),
        service(namespace="friend"),
    ]
    routes = compiled(*objects)
    assert routes_of(server(routes)) == [("guest", "/guest"), ("web", "/")]
    assert accepted(routes, "thief") == (False, "HostTaken")
    shared = compiled(*objects, hosts_across_namespaces=True)
    # The listener with the more precise host has all requests for it then.
    assert routes_of(server(shared)) == [("thief", "/login")]


def test_hosts_that_the_cluster_may_not_serve_are_refused() -> None:
    objects = [gateway("web", listener("http", "*.example.com")), http_route(hosts=["bad.example.com", HOST])]
    assert hosts_asked_for(seen(*objects)) == ["*.example.com", "bad.example.com", HOST]
    routes = compiled(*objects, refused_hosts={"bad.example.com": "it is another's"})
    assert hosts(routes) == [HOST]
    assert problems(routes) == {"web": [Reason.HOST_REFUSED]}
    assert accepted(routes) == GOOD


@pytest.mark.parametrize(
    "wrong",
    [
        rule(match("/a.*", "RegularExpression")),
        rule({"headers": [{"name": "x", "value": "1", "type": "RegularExpression"}]}),
        rule({"queryParams": [{"name": "x", "value": "1", "type": "RegularExpression"}]}),
        rule(match("/x"), filters=[{"type": "RequestMirror"}]),
        rule(match("/x"), filters=[{"type": "ExtensionRef"}]),
        rule(match("/x"), filters=[request_headers(set={"Connection": "close"})]),
        rule(match("/x"), filters=[request_headers(set={"X-Haneul-User": "root"})]),
        rule(match("/x"), filters=[answer_headers(set={"x": "a\r\nb: c"})]),
        rule(match("/x"), filters=[redirect(hostname="*.example.com")]),
        rule(match("/x"), filters=[redirect(scheme="javascript")]),
        rule(match("/x"), filters=[rewrite(path=full_path("/../x"))]),
        rule(match("/x"), filters=[rewrite(path=prefix("/x")), redirect()]),
    ],
)
def test_a_rule_that_cannot_be_done_is_told_and_the_others_are_served(wrong: Manifest) -> None:
    routes = compiled(gateway(), http_route("web", wrong, rule(match("/good")), hosts=[HOST]))
    opened = [one.path.text for one in server(routes).locations if not one.closed]
    assert opened == ["/good"]
    [told] = parents_said(routes)
    assert (told["Accepted"], told["PartiallyInvalid"]) == (GOOD, (True, "UnsupportedValue"))
    assert problems(routes) == {"web": [Reason.FIELD_REFUSED]}
    alone = compiled(gateway(), http_route("web", wrong, hosts=[HOST]))
    assert accepted(alone) == (False, "UnsupportedValue")


def test_fields_that_do_nothing_here_are_told() -> None:
    routes = compiled(gateway(), http_route("web", {**rule(), "timeouts": {"request": "10s"}}))
    assert problems(routes) == {"web": [Reason.FIELD_REFUSED]}
    assert accepted(routes) == GOOD


def test_one_that_the_proxy_does_not_take_is_closed_or_left_out() -> None:
    place = Place(HTTP_ROUTES.kind, "shop", "odd")
    objects = [gateway(), http_route("odd", rule(match("/admin")), hosts=[HOST]), http_route("web", hosts=[HOST])]
    routes = compiled(*objects, closed={place: "no"})
    assert [bool(one.closed) for one in server(routes).locations] == [True, False]
    assert accepted(routes, "odd") == (False, "UnsupportedValue")
    assert problems(routes) == {"odd": [Reason.CONFIGURATION_REFUSED]}
    routes = compiled(*objects, excluded={place: "no"})
    assert routes_of(server(routes)) == [("web", "/")]
    assert accepted(routes, "odd") == (False, "UnsupportedValue")


def test_names_change_only_with_what_is_configuration() -> None:
    def made(*rules: Manifest) -> str:
        return render_configuration(compiled(gateway(), http_route("web", *rules, hosts=[HOST])), SITE).generation

    plain = made(rule(match("/a"), to=[backend(weight=1)]))
    assert made(rule(match("/a"), to=[backend(weight=7), backend("none")])) == plain
    assert made(rule(match("/a"), filters=[request_headers(set={"x": "$y"})])) == plain
    assert made(rule(match("/b"))) != plain
    assert made(rule(match("/a"), filters=[redirect()])) != plain


def test_a_route_that_has_left_is_told_nothing_any_more() -> None:
    gone = http_route("web", parents=[{"name": "none"}])
    gone["status"] = {"parents": [{"controllerName": "haneul.dev/ingress", "parentRef": {"name": "web"}}]}
    routes = compiled(gateway(), gone)
    [state] = [one for one in routes.states if isinstance(one, RouteState)]
    assert state.parents == ()
    assert GATEWAYS.kind not in {place.kind for place in routes.ours}


TEXTS = st.one_of(
    st.sampled_from(
        ["$uri", '";}', "a\nb", "${x}", "\\", "*", "..", "/_haneul", "x" * 5000, "x: y", "{", "'", "%00", "%zz"]
    ),
    st.text(max_size=40),
)


@st.composite
def hostile_route(draw: st.DrawFn) -> Manifest:
    def pairs() -> dict[str, str]:
        return draw(st.dictionaries(st.one_of(st.just("x-a"), TEXTS), TEXTS, max_size=2))

    kind = st.sampled_from(["Exact", "PathPrefix", "RegularExpression", "x"])
    text = st.one_of(TEXTS, TEXTS.map(lambda found: f"/{found}"))
    matches = [
        match(draw(text), draw(kind), draw(st.sampled_from(["", "GET", "$m"])), headers=pairs(), queries=pairs())
        for _ in range(2)
    ]
    change = st.sampled_from([full_path, prefix])
    filters = draw(
        st.lists(
            st.one_of(
                st.builds(lambda made, to, host: rewrite(path=made(to), hostname=host), change, text, TEXTS),
                st.builds(lambda made, to, host: redirect(path=made(to), hostname=host), change, text, TEXTS),
                st.builds(lambda values, gone: request_headers(set=values, remove=[gone]), st.just(pairs()), TEXTS),
                st.builds(
                    lambda values, more: answer_headers(set=values, add=more), st.just(pairs()), st.just(pairs())
                ),
                st.builds(lambda found: {"type": found}, TEXTS),
            ),
            max_size=2,
        )
    )
    hosts = draw(st.lists(st.one_of(st.just("www.example.com"), st.just("*.example.com"), TEXTS), max_size=2))
    made = rule(*matches, to=[backend("web"), backend(draw(TEXTS), 80)], filters=filters)
    return http_route("web", made, hosts=hosts, age=draw(st.integers(0, 5)))


GOOD_ROUTE = http_route("web", rule(match("/"), match("/api", method="GET")), hosts=[HOST])
GOOD_SERVER = servers(render_configuration(compiled(gateway(), GOOD_ROUTE), SITE).text)[HOST]
#: What rules have without anything hostile; each is a directive that this code writes.
NAMES = frozenset(
    nginx_text.names(
        nginx_text.parse(
            render_configuration(
                compiled(
                    gateway(),
                    GOOD_ROUTE,
                    http_route("a", rule(filters=[redirect()]), hosts=["a.example.com"]),
                    http_route("b", rule(filters=[rewrite(hostname="b.example.com")]), hosts=["b.example.com"]),
                    ingress(host="beside.example.com"),
                ),
                SITE,
            ).text
        )
    )
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(hostile_route())
def test_nothing_from_a_route_becomes_configuration(evil: Manifest) -> None:
    evil["metadata"] |= {"name": "evil", "namespace": "evil", "creationTimestamp": "2026-11-28T00:00:00Z"}
    objects = [gateway(), GOOD_ROUTE, gateway("web", namespace="evil"), evil, service(namespace="evil")]
    text = render_configuration(compiled(*objects), SITE).text
    assert servers(text)[HOST] == GOOD_SERVER
    assert set(nginx_text.names(nginx_text.parse(text))) <= NAMES
