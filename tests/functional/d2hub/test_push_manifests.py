"""OCI distribution specification 1.1, "Push", manifests (end-7): images, indexes, artifacts, Docker's schema 2."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.functional.d2hub.hub import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Client,
    codes,
    descriptor,
    image,
    sha256,
    sha512,
)

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def index(*entries: dict[str, Any], media_type: str = OCI_INDEX) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).encode()


def test_a_manifest_under_a_tag(client: Client) -> None:
    made = image(b"layer")
    for blob in (made.config, *made.layers):
        client.push_blob(blob)
    answer = client.put_manifest("v1", made.manifest)
    assert answer.status_code == 201
    assert answer.headers["docker-content-digest"] == made.digest
    assert "oci-subject" not in answer.headers
    assert client.http.get(answer.headers["location"]).content == made.manifest


def test_a_manifest_by_its_digest_has_no_tag(client: Client) -> None:
    made = image(b"layer")
    client.push(made, made.digest)
    assert client.get(f"manifests/{made.digest}").content == made.manifest
    assert client.get("tags/list").json()["tags"] == []


def test_a_manifest_by_sha512(client: Client) -> None:
    made = image(b"layer")
    for blob in (made.config, *made.layers):
        client.push_blob(blob)
    digest = sha512(made.manifest)
    answer = client.put_manifest(digest, made.manifest)
    assert (answer.status_code, answer.headers["docker-content-digest"]) == (201, digest)
    assert client.get(f"manifests/{digest}").content == made.manifest


def test_a_digest_that_is_not_the_manifests_is_refused(client: Client) -> None:
    made = image()
    client.push_blob(made.config)
    answer = client.put_manifest(sha256(b"other"), made.manifest)
    assert answer.status_code == 400
    assert codes(answer) == ["DIGEST_INVALID"]


def test_a_tag_moves_at_once(client: Client) -> None:
    first, second = image(b"first"), image(b"second")
    client.push(first, "latest")
    assert client.get("manifests/latest").headers["docker-content-digest"] == first.digest
    client.push(second, "latest")
    assert client.get("manifests/latest").headers["docker-content-digest"] == second.digest
    assert client.get(f"manifests/{first.digest}").content == first.manifest


def test_a_manifest_without_its_blobs_is_refused_and_not_there(client: Client) -> None:
    made = image(b"never pushed")
    client.push_blob(made.config)
    answer = client.put_manifest("v1", made.manifest)
    assert answer.status_code == 404
    assert codes(answer) == ["MANIFEST_BLOB_UNKNOWN"]
    assert sha256(b"never pushed") in answer.text
    assert client.get("manifests/v1").status_code == 404
    assert client.get(f"manifests/{made.digest}").status_code == 404


def test_layers_that_lie_elsewhere_need_not_be_here(client: Client) -> None:
    made = image(config=b'{"os":"windows"}')
    document = json.loads(made.manifest)
    document["layers"] = [descriptor(b"far away", "application/x-foreign", urls=["https://example.com/layer"])]
    client.push_blob(made.config)
    assert client.put_manifest("v1", json.dumps(document).encode()).status_code == 201


def test_nested_indexes(client: Client) -> None:
    made = image(b"layer")
    client.push(made, made.digest)
    inner = index(descriptor(made.manifest, OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"}))
    assert client.put_manifest(sha256(inner), inner, OCI_INDEX).status_code == 201
    outer = index(descriptor(inner, OCI_INDEX), descriptor(made.manifest, OCI_MANIFEST))
    answer = client.put_manifest("multi", outer, OCI_INDEX)
    assert answer.status_code == 201
    got = client.get("manifests/multi")
    assert (got.content, got.headers["content-type"]) == (outer, OCI_INDEX)


def test_an_index_of_blobs(client: Client) -> None:
    """BuildKit's cache: layers as entries, and its configuration."""
    layer, config = b"cached layer", b'{"layers":[]}'
    content = index(
        descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip"),
        descriptor(config, "application/vnd.buildkit.cacheconfig.v0"),
    )
    assert client.put_manifest("cache", content, OCI_INDEX).status_code == 404
    for blob in (layer, config):
        client.push_blob(blob)
    assert client.put_manifest("cache", content, OCI_INDEX).status_code == 201
    assert client.delete(f"blobs/{sha256(layer)}").status_code == 405


