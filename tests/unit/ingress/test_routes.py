"""From objects to routes: classes, hosts, paths, certificates, canaries, and what is wrong with whom."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from haneul.ingress.annotations import PREFIX
from haneul.ingress.certificates import LARGEST, LONGEST_KEY, read_certificate
from haneul.ingress.endpoints import peers
from haneul.ingress.model import AskedAuth, Backend, Match, PasswordAuth, Peer, PeopleAuth, Reason, Routes
from haneul.ingress.observed import Observed
from haneul.ingress.options import Options
from haneul.ingress.routes import MOST_LIMITS, compile_routes, hosts_asked_for
from haneul.ingress.table import table_of
from haneul.kernel.kube import ENDPOINT_SLICES, INGRESSES, Manifest
from haneul.kernel.kube_objects import Place
from tests.unit.ingress.objects import (
    HOST,
    NOW,
    certificate,
    endpoint,
    ingress,
    ingress_class,
    observed,
    path,
    secret,
    service,
    slice_of,
    tls_secret,
)


def compiled(*manifests: Manifest, seen: Observed | None = None, **options: Any) -> Routes:
    return compile_routes(seen or observed(*manifests), Options(**options), NOW)


def paths(routes: Routes, host: str = HOST) -> list[tuple[str, str, str]]:
    """Return a host's paths in their order, each with its match and its Ingress."""
    return [
        (one.path.text, one.path.match.value, one.ingress.name)
        for server in routes.servers
        if server.host == host
        for one in server.locations
    ]


def problems(routes: Routes) -> dict[str, list[Reason]]:
    found: dict[str, list[Reason]] = {}
    for problem in routes.problems:
        found.setdefault(problem.ingress.name, []).append(problem.reason)
    return found


def closed(routes: Routes, host: str = HOST) -> list[bool]:
    return [bool(one.closed) for server in routes.servers if server.host == host for one in server.locations]


def annotated(**annotations: str) -> dict[str, str]:
    return {f"{PREFIX}{name.replace('_', '-')}": text for name, text in annotations.items()}


def test_the_longest_path_goes_first_and_exact_ones_before_all() -> None:
    rules = [path("/"), path("/a"), path("/a/b/"), path("/a", "Exact"), path("/a/b/c/d", "Exact"), path("/other")]
    assert paths(compiled(ingress("web", *rules))) == [
        ("/a/b/c/d", "Exact", "web"),
        ("/a", "Exact", "web"),
        ("/other", "Prefix", "web"),
        ("/a/b", "Prefix", "web"),
        ("/a", "Prefix", "web"),
        ("/", "Prefix", "web"),
    ]


@pytest.mark.parametrize(
    ("class_name", "annotation", "classes", "served"),
    [
        ("haneul", None, [ingress_class()], True),
        ("other", None, [ingress_class(), ingress_class("other", "example.com/other")], False),
        ("haneul", None, [], False),
        (None, None, [ingress_class()], False),
        (None, None, [ingress_class(default=True)], True),
        (None, "haneul", [ingress_class()], True),
        (None, "nginx", [ingress_class(default=True)], False),
        ("nginx", None, [ingress_class("nginx")], True),
    ],
)
def test_only_ours_are_served(
    class_name: str | None, annotation: str | None, classes: list[Manifest], served: bool
) -> None:
    annotations = {"kubernetes.io/ingress.class": annotation} if annotation else {}
    seen = observed(ingress(class_name=class_name, annotations=annotations), classes=classes)
    routes = compiled(seen=seen)
    assert (len(routes.ours), bool(routes.servers)) == (served, served)


def test_the_older_has_a_path() -> None:
    routes = compiled(ingress("late", path("/"), path("/b"), age=2), ingress("early", path("/"), age=1))
    assert paths(routes) == [("/b", "Prefix", "late"), ("/", "Prefix", "early")]
    assert problems(routes) == {"late": [Reason.PATH_TAKEN]}
    assert "Ingress shop/early" in routes.problems[0].message


