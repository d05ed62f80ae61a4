"""A command line that is newer than the platform says so."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
import yaml

from haneul.cli.client import ApiClient, PlatformOutdatedError
from haneul.cli.clusters import _COLUMNS
from haneul.cli.output import Format, show

#: A cluster as a platform told of it before clusters had several masters.
OLD: dict[str, Any] = {
    "name": "web",
    "deleting": False,
    "created": "2026-11-01T12:00:00+00:00",
    "lookRequested": 0,
    "spec": {"version": "1.37.0", "network": {"plugin": "native"}, "nodePools": []},
    "status": {
        "phase": "Ready",
        "version": "1.37.0",
        "conditions": [],
        "nodes": [],
        "endpoint": "https://127.0.0.1:30001",
        "pods": "",
        "services": "",
        "lookAnswered": 0,
    },
}


def answer(request: httpx2.Request) -> httpx2.Response:
    if "watch" in request.url.params:
        return httpx2.Response(200, text=f"event: modified\ndata: {json.dumps(OLD)}\n\n")
    return httpx2.Response(200, json={"items": [OLD]})


@pytest.fixture
def client() -> ApiClient:
    return ApiClient("http://platform", authority=None, token="", transport=httpx2.MockTransport(answer))


def test_a_field_that_the_platform_does_not_know_is_named_with_what_to_do(client: ApiClient) -> None:
    clusters = client.list("/projects/shop/clusters")
    with pytest.raises(PlatformOutdatedError, match="'masters'") as caught:
        show(clusters, _COLUMNS, Format.WIDE)
    assert "haneul up" in caught.value.hint
    ((_, watched),) = client.events("/projects/shop/clusters")
    with pytest.raises(PlatformOutdatedError, match="'masters'"):
        show([watched], _COLUMNS, Format.WIDE)


def test_what_takes_no_unknown_field_is_shown(client: ApiClient, capsys: pytest.CaptureFixture[str]) -> None:
    clusters = client.list("/projects/shop/clusters")
    show(clusters, _COLUMNS, Format.TABLE)
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["web", "Ready", "1.37.0"]
    show(clusters, _COLUMNS, Format.YAML)
    assert yaml.safe_load(capsys.readouterr().out) == [OLD]
