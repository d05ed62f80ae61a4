"""Credentials that kubectl's plugin keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from haneul.cli.client import ApiClient
from haneul.cli.kubeconfig import Credentials

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class Signs:
    """A platform that signs whatever it is asked to."""

    def post(self, path: str, body: Any) -> dict[str, Any]:
        assert path == "/projects/shop/clusters/web/credentials"
        assert "CERTIFICATE REQUEST" in body["certificateRequest"]
        return {"certificate": "signed", "expires": (NOW + timedelta(hours=1)).isoformat()}


def test_a_credential_is_kept_until_shortly_before_its_end(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    made = credentials.fetch(cast("ApiClient", Signs()), "https://one", "shop", "web")
    assert credentials.kept("https://one", "shop", "web", NOW) == made
    assert credentials.kept("https://one", "shop", "web", NOW + timedelta(minutes=59, seconds=59)) is None
    assert credentials.kept("https://two", "shop", "web", NOW) is None
    assert [file.stat().st_mode & 0o777 for file in tmp_path.iterdir()] == [0o600]


def test_what_is_forgotten_is_fetched_anew(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    credentials.fetch(cast("ApiClient", Signs()), "https://one", "shop", "web")
    credentials.forget("https://one", "shop", "web")
    credentials.forget("https://one", "shop", "web")
    assert credentials.kept("https://one", "shop", "web", NOW) is None