def test_a_host_belongs_to_the_namespace_of_the_older() -> None:
    thief = ingress("thief", path("/login"), namespace="evil", age=2)
    objects = (ingress("web", age=1), thief, service(namespace="evil"))
    routes = compiled(*objects)
    assert paths(routes) == [("/", "Prefix", "web")]
    assert problems(routes) == {"thief": [Reason.HOST_TAKEN]}
    assert routes.served == {Place("Ingress", "shop", "web")}
    shared = compiled(*objects, hosts_across_namespaces=True)
    assert [found[2] for found in paths(shared)] == ["thief", "web"]


def test_hosts_of_others_are_refused_and_all_else_is_served() -> None:
    objects = (ingress("mine"), ingress("theirs", host="their.example.com"))
    assert hosts_asked_for(observed(*objects)) == ["their.example.com", HOST]
    routes = compiled(*objects, refused_hosts={"their.example.com": "it belongs to project other"})
    assert [server.host for server in routes.servers] == [HOST]
    [problem] = routes.problems
    assert (problem.reason, problem.message) == (
        Reason.HOST_REFUSED,
        "their.example.com: it belongs to project other",
    )


def test_aliases_are_hosts_that_somebody_may_have_already() -> None:
    routes = compiled(
        ingress("first", host="a.example.com", age=1, namespace="other"),
        service(namespace="other"),
        ingress("second", age=2, annotations=annotated(server_alias="a.example.com,b.example.com")),
    )
    assert paths(routes, "a.example.com") == [("/", "Prefix", "first")]
    assert paths(routes, "b.example.com") == paths(routes) == [("/", "Prefix", "second")]
    assert problems(routes) == {"second": [Reason.HOST_TAKEN]}


@pytest.mark.parametrize("text", ["/a/../b", "a", "/x\ny", '/"; return 200; #', "/_haneul_x"])
def test_a_path_that_is_none_is_told_and_others_are_served(text: str) -> None:
    routes = compiled(ingress("web", path(text), path("/ok")))
    assert [found[0] for found in paths(routes)] == ["/ok"]
    assert problems(routes) == {"web": [Reason.PATH_REFUSED]}


def test_expressions_are_asked_for() -> None:
    rule = path("/x(/|$)(.*)", "ImplementationSpecific")
    routes = compiled(ingress("web", rule, annotations=annotated(rewrite_target="/$2")))
    assert paths(routes) == [("/x(/|$)(.*)", "Expression", "web")]
    missing = compiled(ingress("web", rule, annotations=annotated(rewrite_target="/$3")))
    assert (paths(missing), problems(missing)) == ([], {"web": [Reason.PATH_REFUSED]})
    exact = compiled(ingress("web", path("/x", "Exact"), annotations=annotated(rewrite_target="/y")))
    assert paths(exact) == [("/x", "Exact", "web")]


def test_wrong_annotations_that_restrict_close_their_own_paths_only() -> None:
    routes = compiled(
        ingress("open", host="open.example.com"),
        ingress("shut", annotations=annotated(whitelist_source_range="everybody")),
        ingress("odd", host="odd.example.com", annotations=annotated(proxy_body_size="everything")),
    )
    assert (closed(routes), closed(routes, "open.example.com"), closed(routes, "odd.example.com")) == (
        [True],
        [False],
        [False],
    )
    assert problems(routes) == {"shut": [Reason.ANNOTATION_REFUSED], "odd": [Reason.ANNOTATION_REFUSED]}


