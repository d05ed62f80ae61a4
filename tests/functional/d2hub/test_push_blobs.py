"""OCI distribution specification 1.1, "Push", blobs: whole (end-4a, end-4b, end-6), chunked (end-5), mount (end-11)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from haneul.app.d2hub import accounts_of
from tests.functional.d2hub.hub import Client, Hub, codes, sha256, sha512


def test_post_then_put(client: Client) -> None:
    data = b"monolithic"
    begun = client.http.post(client.path("blobs/uploads/"))
    assert begun.status_code == 202
    location = begun.headers["location"]
    assert "?" not in location
    answer = client.http.put(location, params={"digest": sha256(data)}, content=data)
    assert answer.status_code == 201
    assert answer.headers["docker-content-digest"] == sha256(data)
    assert client.http.get(answer.headers["location"]).content == data


def test_a_single_post(client: Client) -> None:
    data = b"one request" * 50_000
    answer = client.http.post(client.path("blobs/uploads/"), params={"digest": sha256(data)}, content=data)
    assert answer.status_code == 201
    assert answer.headers["docker-content-digest"] == sha256(data)
    assert client.http.get(answer.headers["location"]).content == data


@pytest.mark.parametrize("way", ["put", "post"])
def test_a_wrong_digest_is_refused_and_leaves_nothing(client: Client, way: str) -> None:
    wrong = sha256(b"something else")
    if way == "put":
        location = client.begin()
        answer = client.http.put(location, params={"digest": wrong}, content=b"data")
        assert client.http.get(location).status_code == 404
    else:
        answer = client.http.post(client.path("blobs/uploads/"), params={"digest": wrong}, content=b"data")
    assert answer.status_code == 400
    assert codes(answer) == ["DIGEST_INVALID"]
    for digest in (wrong, sha256(b"data")):
        assert client.head(f"blobs/{digest}").status_code == 404


def test_put_without_a_digest_is_refused_and_the_upload_goes_on(client: Client) -> None:
    location = client.begin()
    answer = client.http.put(location, content=b"data")
    assert answer.status_code == 400
    assert codes(answer) == ["DIGEST_INVALID"]
    assert client.http.put(location, params={"digest": sha256(b"data")}, content=b"data").status_code == 201


def test_chunks_in_order(client: Client) -> None:
    chunks = [b"a" * 1000, b"b" * 70_000, b"c" * (1 << 20), b"d"]
    location, sent = client.begin(), 0
    for chunk in chunks:
        headers = {"Content-Range": f"{sent}-{sent + len(chunk) - 1}"}
        answer = client.http.patch(location, content=chunk, headers=headers)
        sent += len(chunk)
        assert answer.status_code == 202
        assert answer.headers["range"] == f"0-{sent - 1}"
        location = answer.headers["location"]
    data = b"".join(chunks)
    answer = client.http.put(location, params={"digest": sha256(data)})
    assert answer.status_code == 201
    assert client.get(f"blobs/{sha256(data)}").content == data


def test_the_last_chunk_may_come_with_the_put(client: Client) -> None:
    location = client.begin()
    location = client.http.patch(location, content=b"first", headers={"Content-Range": "0-4"}).headers["location"]
    digest = sha256(b"firstlast")
    answer = client.http.put(location, params={"digest": digest}, content=b"last", headers={"Content-Range": "5-8"})
    assert answer.status_code == 201
    assert client.get(f"blobs/{digest}").content == b"firstlast"


def test_a_stream_of_unknown_length(client: Client) -> None:
    parts = [bytes([number]) * 300_000 for number in range(10)]

    def stream() -> Iterator[bytes]:
        yield from parts

    location = client.http.patch(client.begin(), content=stream()).headers["location"]
    data = b"".join(parts)
    assert client.http.put(location, params={"digest": sha256(data)}).status_code == 201
    assert client.get(f"blobs/{sha256(data)}").content == data


def test_a_chunk_out_of_order_is_refused_and_the_upload_goes_on(client: Client) -> None:
    location = client.begin()
    client.http.patch(location, content=b"0123", headers={"Content-Range": "0-3"})
    for first in (0, 3, 5, 100):
        answer = client.http.patch(location, content=b"wxyz", headers={"Content-Range": f"{first}-{first + 3}"})
        assert answer.status_code == 416
    status = client.http.get(location)
    assert (status.status_code, status.headers["range"]) == (204, "0-3")
    assert client.http.put(location, params={"digest": sha256(b"0123")}).status_code == 201


@pytest.mark.parametrize("header", ["5-1", "0-99", "abc", "-5"])
def test_a_range_that_does_not_fit_its_chunk_is_refused(client: Client, header: str) -> None:
    answer = client.http.patch(client.begin(), content=b"0123", headers={"Content-Range": header})
    assert answer.status_code == 400
    assert codes(answer) == ["BLOB_UPLOAD_INVALID"]


@pytest.mark.parametrize("last", [2, 9])
def test_a_range_that_does_not_fit_what_arrives_is_refused(client: Client, last: int) -> None:
    location = client.begin()
    answer = client.http.patch(location, content=iter([b"01", b"23"]), headers={"Content-Range": f"0-{last}"})
    assert answer.status_code == 400
    assert codes(answer) == ["BLOB_UPLOAD_INVALID"]
    answer = client.http.patch(client.begin(), content=iter([b"01", b"23"]), headers={"Content-Range": "0-3"})
    assert answer.status_code == 202


def test_the_status_of_an_upload(client: Client) -> None:
    location = client.begin()
    fresh = client.http.get(location)
    assert (fresh.status_code, fresh.headers["range"], fresh.headers["location"]) == (204, "0-0", location)
    client.http.patch(location, content=b"x" * 100)
    assert client.http.get(location).headers["range"] == "0-99"


def test_a_cancelled_upload_is_gone(client: Client) -> None:
    location = client.begin()
    client.http.patch(location, content=b"data")
    assert client.http.delete(location).status_code == 204
    for answer in (
        client.http.get(location),
        client.http.patch(location, content=b"more"),
        client.http.put(location, params={"digest": sha256(b"data")}),
        client.http.delete(location),
    ):
        assert answer.status_code == 404
        assert codes(answer) == ["BLOB_UPLOAD_UNKNOWN"]


@pytest.mark.parametrize("upload", ["nothing", "..", "%2e%2e%2f%2e%2e", "0" * 32])
def test_an_unknown_upload_is_not_found(client: Client, upload: str) -> None:
    raw = client.path(f"blobs/uploads/{upload}").replace("/..", "/%2e%2e")
    assert client.http.patch(raw, content=b"data").status_code == 404


def test_an_upload_belongs_to_its_repository(hub: Hub, client: Client) -> None:
    location = client.begin()
    with Client(hub, f"{client.repository}-other", user="owner") as other:
        elsewhere = location.replace(client.repository, other.repository)
        assert other.http.patch(elsewhere, content=b"data").status_code == 404
    assert client.http.patch(location, content=b"data").status_code == 202


@pytest.mark.parametrize("chunked", [False, True])
def test_blobs_by_sha512(client: Client, chunked: bool) -> None:
    data, location = b"by another algorithm" * 10_000, client.begin()
    digest = sha512(data)
    if chunked:
        client.http.patch(location, content=data[:1000])
        answer = client.http.put(location, params={"digest": digest}, content=data[1000:])
    else:
        answer = client.http.put(location, params={"digest": digest}, content=data)
    assert answer.status_code == 201
    assert answer.headers["docker-content-digest"] == digest
    assert client.get(f"blobs/{digest}").content == data
    assert client.head(f"blobs/{sha256(data)}").status_code == 404


def test_the_same_blob_again_is_fine(client: Client) -> None:
    first, again = client.push_blob(b"twice"), client.push_blob(b"twice")
    assert first == again
    assert client.get(f"blobs/{first}").content == b"twice"


def test_mount_from_another_repository(hub: Hub, client: Client) -> None:
    source = f"other/{client.repository.partition('/')[2]}"
    with Client(hub, source, user="owner") as origin:
        digest = origin.push_blob(b"shared")
    scope = f"repository:{source}:pull"
    with Client(hub, client.repository, user="owner", also=[scope]) as both:
        answer = both.http.post(both.path("blobs/uploads/"), params={"mount": digest, "from": source})
        assert answer.status_code == 201
        assert answer.headers["docker-content-digest"] == digest
        assert both.http.get(answer.headers["location"]).content == b"shared"


def test_mount_without_a_source_finds_it_in_the_project(hub: Hub, client: Client) -> None:
    with Client(hub, f"{client.repository}-source", user="owner") as origin:
        digest = origin.push_blob(b"somewhere in this project")
    scope = f"repository:{client.repository}-source:pull"
    with Client(hub, client.repository, user="owner", also=[scope]) as both:
        answer = both.http.post(both.path("blobs/uploads/"), params={"mount": digest})
        assert answer.status_code == 201
    assert client.get(f"blobs/{digest}").content == b"somewhere in this project"


@pytest.mark.parametrize("named", [True, False])
def test_mount_from_where_the_token_does_not_reach_becomes_an_upload(hub: Hub, client: Client, named: bool) -> None:
    """The account may pull there; the token, which may be somebody else's by now, was not given out for it."""
    source = f"{client.repository}-source"
    with Client(hub, source, user="owner") as origin:
        digest = origin.push_blob(f"not of this token {named}".encode())
    params = {"mount": digest, "from": source} if named else {"mount": digest}
    assert client.http.post(client.path("blobs/uploads/"), params=params).status_code == 202
    assert client.head(f"blobs/{digest}").status_code == 404


