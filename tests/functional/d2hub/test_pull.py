"""OCI distribution specification 1.1, "Pull" (end-1, end-2, end-3) with Range, HEAD and conditions."""

from __future__ import annotations

import json

import pytest

from tests.functional.d2hub.hub import OCI_MANIFEST, Client, Hub, codes, image, sha256


def test_the_base_says_which_specification_this_is(client: Client) -> None:
    answer = client.http.get("/v2/")
    assert answer.status_code == 200
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


def test_a_manifest_is_pulled_by_tag_and_by_digest(client: Client) -> None:
    made = image(b"layer")
    client.push(made, "v1")
    for reference in ("v1", made.digest):
        answer = client.get(f"manifests/{reference}")
        assert answer.status_code == 200
        assert answer.content == made.manifest
        assert answer.headers["content-type"] == OCI_MANIFEST
        assert answer.headers["docker-content-digest"] == made.digest
        assert answer.headers["content-length"] == str(len(made.manifest))


def test_head_of_a_manifest_says_the_same_without_its_bytes(client: Client) -> None:
    made = image(b"layer")
    client.push(made, "v1")
    for reference in ("v1", made.digest):
        answer = client.head(f"manifests/{reference}")
        assert answer.status_code == 200
        assert answer.content == b""
        assert answer.headers["content-type"] == OCI_MANIFEST
        assert answer.headers["docker-content-digest"] == made.digest
        assert answer.headers["content-length"] == str(len(made.manifest))


def test_accept_does_not_change_what_is_served(client: Client) -> None:
    made = image(b"layer")
    client.push(made, "v1")
    for accept in ("*/*", OCI_MANIFEST, f"application/json, {OCI_MANIFEST}", "application/vnd.oci.image.index.v1+json"):
        answer = client.get("manifests/v1", headers={"Accept": accept})
        assert (answer.status_code, answer.headers["content-type"]) == (200, OCI_MANIFEST)
        assert answer.content == made.manifest


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_unknown_manifest_is_not_found(client: Client, method: str) -> None:
    client.push(image(b"layer"), "v1")
    for reference in ("v2", sha256(b"nothing"), ".hidden", "a" * 129):
        answer = client.http.request(method, client.path(f"manifests/{reference}"))
        assert answer.status_code == 404
        if method == "GET":
            assert codes(answer) == ["MANIFEST_UNKNOWN"]


def test_a_blob_is_pulled_whole(client: Client) -> None:
    # Around the sizes at which content is served from memory, and at which parts are gathered.
    for size in (0, 1, 65_536, 65_537, 1 << 20, (1 << 20) + 1):
        data = bytes(index * 7 % 251 for index in range(size)) if size < 100_000 else bytes(size - 1) + b"x"
        digest = client.push_blob(data)
        answer = client.get(f"blobs/{digest}")
        assert answer.status_code == 200
        assert answer.content == data
        assert answer.headers["docker-content-digest"] == digest
        assert answer.headers["content-length"] == str(size)
        head = client.head(f"blobs/{digest}")
        assert head.status_code == 200
        assert head.content == b""
        assert head.headers["content-length"] == str(size)
        assert head.headers["docker-content-digest"] == digest


@pytest.mark.parametrize("size", [1000, 200_000])
def test_parts_of_a_blob(client: Client, size: int) -> None:
    data = bytes(index % 256 for index in range(size))
    digest = client.push_blob(data)
    for header, expected in {
        "bytes=0-0": (0, 1),
        "bytes=10-19": (10, 20),
        f"bytes={size - 1}-": (size - 1, size),
        "bytes=500-": (500, size),
        "bytes=-10": (size - 10, size),
        f"bytes=-{size * 2}": (0, size),
        f"bytes=0-{size * 2}": (0, size),
    }.items():
        answer = client.get(f"blobs/{digest}", headers={"Range": header})
        first, end = expected
        assert answer.status_code == 206, header
        assert answer.content == data[first:end], header
        assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{size}"
        assert answer.headers["content-length"] == str(end - first)


def test_parts_that_are_not_there_or_not_understood(client: Client) -> None:
    data = b"0123456789"
    digest = client.push_blob(data)
    for header in ("bytes=10-", "bytes=10-20", "bytes=-0"):
        answer = client.get(f"blobs/{digest}", headers={"Range": header})
        assert answer.status_code == 416, header
        assert answer.headers["content-range"] == "bytes */10"
    for header in ("bytes=0-1,3-4", "bytes=5-2", "lines=1-2", "bytes=-", "bytes=x-y"):
        answer = client.get(f"blobs/{digest}", headers={"Range": header})
        assert (answer.status_code, answer.content) == (200, data), header


def test_content_that_the_client_has_is_not_sent_again(client: Client) -> None:
    made = image(b"layer")
    client.push(made, "v1")
    for path in ("manifests/v1", f"blobs/{sha256(b'layer')}"):
        etag = client.get(path).headers["etag"]
        answer = client.get(path, headers={"If-None-Match": etag})
        assert (answer.status_code, answer.content) == (304, b"")


def test_an_unknown_blob_is_not_found(client: Client) -> None:
    answer = client.get(f"blobs/{sha256(b'nothing')}")
    assert answer.status_code == 404
    assert codes(answer) == ["BLOB_UNKNOWN"]
    assert client.head(f"blobs/{sha256(b'nothing')}").status_code == 404


def test_a_blob_of_another_repository_is_not_found(hub: Hub, client: Client) -> None:
    digest = client.push_blob(b"only here")
    with Client(hub, f"{client.repository}-other", user="owner") as other:
        assert other.get(f"blobs/{digest}").status_code == 404
        assert other.head(f"blobs/{digest}").status_code == 404


@pytest.mark.parametrize("digest", ["sha256:abc", "sha256:" + "A" * 64, "md5:" + "0" * 32, "sha256:" + "0" * 65])
def test_a_malformed_digest_is_refused(client: Client, digest: str) -> None:
    for path in (f"blobs/{digest}", f"manifests/{digest}", f"referrers/{digest}"):
        answer = client.get(path)
        assert answer.status_code == 400
        assert codes(answer) == ["DIGEST_INVALID"]


@pytest.mark.parametrize("name", ["Shop/web", "shop//web", "shop/-web", "shop/web..x", "shop/" + "a" * 250, "../etc"])
def test_a_malformed_name_is_refused(client: Client, name: str) -> None:
    # Put together by hand: clients tidy paths up.
    answer = client.http.send(client.http.build_request("GET", f"/v2/{name.replace('..', '%2E%2E')}/tags/list"))
    assert answer.status_code == 400
    assert codes(answer) == ["NAME_INVALID"]


def test_escapes_in_paths_are_understood(client: Client) -> None:
    digest = client.push_blob(b"content")
    assert client.get(f"blobs/{digest.replace(':', '%3A')}").content == b"content"


def test_a_method_that_makes_no_sense_is_refused(client: Client) -> None:
    for path in ("manifests/v1", "tags/list", f"blobs/{sha256(b'')}", f"referrers/{sha256(b'')}"):
        answer = client.http.post(client.path(path))
        assert answer.status_code == 405
        assert codes(answer) == ["UNSUPPORTED"]


def test_what_is_not_there_is_told_in_the_same_form(client: Client) -> None:
    answer = client.http.get("/v2/shop/web/nothing/here")
    assert answer.status_code == 404
    assert json.loads(answer.content)["errors"]