def test_only_so_many_limits_are_held_and_who_comes_later_is_closed() -> None:
    both = annotated(limit_rps="1", limit_connections="1")
    names = [f"a{number:03}" for number in range(MOST_LIMITS // 2)]
    some = [ingress(name, host=f"{name}.example.com", annotations=both) for name in names]
    routes = compiled(
        *some,
        ingress("late", annotations=annotated(limit_rpm="1"), age=1),
        ingress("free", host="free.example.com", age=2),
    )
    assert problems(routes) == {"late": [Reason.CLOSED]}
    assert (closed(routes), closed(routes, "free.example.com"), closed(routes, "a099.example.com")) == (
        [True],
        [False],
        [False],
    )
    assert not compiled(*some[1:], ingress("late", annotations=both, age=1)).problems


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (path(service="none"), "there is no Service shop/none"),
        (path(port=81), "has no port 81"),
        (path(port="grpc"), "has no port grpc"),
        (path(service="outside"), "ExternalName"),
        ({"path": "/", "pathType": "Prefix", "backend": {"resource": {"kind": "Bucket"}}}, "no Service"),
    ],
)
def test_a_backend_that_is_none_is_told(rule: Manifest, why: str) -> None:
    outside = service("outside", type="ExternalName", externalName="metadata.internal")
    routes = compiled(ingress("web", rule, path("/ok")), outside)
    [problem] = routes.problems
    assert problem.reason is Reason.BACKEND_MISSING
    assert why in problem.message
    upstreams = [one.upstream for server in routes.servers for one in server.locations]
    assert [bool(one) for one in upstreams] == [True, False]


def test_default_backends_answer_where_nothing_else_does() -> None:
    default = {"service": {"name": "web", "port": {"name": "http"}}}
    routes = compiled(
        ingress("some", path("/a"), defaultBackend=default, age=1),
        ingress("all", rules=[], defaultBackend=default, age=2),
    )
    assert paths(routes) == [("/a", "Prefix", "some"), ("/", "Prefix", "some")]
    assert paths(routes, "") == [("/", "Prefix", "all")]


def certified(*manifests: Manifest, tls: list[Manifest] | None = None) -> Routes:
    return compiled(ingress("web", tls=tls or [{"hosts": [HOST], "secretName": "cert"}]), *manifests)


def test_certificates_are_read_and_held_against_hosts() -> None:
    pair = certificate(HOST, now=NOW)
    [server] = certified(tls_secret("cert", pair)).servers
    assert server.certificate
    assert server.certificate.chain == pair.certificate
    wild = certificate("*.example.com", now=NOW)
    [server] = certified(tls_secret("cert", wild), tls=[{"hosts": ["*.example.com"], "secretName": "cert"}]).servers
    assert server.certificate


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (None, "there is no Secret cert"),
        (tls_secret("cert", certificate("other.example.com", now=NOW)), f"it is not for {HOST}"),
        (secret("cert", tls_crt=b"x", tls_key=b"y"), "no certificates"),
        (secret("cert", tls_crt=certificate(HOST, now=NOW).certificate, tls_key=b"y"), "no private key"),
        (
            secret(
                "cert",
                tls_crt=certificate(HOST, now=NOW).certificate,
                tls_key=certificate(HOST, now=NOW).key,
            ),
            "not the key",
        ),
        (tls_secret("cert", certificate(HOST, now=NOW), namespace="other"), "there is no Secret cert"),
    ],
)
def test_broken_certificates_are_told_and_the_host_is_served(made: Manifest | None, why: str) -> None:
    routes = certified(*([made] if made else []))
    [server] = routes.servers
    assert (server.certificate, server.tls) == (None, True)
    [problem] = routes.problems
    assert problem.reason is Reason.CERTIFICATE_BROKEN
    assert why in problem.message


