"""What CoreDNS is told when it is measured beside the platform's own server."""

from __future__ import annotations

from pathlib import Path

from haneul.app.dns_peer import corefile, zone_file


def test_it_answers_one_zone_from_one_file_on_loopback() -> None:
    assert corefile("first.shop.k8s.example", Path("/tmp/zone"), port=5353) == (
        "first.shop.k8s.example:5353 {\n    bind 127.0.0.1\n    file /tmp/zone\n}\n"
    )


def test_the_zone_has_the_names_that_are_asked_for() -> None:
    zone = "first.shop.k8s.example"
    assert zone_file(zone, {f"a.prod.svc.{zone}": "10.0.0.1", f"b.prod.svc.{zone}": "10.0.0.2"}).splitlines()[2:] == [
        f"a.prod.svc.{zone}. 5 IN A 10.0.0.1",
        f"b.prod.svc.{zone}. 5 IN A 10.0.0.2",
    ]
