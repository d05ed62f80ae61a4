"""The real platform and its clusters, held against the benchmark: nothing fails without a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from haneul.app.installation import Installation
from tests.e2e.tenants import PROJECT
from tests.support import haneul

pytestmark = pytest.mark.e2e


def report_of(*arguments: str) -> dict[str, Any]:
    completed = haneul("check", *arguments, "-o", "json", check=False)
    assert completed.returncode == 0, completed.stderr
    found: dict[str, Any] = json.loads(completed.stdout)
    assert len(found["items"]) == 133
    return found


def unseen(report: dict[str, Any]) -> list[str]:
    return [f"{item['id']}: {item['seen']}" for item in report["items"] if "could not be seen" in item["seen"]]


@pytest.mark.parametrize("network", ["shop", "lab"])
def test_a_cluster_fails_no_item_without_a_reason(network: str, request: pytest.FixtureRequest) -> None:
    name = request.getfixturevalue(network)
    report = report_of("cluster", name, "-p", PROJECT)
    assert report["subject"] == f"{PROJECT}/{name}"
    assert unseen(report) == []
    results = {item["id"]: item["result"] for item in report["items"]}
    assert {results[number] for number in ("1.2.1", "1.2.29", "2.7", "4.2.1", "4.2.12", "4.2.14")} == {"pass"}
    assert results["5.3.1"] == ("pass" if network == "lab" else "fail")


def test_the_management_cluster_fails_no_item_without_a_reason(installation: Installation) -> None:
    report = report_of("platform")
    assert unseen(report) == []
    results = {item["id"]: item["result"] for item in report["items"]}
    assert {results[number] for number in ("1.1.1", "1.2.1", "1.2.16", "1.2.29", "3.2.2", "4.1.9")} == {"pass"}
    assert (installation.settings.audit_log / "audit.log").stat().st_size > 0


def test_a_second_check_is_a_fresh_one(shop: str) -> None:
    first, second = (report_of("cluster", shop, "-p", PROJECT) for _ in range(2))
    assert second["examined"] > first["examined"]
