"""Swift's configuration as Kage renders it."""

from __future__ import annotations

import json
from configparser import ConfigParser
from pathlib import Path

import pytest

from haneul.kage.configuration import files, proxy_part, rings, zone_parts
from haneul.kage.model import RSYNC, KageSettings, Secrets
from tests import golden

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = KageSettings(Path("/var/lib/kage"), "kage")
SECRETS = Secrets(secret_key="the-secret", hash_suffix="the-suffix", token_key="the-token-key")


@pytest.mark.parametrize(
    "name",
    [
        "swift.conf",
        "proxy-server.conf",
        "zone1-account-server.conf",
        "zone2-container-server.conf",
        "zone3-object-server.conf",
        "zone1-rsync.conf",
    ],
)
def test_files(name: str) -> None:
    golden.compare(GOLDEN, name, files(SETTINGS, SECRETS)[name])


def test_rings_name_a_device_in_each_zone() -> None:
    golden.compare(GOLDEN, "rings.json", json.dumps(rings(SETTINGS), indent=2) + "\n")


def test_every_part_has_a_configuration_that_names_its_port() -> None:
    made = files(SETTINGS, SECRETS)
    parts = [proxy_part(SETTINGS), *(part for zone in SETTINGS.every_zone for part in zone_parts(SETTINGS, zone))]
    assert len({part.name for part in parts}) == len(parts)
    assert {str(part.configuration.relative_to(SETTINGS.etc)) for part in parts} == set(made) - {"swift.conf"}
    places = [(part.address, part.port) for part in parts if part.port]
    assert len(set(places)) == len(places)
    for part in parts:
        text = made[part.configuration.name]
        if part.module != RSYNC and part.port:
            told = ConfigParser()
            told.read_string(text)
            assert (told["DEFAULT"]["bind_ip"], told.getint("DEFAULT", "bind_port")) == (part.address, part.port)


def test_secrets_are_where_they_are_needed_and_nowhere_else() -> None:
    made = files(SETTINGS, SECRETS)
    for secret, home in (
        (SECRETS.secret_key, "proxy-server.conf"),
        (SECRETS.token_key, "proxy-server.conf"),
        (SECRETS.hash_suffix, "swift.conf"),
    ):
        assert [name for name, text in made.items() if secret in text] == [home]
        assert secret not in repr(SECRETS)
