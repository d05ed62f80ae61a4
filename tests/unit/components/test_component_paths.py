"""Keys and places in the cache: what changes a key, and what does not."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from haneul.components.paths import CacheLayout, digest, folder_digest

TEXTS = st.lists(st.text(max_size=4), max_size=4)


def test_everything_lies_below_the_root_and_apart() -> None:
    layout = CacheLayout(Path("/cache"))
    places = [
        layout.program_folder("etcd", "k1"),
        layout.program_folder("etcd", "k2"),
        layout.image_archive("etcd", "k1"),
        layout.debian_root("k1"),
        layout.image_storage,
        layout.lock("etcd"),
    ]
    assert all(place.is_relative_to("/cache") for place in places)
    assert len(set(places)) == len(places)
    assert layout.program_folder("etcd", "k1") == Path("/cache/programs/etcd-k1")


@given(TEXTS, TEXTS)
def test_digests_meet_only_for_equal_lists(one: list[str], other: list[str]) -> None:
    assert (digest(one) == digest(other)) == (one == other)


def test_text_and_its_bytes_have_one_digest() -> None:
    assert digest(["하늘"]) == digest(["하늘".encode()])
    assert len(digest([])) == 16


def test_folder_digest_sees_names_bytes_and_modes_but_not_where_or_when(tmp_path: Path) -> None:
    def tree(name: str, *, file: str = "run", text: str = "x", mode: int = 0o644) -> str:
        path = tmp_path / name / "sub" / file
        path.parent.mkdir(parents=True)
        path.write_text(text)
        path.chmod(mode)
        return folder_digest(tmp_path / name)

    first = tree("first")
    assert tree("elsewhere") == first
    assert tree("group-may-write", mode=0o664) == first
    others = {tree("name", file="go"), tree("text", text="y"), tree("mode", mode=0o755)}
    assert len(others | {first}) == 4


def test_folder_digest_passes_over_compiled_python(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("")
    before = folder_digest(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "module.pyc").write_bytes(b"\0")
    assert folder_digest(tmp_path) == before