@pytest.mark.parametrize("named", [True, False])
def test_mount_from_a_public_project_needs_no_more_than_to_push(hub: Hub, named: bool) -> None:
    accounts_of(hub.data).set_project("opened", public=True)
    with Client(hub, f"opened/source-{named}".lower(), user="admin") as origin:
        digest = origin.push_blob(f"for everybody {named}".encode())
        params = {"mount": digest, "from": origin.repository} if named else {"mount": digest}
    with Client(hub, f"opened/target-{named}".lower(), user="admin") as pusher:
        assert pusher.http.post(pusher.path("blobs/uploads/"), params=params).status_code == 201


def test_mount_of_what_is_not_there_becomes_an_upload(client: Client) -> None:
    digest = sha256(b"nowhere")
    for params in ({"mount": digest, "from": "shop/nothing"}, {"mount": digest}):
        answer = client.http.post(client.path("blobs/uploads/"), params=params)
        assert answer.status_code == 202
        assert re.fullmatch(r"/v2/.*/blobs/uploads/[0-9a-f]{32}", answer.headers["location"])


def test_mount_from_what_one_may_not_read_becomes_an_upload(hub: Hub, client: Client) -> None:
    with Client(hub, "other/private", user="owner") as origin:
        digest = origin.push_blob(b"not for writers of shop")
    with Client(hub, client.repository, user="writer", actions="pull,push") as writer:
        for params in ({"mount": digest, "from": "other/private"}, {"mount": digest}):
            assert writer.http.post(writer.path("blobs/uploads/"), params=params).status_code == 202
        assert writer.head(f"blobs/{digest}").status_code == 404
