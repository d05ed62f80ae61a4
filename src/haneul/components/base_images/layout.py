"""An image as an OCI image layout: a folder of blobs by digest, and an index.

https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from haneul.components.base_images.tree import Tree

if TYPE_CHECKING:
    from typing_extensions import Buffer

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
_INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
_CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
_REFERENCE: Final = "org.opencontainers.image.ref.name"
# A higher one takes three times as long for a hundredth less.
_LEVEL: Final = 6


@dataclass(frozen=True)
class Layer:
    """A layer: its descriptor, and the digest of what it is before compression."""

    descriptor: dict[str, Any]
    plain: str


class Layout:
    """A layout that is written, or one that is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def blob(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Add a blob and return its descriptor with ``more`` in it."""
        digest = hashlib.sha256(data).hexdigest()
        path = self._blobs() / digest
        path.write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}

    def document(self, content: dict[str, Any], media_type: str, **more: Any) -> dict[str, Any]:
        """Add a JSON document and return its descriptor with ``more`` in it."""
        return self.blob(_json(content), media_type, **more)

    def layer(self, tree: Tree) -> Layer:
        """Add a tree as a layer."""
        unfinished = self._blobs() / "layer"
        with unfinished.open("wb") as file:
            compressed = _Hashed(file)
            # Without a name and a time of its own in its head.
            with gzip.GzipFile(filename="", mode="wb", fileobj=compressed, mtime=0, compresslevel=_LEVEL) as zipped:
                plain = _Hashed(zipped)
                tree.write(plain)
        unfinished.rename(self._blobs() / compressed.digest.hexdigest())
        descriptor = {
            "mediaType": _LAYER_TYPE,
            "digest": f"sha256:{compressed.digest.hexdigest()}",
            "size": compressed.size,
        }
        return Layer(descriptor, f"sha256:{plain.digest.hexdigest()}")

    def share(self, other: Layout) -> list[Layer]:
        """Take over the layers of another layout's image."""
        manifest = other.manifest()
        plain = other.load(manifest["config"])["rootfs"]["diff_ids"]
        for descriptor in manifest["layers"]:
            source = other.path(descriptor)
            (self._blobs() / source.name).hardlink_to(source)
        return [Layer(descriptor, digest) for descriptor, digest in zip(manifest["layers"], plain, strict=True)]

    def image(
        self, layers: list[Layer], config: dict[str, Any], *, annotations: dict[str, str], tag: str
    ) -> dict[str, Any]:
        """Add an image and return its descriptor, by which the layout knows it as ``tag``."""
        whole = {**config, "rootfs": {"type": "layers", "diff_ids": [layer.plain for layer in layers]}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": self.document(whole, _CONFIG_TYPE),
            "layers": [layer.descriptor for layer in layers],
            "annotations": annotations,
        }
        return self.document(manifest, MANIFEST_TYPE, annotations={_REFERENCE: tag})

    def attachment(
        self, content: dict[str, Any], media_type: str, *, subject: dict[str, Any], annotations: dict[str, str]
    ) -> dict[str, Any]:
        """Add a document that refers to an image, and return the descriptor of its manifest."""
        named = {name: subject[name] for name in ("mediaType", "digest", "size")}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": media_type,
            "config": self.blob(b"{}", _EMPTY_TYPE),
            "layers": [self.document(content, media_type)],
            "subject": named,
            "annotations": annotations,
        }
        return self.document(manifest, MANIFEST_TYPE, artifactType=media_type)

    def finish(self, manifests: list[dict[str, Any]]) -> None:
        """Write what makes a layout of the folder; the image's manifest comes first."""
        (self.folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        index = {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": manifests}
        (self.folder / "index.json").write_bytes(_json(index))

    def manifests(self) -> list[dict[str, Any]]:
        """Return the descriptors of the index: the image, then what refers to it."""
        found: list[dict[str, Any]] = json.loads((self.folder / "index.json").read_text())["manifests"]
        return found

    def manifest(self) -> dict[str, Any]:
        """Return the image's manifest."""
        return self.load(self.manifests()[0])

    def load(self, descriptor: dict[str, Any]) -> dict[str, Any]:
        """Return the document that a descriptor names."""
        found: dict[str, Any] = json.loads(self.path(descriptor).read_bytes())
        return found

    def path(self, descriptor: dict[str, Any]) -> Path:
        """Return the file that a descriptor names."""
        algorithm, _, value = str(descriptor["digest"]).partition(":")
        return self.folder / "blobs" / algorithm / value

    def _blobs(self) -> Path:
        folder = self.folder / "blobs" / "sha256"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class _Hashed(io.RawIOBase):
    """Passes on what is written, and remembers its digest and size."""

    def __init__(self, output: io.BufferedIOBase) -> None:
        self._output = output
        self.digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Pass all of it on."""
        self.digest.update(data)
        self._output.write(data)
        length = memoryview(data).nbytes
        self.size += length
        return length


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
