"""OCI distribution specification 1.1, "Content Management" (end-9, end-10); and bringing back."""

from __future__ import annotations

import json

from tests.functional.d2hub.hub import OCI_INDEX, Client, Hub, codes, descriptor, image, sha256


def test_a_tag_is_gone_at_once_and_its_manifest_stays(client: Client) -> None:
    made = image(b"layer")
    client.push(made, "v1")
    client.push(made, "v2")
    assert client.get("manifests/v1").status_code == 200
    assert client.delete("manifests/v1").status_code == 202
    assert client.get("manifests/v1").status_code == 404
    assert client.get("tags/list").json()["tags"] == ["v2"]
    assert client.get(f"manifests/{made.digest}").status_code == 200


def test_a_manifest_goes_with_all_its_tags(client: Client) -> None:
    made, other = image(b"layer"), image(b"other")
    for tag in ("v1", "v2"):
        client.push(made, tag)
    client.push(other, "v3")
    assert client.get("manifests/v1").status_code == 200
    assert client.delete(f"manifests/{made.digest}").status_code == 202
    for reference in ("v1", "v2", made.digest):
        answer = client.get(f"manifests/{reference}")
        assert answer.status_code == 404
        assert codes(answer) == ["MANIFEST_UNKNOWN"]
        assert client.head(f"manifests/{reference}").status_code == 404
    assert client.get("tags/list").json()["tags"] == ["v3"]


def test_deleting_what_is_not_there(client: Client) -> None:
    client.push(image(b"layer"), "v1")
    for path in ("manifests/v9", f"manifests/{sha256(b'nothing')}"):
        answer = client.delete(path)
        assert answer.status_code == 404
        assert codes(answer) == ["MANIFEST_UNKNOWN"]
    answer = client.delete(f"blobs/{sha256(b'nothing')}")
    assert answer.status_code == 404
    assert codes(answer) == ["BLOB_UNKNOWN"]


def test_a_blob_is_gone_at_once(client: Client) -> None:
    digest = client.push_blob(b"short-lived")
    assert client.get(f"blobs/{digest}").status_code == 200
    assert client.delete(f"blobs/{digest}").status_code == 202
    assert client.get(f"blobs/{digest}").status_code == 404
    assert client.head(f"blobs/{digest}").status_code == 404
    assert client.push_blob(b"short-lived") == digest
    assert client.get(f"blobs/{digest}").content == b"short-lived"


def test_a_blob_that_an_image_needs_stays(client: Client) -> None:
    client.push(image(b"needed"), "v1")
    answer = client.delete(f"blobs/{sha256(b'needed')}")
    assert answer.status_code == 405
    assert codes(answer) == ["UNSUPPORTED"]
    assert client.get(f"blobs/{sha256(b'needed')}").content == b"needed"


def test_an_image_that_an_index_needs_stays(client: Client) -> None:
    made = image(b"layer")
    client.push(made, "v1")
    content = json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(made.manifest, made.media_type)]}
    ).encode()
    client.put_manifest("multi", content, OCI_INDEX)
    assert client.delete(f"manifests/{made.digest}").status_code == 405
    assert client.get("manifests/v1").status_code == 200
    assert client.delete(f"manifests/{sha256(content)}").status_code == 202
    assert client.delete(f"manifests/{made.digest}").status_code == 202


def test_a_deleted_image_comes_back_with_its_tags(client: Client) -> None:
    made = image(b"precious")
    for tag in ("v1", "v2"):
        client.push(made, tag)
    client.delete(f"manifests/{made.digest}")
    client.delete(f"blobs/{sha256(b'precious')}")
    gone = client.http.get("/api/v1/deletions", params={"repository": client.repository}).json()["items"]
    assert sorted(entry["tag"] for entry in gone) == ["", "v1", "v2"]
    assert {entry["by"] for entry in gone} == {"owner"}
    body = {"repository": client.repository, "reference": made.digest}
    assert client.http.post("/api/v1/undelete", json=body).status_code == 200
    for tag in ("v1", "v2"):
        assert client.get(f"manifests/{tag}").content == made.manifest
    assert client.get(f"blobs/{sha256(b'precious')}").content == b"precious"
    assert client.http.get("/api/v1/deletions", params={"repository": client.repository}).json()["items"] == []


def test_a_deleted_tag_comes_back_unless_it_was_given_away(client: Client) -> None:
    first, second = image(b"first"), image(b"second")
    client.push(first, "v1")
    client.delete("manifests/v1")
    body = {"repository": client.repository, "reference": "v1"}
    assert client.http.post("/api/v1/undelete", json=body).status_code == 200
    assert client.get("manifests/v1").content == first.manifest
    client.push(second, "v1")
    answer = client.http.post("/api/v1/undelete", json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    client.delete("manifests/v1")
    assert client.http.post("/api/v1/undelete", json=body).json()["digest"] == second.digest


def test_nothing_to_bring_back(client: Client) -> None:
    client.push(image(b"layer"), "v1")
    answer = client.http.post("/api/v1/undelete", json={"repository": client.repository, "reference": "v7"})
    assert (answer.status_code, answer.json()["code"]) == (404, "manifest-unknown")


def test_a_document_that_is_none_is_refused(client: Client) -> None:
    for body in (b"no json", b"[]", b'{"a":' * 10_000):
        answer = client.http.post("/api/v1/undelete", content=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "request-invalid")


def test_who_only_writes_deletes_nothing(hub: Hub, client: Client) -> None:
    client.push(image(b"layer"), "v1")
    with Client(hub, client.repository, user="writer") as writer:
        answer = writer.delete("manifests/v1")
        assert answer.status_code == 403
        assert codes(answer) == ["DENIED"]
    assert client.get("manifests/v1").status_code == 200
