"""OCI distribution specification 1.1, "Content Discovery": tags (end-8a, end-8b) and referrers (end-12a, end-12b)."""

from __future__ import annotations

import json
import re

from tests.functional.d2hub.hub import OCI_CONFIG, OCI_INDEX, Client, Hub, codes, descriptor, image, sha256

TAGS = ["0", "A", "Z", "_x", "a", "a-1", "a.1", "a_1", "b", "v1", "v10", "v2"]


def test_tags_are_sorted(client: Client) -> None:
    made = image(b"layer")
    for tag in reversed(TAGS):
        client.push(made, tag)
    assert client.get("tags/list").json() == {"name": client.repository, "tags": TAGS}


def test_pages_of_tags(client: Client) -> None:
    made = image(b"layer")
    for tag in TAGS:
        client.push(made, tag)
    seen: list[str] = []
    path = client.path("tags/list?n=5")
    for _ in range(len(TAGS)):
        answer = client.http.get(path)
        page = answer.json()["tags"]
        assert len(page) <= 5
        seen += page
        if "link" not in answer.headers:
            break
        found = re.fullmatch(r'<(/v2/[^>]*)>; rel="next"', answer.headers["link"])
        assert found is not None
        path = found[1]
    assert seen == TAGS


def test_pages_at_their_edges(client: Client) -> None:
    made = image(b"layer")
    for tag in TAGS:
        client.push(made, tag)

    def tags(**query: object) -> tuple[list[str], bool]:
        answer = client.get("tags/list", params=query)
        return answer.json()["tags"], "link" in answer.headers

    assert tags(n=0) == ([], False)
    assert tags(n=len(TAGS)) == (TAGS, False)
    assert tags(n=10**6) == (TAGS, False)
    assert tags(last="v10") == (["v2"], False)
    assert tags(last="v2") == ([], False)
    assert tags(n=1, last="a0") == (["a_1"], True)
    assert client.get("tags/list", params={"n": "many"}).status_code == 400


def test_tags_of_an_unknown_repository(client: Client) -> None:
    answer = client.get("tags/list")
    assert answer.status_code == 404
    assert codes(answer) == ["NAME_UNKNOWN"]


def artifact(subject: dict[str, object] | None, kind: str, **more: object) -> bytes:
    document = json.loads(image().manifest) | {"artifactType": kind} | more
    if subject is not None:
        document["subject"] = subject
    return json.dumps(document).encode()


def test_referrers(client: Client) -> None:
    subject = image(b"layer")
    client.push(subject, "v1")
    described = descriptor(subject.manifest, subject.media_type)
    signature = artifact(described, "application/x-signature", annotations={"by": "us"})
    sbom = artifact(described, "application/x-sbom")
    for content in (signature, sbom):
        answer = client.put_manifest(sha256(content), content)
        assert answer.status_code == 201
        assert answer.headers["oci-subject"] == subject.digest
    answer = client.get(f"referrers/{subject.digest}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, OCI_INDEX)
    assert "oci-filters-applied" not in answer.headers
    document = answer.json()
    assert (document["schemaVersion"], document["mediaType"]) == (2, OCI_INDEX)
    found = {entry["digest"]: entry for entry in document["manifests"]}
    assert found[sha256(signature)] == descriptor(
        signature, subject.media_type, artifactType="application/x-signature", annotations={"by": "us"}
    )
    assert found[sha256(sbom)] == descriptor(sbom, subject.media_type, artifactType="application/x-sbom")


def test_pages_of_referrers(client: Client) -> None:
    subject = image(b"layer")
    client.push(subject, "v1")
    described = descriptor(subject.manifest, subject.media_type)
    pushed = [artifact(described, "a/large", annotations={"a": f"{n}" + "x" * 1_500_000}) for n in range(5)]
    for content in pushed:
        assert client.put_manifest(sha256(content), content).status_code == 201
    seen: list[str] = []
    path = client.path(f"referrers/{subject.digest}?artifactType=a%2Flarge")
    for _ in pushed:
        answer = client.http.get(path)
        assert len(answer.content) < 5 << 20
        assert answer.headers["oci-filters-applied"] == "artifactType"
        seen += [entry["digest"] for entry in answer.json()["manifests"]]
        if "link" not in answer.headers:
            break
        found = re.fullmatch(r'<(/v2/[^>]*)>; rel="next"', answer.headers["link"])
        assert found is not None
        path = found[1]
    assert seen == sorted(map(sha256, pushed))


def test_referrers_of_one_type(client: Client) -> None:
    subject = image(b"layer")
    client.push(subject, "v1")
    described = descriptor(subject.manifest, subject.media_type)
    wanted, other = artifact(described, "a/wanted"), artifact(described, "a/other")
    for content in (wanted, other):
        client.put_manifest(sha256(content), content)
    answer = client.get(f"referrers/{subject.digest}", params={"artifactType": "a/wanted"})
    assert answer.headers["oci-filters-applied"] == "artifactType"
    assert [entry["digest"] for entry in answer.json()["manifests"]] == [sha256(wanted)]


def test_an_image_without_artifact_type_has_its_configs(client: Client) -> None:
    subject = image(b"layer")
    client.push(subject, "v1")
    referrer = image(subject=descriptor(subject.manifest, subject.media_type))
    client.push(referrer, referrer.digest)
    found = client.get(f"referrers/{subject.digest}").json()["manifests"]
    assert [entry["artifactType"] for entry in found] == [OCI_CONFIG]


def test_an_index_may_refer(client: Client) -> None:
    subject = image(b"layer")
    client.push(subject, "v1")
    content = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "artifactType": "a/list",
            "manifests": [],
            "subject": descriptor(subject.manifest, subject.media_type),
        }
    ).encode()
    assert client.put_manifest("list", content, OCI_INDEX).headers["oci-subject"] == subject.digest
    found = client.get(f"referrers/{subject.digest}").json()["manifests"]
    assert found == [descriptor(content, OCI_INDEX, artifactType="a/list")]


def test_a_subject_may_come_later(client: Client) -> None:
    subject = image(b"later")
    content = artifact(descriptor(subject.manifest, subject.media_type), "a/early")
    client.push_blob(b"{}")
    assert client.put_manifest("early", content).status_code == 201
    assert [entry["digest"] for entry in client.get(f"referrers/{subject.digest}").json()["manifests"]] == [
        sha256(content)
    ]


def test_no_referrers_are_an_empty_list(client: Client) -> None:
    answer = client.get(f"referrers/{sha256(b'nothing')}")
    assert (answer.status_code, answer.json()["manifests"]) == (200, [])


def test_a_deleted_referrer_is_gone_at_once(client: Client) -> None:
    subject = image(b"layer")
    client.push(subject, "v1")
    content = artifact(descriptor(subject.manifest, subject.media_type), "a/short-lived")
    client.put_manifest(sha256(content), content)
    assert len(client.get(f"referrers/{subject.digest}").json()["manifests"]) == 1
    assert client.delete(f"manifests/{sha256(content)}").status_code == 202
    assert client.get(f"referrers/{subject.digest}").json()["manifests"] == []


def test_the_catalog_shows_what_the_caller_may_pull(hub: Hub, client: Client) -> None:
    client.push(image(b"layer"), "v1")

    def catalog(user: str, **query: int) -> list[str]:
        with Client(hub, client.repository, user=user, also=["registry:catalog:*"]) as somebody:
            names: list[str] = somebody.http.get("/v2/_catalog", params=query).json()["repositories"]
            return names

    assert client.repository in catalog("reader")
    assert catalog("stranger") == []
    assert len(catalog("reader", n=1)) == 1
