"""Which requests ModSecurity looks at, and what it calls them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from haneul.ingress.model import Certificate
from haneul.ingress.options import Options
from haneul.ingress.rendering import Site, render_configuration
from haneul.ingress.routes import compile_routes
from haneul.ingress.watching import Watched, short_name, watched
from haneul.kernel.kube import INGRESSES
from haneul.kernel.kube_objects import place_of
from haneul.trail.model import parse_mark
from tests.unit.ingress.objects import NOW, certificate, ingress, observed, path

PAIR = certificate("default.invalid")
OWN = Certificate(PAIR.certificate, PAIR.key)
SITE = Site(("127.0.0.1:80",), (), 443, OWN, folder="/ingress", lua="/lua", audit_rules="/ingress/private/audit-1.conf")


def rendered(annotations: dict[str, str] | None = None, site: Site = SITE) -> str:
    told = {f"haneul.dev/{name}": value for name, value in (annotations or {}).items()}
    routes = compile_routes(observed(ingress("web", path("/"), annotations=told)), Options(), NOW)
    return render_configuration(routes, site).text


def test_a_transaction_is_called_by_what_its_record_lacks() -> None:
    short = short_name(place_of(INGRESSES, ingress("web")))
    text = rendered()
    assert "modsecurity_rules_file" in text
    assert f"$msec~$request_id~$haneul_request_id~{short}" in text
    mark = parse_mark(f"1795815002.006~5a4c~incident-0001~{short}")
    assert (mark.started, mark.request_id, mark.ingress) == (1795815002.006, "incident-0001", short)


@pytest.mark.parametrize(
    "annotations",
    [
        {"audit": "off"},
        {"proxy-request-buffering": "off"},
        {"backend-protocol": "GRPC"},
        {"proxy-body-size": "0"},
        {"proxy-body-size": "17m"},
    ],
)
def test_streams_and_what_is_off_are_not_looked_at(annotations: dict[str, str]) -> None:
    assert "modsecurity on" not in rendered(annotations)


def test_without_a_trail_nothing_of_it_is_there() -> None:
    assert "modsecurity" not in rendered({"audit": "all"}, replace(SITE, audit_rules=""))


def test_a_policy_is_told_and_is_no_other_configuration() -> None:
    assert rendered({"audit": "errors, slow=2s"}) == rendered({"audit": "all"})
    told = ingress("web", path("/"), annotations={"haneul.dev/audit": "errors, slow=2s"})
    routes = compile_routes(observed(told), Options(), NOW)
    assert watched(routes) == {short_name(place_of(INGRESSES, told)): Watched("shop/web", "errors,slow=2s")}