def no_rsa_key(bits: int) -> bytes:
    """Return what looks like an RSA key of so many bits, and is none."""
    p, q = (1 << (bits // 2)) - 1, (1 << (bits // 2)) - 3
    numbers = rsa.RSAPrivateNumbers(p, q, 5, 5, 5, 5, rsa.RSAPublicNumbers(65537, p * q))
    key = numbers.private_key(unsafe_skip_rsa_key_validation=True)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (no_rsa_key(2048), "no private key"),
        # It is not held against anything, which would take long.
        (no_rsa_key(16384), f"more than {LONGEST_KEY} bits"),
        (b"y" * LARGEST, "bytes"),
    ],
)
def test_a_key_that_would_keep_everybody_waiting_is_told(key: bytes, why: str) -> None:
    routes = certified(secret("cert", tls_crt=certificate(HOST, now=NOW).certificate, tls_key=key))
    [problem] = routes.problems
    assert (problem.reason, why in problem.message) == (Reason.CERTIFICATE_BROKEN, True)


def test_the_same_certificate_is_read_once() -> None:
    made = tls_secret("cert", certificate(HOST, now=NOW))
    assert read_certificate(made) is read_certificate(made)


def test_a_certificate_that_ended_is_told_and_served() -> None:
    routes = certified(tls_secret("cert", certificate(HOST, now=NOW - timedelta(days=400))))
    assert routes.servers[0].certificate
    assert problems(routes) == {"web": [Reason.CERTIFICATE_BROKEN]}


def test_nobody_brings_a_certificate_for_a_host_of_others() -> None:
    pair = tls_secret("cert", certificate(HOST, now=NOW), namespace="evil")
    entry = [{"hosts": [HOST], "secretName": "cert"}]
    thief = ingress("thief", namespace="evil", tls=entry, age=2)
    [server] = compiled(ingress("web", age=1), thief, pair, service(namespace="evil")).servers
    assert (server.certificate, server.tls) == (None, False)


def test_a_canary_joins_the_same_path() -> None:
    canary = ingress("next", annotations=annotated(canary="true", canary_weight="20"), age=2)
    rule = canary["spec"]["rules"][0]["http"]["paths"][0]
    rule["backend"]["service"]["name"] = "next"
    seen = observed(ingress("web", age=1), canary, service("next"), slice_of("next", endpoint("10.0.0.9")))
    routes = compiled(seen=seen)
    [location] = routes.servers[0].locations
    assert location.upstream
    assert location.upstream.canary
    assert location.upstream.canary.backend == Backend("shop", "next", "http")
    assert len(routes.served) == 2
    [entry] = table_of(routes, seen.peers).entries.values()
    assert entry["canary"] == {"peers": [["10.0.0.9", 8080]], "weight": 20, "total": 100}
    alone = compiled(ingress("next", annotations=annotated(canary="true")))
    assert (alone.servers, problems(alone)) == ((), {"next": [Reason.CANARY_ALONE]})


def test_a_weight_changes_no_route() -> None:
    def named(weight: str) -> set[str]:
        canary = ingress("next", annotations=annotated(canary="true", canary_weight=weight), age=2)
        return set(compiled(ingress("web", age=1), canary).upstreams)

    assert named("1") == named("99")


def test_who_gets_in() -> None:
    def auth(*more: Manifest, gate: bool = True, **annotations: str) -> Any:
        web = ingress("web", annotations=annotated(**annotations))
        [location] = compiled(web, *more, gate=gate).servers[0].locations
        return location.closed or location.auth

    passwords = b"alice:$apr1$abc$defghi\n"
    assert auth() is None
    assert auth(auth="required") == PeopleAuth()
    assert auth(auth="required").rule == "anyone"
    some = auth(auth_groups="dev,ops", auth_people="okta:carol", auth_emails="dave@example.com", auth_projects="shop")
    assert some.rule == "project:shop group:dev group:ops person:okta:carol email:dave@example.com"
    assert "too many" in auth(auth_people=",".join(f"somebody-{number}" for number in range(200)))
    assert "no gate" in auth(auth="required", gate=False)
    assert auth(secret("p", auth=passwords), auth_type="basic", auth_secret="p") == PasswordAuth("Sign in", passwords)
    assert "no Secret" in auth(auth_type="basic", auth_secret="p")
    assert "another namespace" in auth(auth_type="basic", auth_secret="other/p")
    assert "NAME:HASH" in auth(secret("p", auth=b"alice:plain"), auth_type="basic", auth_secret="p")
    asked = auth(auth_url="http://web.shop.svc.cluster.local/ask", auth_response_headers="X-User")
    assert isinstance(asked, AskedAuth)
    assert (asked.upstream.backend, asked.headers) == (Backend("shop", "web", "http"), ("X-User",))
    for url in ("http://web.other.svc/", "http://169.254.169.254/", "http://web.shop.svc:99/", "http://x.com/"):
        assert "auth-url" in auth(auth_url=url)
    assert "only one" in auth(auth="required", auth_url="http://web.shop.svc/")


