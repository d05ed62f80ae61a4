"""Credentials that kubectl's plugin keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from haneul.cli.client import ApiClient
from haneul.cli.kubeconfig import Credentials
from haneul.kernel.errors import ConflictError

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class Signs:
    """A platform whose clusters do not trust its issuer, and that signs whatever it is asked to."""

    def post(self, path: str, body: Any) -> dict[str, Any]:
        if path == "/projects/shop/clusters/web/token":
            raise ConflictError("clusters of this platform do not trust its issuer")
        assert path == "/projects/shop/clusters/web/credentials"
        assert "CERTIFICATE REQUEST" in body["certificateRequest"]
        return {"certificate": "signed", "expires": (NOW + timedelta(hours=1)).isoformat()}


class Issues:
    """A platform whose clusters trust its issuer."""

    def post(self, path: str, body: Any) -> dict[str, Any]:
        assert (path, body) == ("/projects/shop/clusters/web/token", None)
        return {"token": "a.b.c", "expires": (NOW + timedelta(seconds=30)).isoformat()}


def test_a_credential_is_kept_until_shortly_before_its_end(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    made = credentials.fetch(cast("ApiClient", Signs()), "https://one", "shop", "web")
    assert credentials.kept("https://one", "shop", "web", NOW) == made
    assert credentials.kept("https://one", "shop", "web", NOW + timedelta(minutes=59, seconds=59)) is None
    assert credentials.kept("https://two", "shop", "web", NOW) is None
    assert [file.stat().st_mode & 0o777 for file in tmp_path.iterdir()] == [0o600]


def test_a_token_is_kept_until_shortly_before_its_end(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    made = credentials.fetch(cast("ApiClient", Issues()), "https://one", "shop", "web")
    assert made["status"] == {"token": "a.b.c", "expirationTimestamp": "2026-11-24T12:00:30+00:00"}
    assert credentials.kept("https://one", "shop", "web", NOW + timedelta(seconds=24)) == made
    assert credentials.kept("https://one", "shop", "web", NOW + timedelta(seconds=26)) is None


def test_what_is_forgotten_is_fetched_anew(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    credentials.fetch(cast("ApiClient", Signs()), "https://one", "shop", "web")
    credentials.forget("https://one", "shop", "web")
    credentials.forget("https://one", "shop", "web")
    assert credentials.kept("https://one", "shop", "web", NOW) is None
