"""The gate's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from haneul.kernel.errors import ForbiddenError, InvalidInputError
from haneul.signon.settings import read_settings

PROVIDER = {"name": "company", "issuer": "https://id.test", "clientId": "apps", "clientSecretFile": "secret"}
WHOLE = {"url": "https://auth.apps.test", "domain": "apps.test", "providers": [PROVIDER]}


def written(folder: Path, document: Any, *, mode: int = 0o600) -> Path:
    (folder / "secret").write_text("only here\n")
    (folder / "secret").chmod(mode)
    (folder / "auth.yaml").write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return folder / "auth.yaml"


def test_paths_are_from_the_files_own_folder(tmp_path: Path) -> None:
    settings = read_settings(
        written(tmp_path, {**WHOLE, "platform": {"url": "https://p.test/", "authorityFile": "ca"}})
    )
    assert settings.keys_file == tmp_path / "keys"
    assert settings.providers[0].client_secret_file == tmp_path / "secret"
    assert settings.providers[0].title == "company"
    assert settings.platform is not None
    assert (settings.platform.url, settings.platform.authority_file) == ("https://p.test", tmp_path / "ca")
    assert settings.session_seconds == 36_000


def test_the_prefixes_of_others_are_reserved(tmp_path: Path) -> None:
    other = {**PROVIDER, "name": "partner", "issuer": "https://b.test", "prefix": "partner:"}
    platform = {"url": "https://p.test", "prefix": "cloud:"}
    first, second = read_settings(
        written(tmp_path, {**WHOLE, "providers": [PROVIDER, other], "platform": platform})
    ).providers
    assert first.reserved_prefixes == ("robot:", "cloud:", "partner:")
    assert second.reserved_prefixes == ("robot:", "cloud:")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"providers": [{**PROVIDER, "prefix": "partner"}]}, "prefix"),
        ({"domain": "elsewhere.test"}, "no host of elsewhere.test"),
        ({"providers": []}, "providers"),
        ({"providers": [PROVIDER, {**PROVIDER, "issuer": "https://b.test", "prefix": "b:"}]}, "one name"),
        ({"providers": [PROVIDER, {**PROVIDER, "name": "b", "issuer": "https://b.test"}]}, "one prefix"),
        ({"providers": [PROVIDER, {**PROVIDER, "name": "b", "prefix": "b:"}]}, "one issuer"),
        ({"providers": [{**PROVIDER, "issuer": "http://id.test"}]}, "plain HTTP"),
        ({"platform": {"url": "http://p.test"}}, "plain HTTP"),
        ({"listen": "7480"}, "listen"),
        ({"sessionHours": 0}, "sessionHours"),
        ({"sesionHours": 1}, "sesionHours"),
        ({"providers": [{**PROVIDER, "clientSecretFile": "nowhere"}]}, "cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: Any, said: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_settings(written(tmp_path, {**WHOLE, **changes}))
    assert said in refused.value.detail


def test_files_that_are_none(tmp_path: Path) -> None:
    for text in ("[", "- a", "5", ""):
        with pytest.raises(InvalidInputError):
            read_settings(written(tmp_path, text))
    with pytest.raises(InvalidInputError):
        read_settings(tmp_path / "nowhere.yaml")


def test_secrets_that_others_may_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ForbiddenError):
        read_settings(written(tmp_path, WHOLE, mode=0o644))
