"""The file that says which cluster is served, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from haneul.app.ingress import issuer_of
from haneul.ingress.settings import IngressSettings, read_settings
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import InvalidInputError


def read(folder: Path, **document: Any) -> IngressSettings:
    whole = {"cluster": "shop", "kubeconfig": "shop.kubeconfig", "folder": "nginx", **document}
    file = folder / "shop.yaml"
    file.write_text(yaml.safe_dump(whole))
    return read_settings(file)


def test_paths_are_beside_the_file_and_the_rest_holds(tmp_path: Path) -> None:
    settings = read(tmp_path)
    assert (settings.kubeconfig, settings.folder) == (tmp_path / "shop.kubeconfig", tmp_path / "nginx")
    assert (settings.http, settings.public_https_port) == (("0.0.0.0:80",), 443)


def test_everything_is_a_value(tmp_path: Path) -> None:
    gate = {"url": "http://127.0.0.1:4180"}
    settings = read(
        tmp_path,
        gate=gate,
        hosts=["*.Shop.example.com"],
        addresses=["192.0.2.1", "lb.example.com"],
        https=["127.0.0.1:8443"],
        trustedProxies=["10.0.0.0/8"],
        proxyProtocol=True,
    )
    assert settings.gate
    assert settings.gate.gate.address == "127.0.0.1:4180"
    assert (settings.hosts, settings.public_https_port) == (("*.shop.example.com",), 8443)


ACME = {"directory": "https://acme.example.com/dir", "termsOfServiceAgreed": True}


def test_an_issuer_is_named_with_files_beside_the_file(tmp_path: Path) -> None:
    account = {"id": "ours", "keyFile": "key"}
    more = {"contact": ["ops@example.com"], "authorities": "ca.pem", "externalAccount": account}
    settings = read(tmp_path, acme={**ACME, **more})
    assert settings.acme
    assert settings.acme.authorities == tmp_path / "ca.pem"
    assert settings.acme.external_account
    assert settings.acme.external_account.key_file == tmp_path / "key"
    with pytest.raises(InvalidInputError, match="key cannot be read"):
        issuer_of(settings, SystemClock())
    (tmp_path / "key").write_text("zWND\n")
    assert issuer_of(settings, SystemClock())
    assert (tmp_path / "nginx" / "acme" / "account.key").stat().st_mode & 0o077 == 0
    assert issuer_of(read(tmp_path), SystemClock()) is None


@pytest.mark.parametrize(
    "document",
    [
        {"acme": {**ACME, "directory": "http://acme.example.com/dir"}},
        {"acme": {**ACME, "termsOfServiceAgreed": False}},
        {"acme": {"directory": ACME["directory"]}},
        {"acme": {**ACME, "contact": ["nobody"]}},
        {"acme": {**ACME, "externalAccount": {"id": "ours"}}},
        {"acme": ACME, "http": []},
        {"acme": "https://acme.example.com/dir"},
        {"http": ["80"]},
        {"http": ["0.0.0.0:99999"]},
        {"http": ["::1:80"]},
        {"http": ["0.0.0.0:80; include /etc/passwd"]},
        {"http": [], "https": []},
        {"user": "www data"},
        {"accessLog": "a b"},
        {"hosts": ["*"]},
        {"gate": {"url": "http://gate.example.com/"}},
        {"gate": {"url": "https://127.0.0.1/"}},
        {"gate": {"url": "http://127.0.0.1/verify"}},
        {"proxyProtocol": True},
        {"workers": 0},
        {"unknown": 1},
        {"addresses": ["a b"]},
    ],
)
def test_what_is_wrong_is_refused(tmp_path: Path, document: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        read(tmp_path, **document)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_settings(tmp_path / "none.yaml")
    (tmp_path / "text").write_text("[")
    with pytest.raises(InvalidInputError, match="no YAML"):
        read_settings(tmp_path / "text")
