"""What an image says about its packages: dpkg's own record, which scanners read, and a bill of materials.

The bill is CycloneDX 1.6 in JSON (ECMA-424): https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from haneul.components.base_images.deb import Unpacked
from haneul.components.debian import DEBIAN

SBOM_TYPE: Final = "application/vnd.cyclonedx+json"
# Bills that are equal have one number; any namespace of our own would do.
_NAMESPACE: Final = uuid.UUID("6f9e4bb5-6a0c-5b64-9d0e-3f8f1c4c7d11")


def installed(packages: Iterable[Unpacked]) -> str:
    """Return dpkg's status file: each package's control paragraph, and that it is installed."""
    paragraphs = []
    for unpacked in sorted(packages, key=lambda entry: entry.package.name):
        first, _, rest = unpacked.control.partition("\n")
        paragraphs.append(f"{first}\nStatus: install ok installed\n{rest}\n")
    return "\n".join(paragraphs)


def list_name(unpacked: Unpacked) -> str:
    """Return the name of dpkg's list of a package's files; what may be there for several architectures says which."""
    same = unpacked.field("Multi-Arch") == "same"
    return f"{unpacked.package.name}{f':{unpacked.package.architecture}' if same else ''}.list"


def bill_of_materials(
    name: str, version: str, packages: Iterable[Unpacked], *, date: int, subject: str
) -> dict[str, Any]:
    """Return the bill of an image: its packages with their versions, addresses (purl) and digests of their files.

    ``subject`` is the digest of the image's manifest, ``date`` seconds since the epoch.
    """
    components = [_component(unpacked) for unpacked in sorted(packages, key=lambda entry: entry.package.name)]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(_NAMESPACE, subject + _text(components)).urn,
        "version": 1,
        "metadata": {
            "timestamp": moment(date),
            "component": {
                "type": "container",
                "bom-ref": subject,
                "name": name,
                "version": version,
            },
        },
        "components": components,
    }


def _component(unpacked: Unpacked) -> dict[str, Any]:
    package = unpacked.package
    # Source packages are what advisories name.
    source = unpacked.field("Source").partition(" ")[0] or package.name
    address = (
        f"pkg:deb/debian/{quote(package.name)}@{quote(package.version, safe='')}"
        f"?arch={package.architecture}&distro=debian-{DEBIAN}"
    )
    return {
        "type": "library",
        "bom-ref": address,
        "name": package.name,
        "version": package.version,
        "purl": address,
        "supplier": {"name": unpacked.field("Maintainer")},
        "description": unpacked.field("Description"),
        "hashes": [{"alg": "SHA-256", "content": package.sha256}],
        "properties": [{"name": "debian:source", "value": source}],
    }


def moment(date: int) -> str:
    """Return seconds since the epoch as RFC 3339 writes them."""
    return f"{datetime.fromtimestamp(date, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _text(value: Sequence[Any]) -> str:
    return json.dumps(value, sort_keys=True)