def test_an_index_of_what_is_not_there_is_refused(client: Client) -> None:
    content = index(descriptor(image(b"x").manifest, OCI_MANIFEST))
    answer = client.put_manifest("v1", content, OCI_INDEX)
    assert answer.status_code == 404
    assert codes(answer) == ["MANIFEST_BLOB_UNKNOWN"]


def test_empty_manifests(client: Client) -> None:
    assert client.put_manifest("empty", index(), OCI_INDEX).status_code == 201
    made = image()
    client.push_blob(b"{}")
    assert client.put_manifest("no-layers", made.manifest).status_code == 201
    assert client.get("manifests/no-layers").content == made.manifest


def test_docker_schema_2(client: Client) -> None:
    config, layer = b'{"docker":true}', b"docker layer"
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": descriptor(config, "application/vnd.docker.container.image.v1+json"),
        "layers": [descriptor(layer, "application/vnd.docker.image.rootfs.diff.tar.gzip")],
    }
    for blob in (config, layer):
        client.push_blob(blob)
    content = json.dumps(document).encode()
    assert client.put_manifest("v1", content, DOCKER_MANIFEST).status_code == 201
    assert client.get("manifests/v1").headers["content-type"] == DOCKER_MANIFEST
    listed = index(descriptor(content, DOCKER_MANIFEST), media_type=DOCKER_LIST)
    assert client.put_manifest("multi", listed, DOCKER_LIST).status_code == 201
    assert client.get("manifests/multi").headers["content-type"] == DOCKER_LIST


def test_large_manifests_up_to_the_limit(client: Client) -> None:
    client.push_blob(b"{}")
    limit = 4 << 20
    base = len(image(annotations={"padding": ""}).manifest)
    exact = image(annotations={"padding": "x" * (limit - base)})
    assert len(exact.manifest) == limit
    assert client.put_manifest("large", exact.manifest).status_code == 201
    assert client.get("manifests/large").content == exact.manifest
    answer = client.put_manifest("larger", exact.manifest + b" ")
    assert answer.status_code == 413
    assert codes(answer) == ["MANIFEST_INVALID"]


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"not json", OCI_MANIFEST),
        (b"[]", OCI_MANIFEST),
        (b'{"schemaVersion":1}', OCI_MANIFEST),
        (b'{"schemaVersion":2,"layers":[]}', OCI_MANIFEST),
        (b'{"schemaVersion":2,"manifests":{}}', OCI_INDEX),
        (b'{"schemaVersion":2,"manifests":[{"digest":"sha256:x","size":1,"mediaType":"a"}]}', OCI_INDEX),
        (index(), OCI_MANIFEST),
        (index(), "text/plain"),
        (b'{"schemaVersion":2,"manifests":[],"annotations":{"a":1}}', OCI_INDEX),
        (b"[" * 200_000, OCI_MANIFEST),
        (image(artifactType="\ud800").manifest, OCI_MANIFEST),
        (image(annotations={"\udfff": ""}).manifest, OCI_MANIFEST),
        (index(*({"mediaType": "a", "digest": sha256(b""), "size": (1 << 63) - 1} for _ in range(2))), OCI_INDEX),
    ],
    ids=[
        "text",
        "list",
        "schema-1",
        "no-config",
        "no-list",
        "bad-digest",
        "other-type",
        "unknown",
        "notes",
        "deep",
        "surrogate",
        "surrogate-note",
        "too-much",
    ],
)
def test_a_manifest_that_is_none_is_refused(client: Client, content: bytes, media_type: str) -> None:
    answer = client.put_manifest("v1", content, media_type)
    assert answer.status_code == 400
    assert codes(answer) == ["MANIFEST_INVALID"]


@pytest.mark.parametrize("tag", ["-x", ".x", "a" * 129, "a%20b"])
def test_a_malformed_tag_is_refused(client: Client, tag: str) -> None:
    made = image()
    client.push_blob(made.config)
    answer = client.put_manifest(tag, made.manifest)
    assert answer.status_code == 400
    assert codes(answer) == ["NAME_INVALID"]


def test_an_artifact(client: Client) -> None:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/x-sbom",
        "config": descriptor(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [descriptor(b"{}", "application/vnd.oci.empty.v1+json")],
    }
    client.push_blob(b"{}")
    assert client.put_manifest("sbom", json.dumps(document).encode()).status_code == 201


def test_a_config_of_any_type(client: Client) -> None:
    made = image(config=b"anything")
    content = made.manifest.replace(OCI_CONFIG.encode(), b"application/x-anything")
    client.push_blob(b"anything")
    assert client.put_manifest("v1", content).status_code == 201
