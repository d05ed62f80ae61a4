"""Manifests: what they refer to, read from their bytes. Pure.

Known forms are the OCI image manifest and index and Docker's schema 2 manifest and list. They are checked as far as a
registry depends on them; whatever else stands in a manifest is the client's. Manifests of other media types are
refused: a registry that cannot read what they refer to could neither check that it is there nor keep it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from haneul.d2hub.digests import is_digest
from haneul.d2hub.errors import ManifestInvalidError

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
_IMAGES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
_INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
KNOWN: Final = _IMAGES | _INDEXES
_MOST_REFERENCES: Final = 20_000
#: Sizes are counted in 64 bits with a sign, with the manifest's own.
_MOST_BYTES: Final = (1 << 62) - 1


@dataclass(frozen=True)
class Manifest:
    """What a registry needs to know of a manifest. ``size`` is of all that it names, itself not included."""

    media_type: str
    #: Digests of blobs that have to be there.
    blobs: tuple[str, ...] = ()
    #: Digests of layers that may be elsewhere; those that are here stay.
    elsewhere: tuple[str, ...] = ()
    #: Digests of manifests that have to be there; or of blobs, which an index of BuildKit's cache has for entries.
    manifests: tuple[str, ...] = ()
    #: The manifest that this one says something about; it may be missing.
    subject: str | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    content_size: int = 0

    @property
    def references(self) -> tuple[str, ...]:
        """Return the digests of all that stays as long as the manifest does."""
        return (*self.blobs, *self.elsewhere, *self.manifests)


def parse_manifest(content: bytes, media_type: str) -> Manifest:
    """Return what a manifest says. ``media_type`` is the request's; empty means the manifest's own word.

    Raises ManifestInvalidError.
    """
    document = _document(content)
    said = document.get("mediaType", "")
    declared = media_type.partition(";")[0].strip()
    if declared in ("", "application/json", "application/octet-stream"):
        declared = said if isinstance(said, str) else ""
    if said and said != declared:
        raise ManifestInvalidError(f"the manifest says {said!r} of itself, the request {declared!r}")
    if document.get("schemaVersion") != 2:
        raise ManifestInvalidError("schemaVersion is not 2", hint="push with a client that writes OCI or schema 2")
    if declared not in KNOWN:
        raise ManifestInvalidError(
            f"manifests of the type {declared[:200]!r} are not taken", hint=f"known are {', '.join(sorted(KNOWN))}"
        )
    return _image(document, declared) if declared in _IMAGES else _index(document, declared)


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ManifestInvalidError(f"the manifest is no JSON: {str(error)[:200]}") from error
    if not isinstance(document, dict):
        raise ManifestInvalidError("the manifest is no JSON object")
    return document


def _image(document: dict[str, Any], media_type: str) -> Manifest:
    if "manifests" in document:
        raise ManifestInvalidError("an image manifest has no field 'manifests'")
    config = _descriptor(document.get("config"), "config")
    layers = _descriptors(document.get("layers"), "layers")
    # Layers with addresses of their own may be elsewhere (image specification, "urls").
    blobs = _unique([config, *(layer for layer in layers if not layer.get("urls"))])
    elsewhere = _unique([layer for layer in layers if layer.get("urls") and layer["digest"] not in blobs])
    artifact_type = _text(document, "artifactType") or _text(config, "mediaType")
    return Manifest(
        media_type,
        blobs=blobs,
        elsewhere=elsewhere,
        subject=_subject(document),
        artifact_type=artifact_type,
        annotations=_annotations(document),
        content_size=_size([config, *layers]),
    )


def _index(document: dict[str, Any], media_type: str) -> Manifest:
    if "layers" in document or "config" in document:
        raise ManifestInvalidError("an index has no fields 'config' and 'layers'")
    entries = _descriptors(document.get("manifests"), "manifests")
    return Manifest(
        media_type,
        manifests=_unique(entries),
        subject=_subject(document),
        artifact_type=_text(document, "artifactType"),
        annotations=_annotations(document),
        content_size=_size(entries),
    )


def _subject(document: dict[str, Any]) -> str | None:
    subject = document.get("subject")
    return None if subject is None else str(_descriptor(subject, "subject")["digest"])


def _descriptors(value: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise ManifestInvalidError(f"{what} is no list")
    if len(value) > _MOST_REFERENCES:
        raise ManifestInvalidError(f"{what} has more than {_MOST_REFERENCES} entries")
    return [_descriptor(entry, f"{what}[{index}]") for index, entry in enumerate(value)]


def _descriptor(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ManifestInvalidError(f"{what} is no descriptor")
    digest, size = value.get("digest"), value.get("size")
    if not isinstance(digest, str) or not is_digest(digest):
        raise ManifestInvalidError(f"{what} has no digest of a supported algorithm")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise ManifestInvalidError(f"{what} has no size")
    if not isinstance(value.get("mediaType"), str):
        raise ManifestInvalidError(f"{what} has no mediaType")
    return value


def _annotations(document: dict[str, Any]) -> dict[str, str]:
    value = document.get("annotations")
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ManifestInvalidError("annotations are not a map of texts")
    for text in (*value, *value.values()):
        _check_text(text, "an annotation")
    return value


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name, "")
    if not isinstance(value, str):
        raise ManifestInvalidError(f"{name} is no text")
    _check_text(value, name)
    return value


def _check_text(text: str, what: str) -> None:
    """Refuse what is a text in JSON only: half a surrogate pair, which no encoding has, and what PostgreSQL refuses."""
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ManifestInvalidError(f"{what} has a character that is none")


def _size(descriptors: list[dict[str, Any]]) -> int:
    total: int = sum(entry["size"] for entry in descriptors)
    if total > _MOST_BYTES:
        raise ManifestInvalidError("the sizes add up to more than there can be")
    return total


def _unique(descriptors: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(entry["digest"]) for entry in descriptors))
