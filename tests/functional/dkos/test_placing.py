"""What a restore does with folders: whatever goes wrong, one good copy is where etcd or a person finds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from haneul.dkos.backup import placing
from haneul.kernel.errors import BackupIncompleteError


def data(folder: Path, name: str, content: str) -> None:
    (folder / name).mkdir()
    (folder / name / "db").write_text(content)


def there(folder: Path) -> dict[str, str]:
    return {path.name: (path / "db").read_text() for path in folder.iterdir() if path.is_dir()}


def test_what_was_replaced_comes_back_when_what_was_prepared_is_gone(tmp_path: Path) -> None:
    # Ended between the two renames; then the prepared data was lost.
    data(tmp_path, "replaced-1", "old")
    with pytest.raises(BackupIncompleteError):
        placing.place(tmp_path, 1)
    assert there(tmp_path) == {"member-data": "old"}


def test_the_good_copy_of_a_restore_that_was_given_up_is_spared(tmp_path: Path) -> None:
    # The first was given up between its renames, and an etcd began anew on nothing.
    data(tmp_path, "replaced-1", "old")
    data(tmp_path, "member-data", "empty")
    data(tmp_path, "restored-2", "new")
    placing.place(tmp_path, 2)
    placing.clear(tmp_path)
    assert there(tmp_path) == {"member-data": "new", "replaced-1": "old"}


def test_of_several_that_were_put_in_place_all_that_was_replaced_goes(tmp_path: Path) -> None:
    data(tmp_path, "member-data", "old")
    for number in (1, 2, 3):
        data(tmp_path, f"restored-{number}", f"new {number}")
        placing.place(tmp_path, number)
        assert placing.is_placed(tmp_path, number) and not placing.is_placed(tmp_path, number - 1)
    assert len(there(tmp_path)) == 4
    data(tmp_path, "restored-9", "given up")
    placing.clear(tmp_path)
    placing.clear(tmp_path)
    assert there(tmp_path) == {"member-data": "new 3"}
    assert placing.is_placed(tmp_path, 3)


def test_a_mark_that_could_not_be_written_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data(tmp_path, "member-data", "old")
    data(tmp_path, "restored-1", "new")

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space"):
        patched.setattr(placing, "write_atomically", full)
        placing.place(tmp_path, 1)
    placing.place(tmp_path, 1)
    assert there(tmp_path) == {"member-data": "new", "replaced-1": "old"}
    assert placing.is_placed(tmp_path, 1)