def test_endpoints_certificates_are_verified_if_asked_for() -> None:
    authority = secret("ca", ca_crt=certificate("ca", now=NOW).certificate)
    wanted = annotated(backend_protocol="HTTPS", proxy_ssl_verify="on", proxy_ssl_secret="ca")
    [upstream] = compiled(ingress("web", annotations=wanted), authority).upstreams.values()
    assert upstream.tls
    assert upstream.tls.name == "web.shop.svc"
    assert closed(compiled(ingress("web", annotations=wanted))) == [True]
    plain = annotated(proxy_ssl_verify="on", proxy_ssl_secret="ca")
    assert closed(compiled(ingress("web", annotations=plain), authority)) == [True]


def test_endpoints_are_those_that_are_ready_else_those_that_still_serve() -> None:
    backend = Backend("shop", "web", "http")
    ready = endpoint("10.0.0.1")
    ending = endpoint("10.0.0.2", ready=False, serving=True, terminating=True)
    broken = endpoint("10.0.0.3", ready=False, serving=False)
    both = slice_of("web", ready, ending, broken)
    assert peers(backend, [both]) == (Peer("10.0.0.1", 8080),)
    assert peers(backend, [slice_of("web", ending, broken)]) == (Peer("10.0.0.2", 8080),)
    assert peers(backend, [slice_of("web", broken)]) == ()
    assert peers(Backend("shop", "web", "other"), [both]) == ()
    assert peers(backend, [slice_of("web", endpoint("no address"))]) == ()


def test_objects_that_go_take_along_what_was_theirs_alone() -> None:
    seen = observed(ingress("web"), slice_of("web", endpoint("10.0.0.2"), name="web-2"))
    backend = Backend("shop", "web", "http")
    assert len(seen.peers(backend)) == 2
    seen.forget(Place(ENDPOINT_SLICES.kind, "shop", "web-2"))
    assert seen.peers(backend) == (Peer("10.0.0.1", 8080),)
    seen.replace(ENDPOINT_SLICES, [], {Place(ENDPOINT_SLICES.kind, "shop", "web-1")})
    assert seen.peers(backend) == (Peer("10.0.0.1", 8080),)
    seen.replace(ENDPOINT_SLICES, [], set())
    assert seen.peers(backend) == ()
    seen.replace(INGRESSES, [], set())
    assert compiled(seen=seen) == Routes()


def test_those_that_the_proxy_does_not_take_are_left_out_and_told() -> None:
    place = Place("Ingress", "shop", "bad")
    objects = (ingress("bad", path("/bad")), ingress("web"))
    routes = compiled(*objects, excluded={place: "nginx: no"})
    assert [found[2] for found in paths(routes)] == ["web"]
    assert problems(routes) == {"bad": [Reason.CONFIGURATION_REFUSED]}


def test_the_same_objects_in_another_order_are_the_same_routes() -> None:
    objects = [ingress("a", path("/a")), ingress("b", path("/b")), ingress("c", path("/a")), ingress("d", host="x.com")]
    assert compiled(*objects) == compiled(*reversed(objects))
    assert Match.EXPRESSION not in {one.path.match for one in compiled(*objects).servers[0].locations}
