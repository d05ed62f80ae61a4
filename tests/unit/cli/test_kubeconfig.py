"""Kubeconfigs that kubectl reads: merged with what others wrote, and texts stay texts to Go."""

from pathlib import Path

from haneul.cli.kubeconfig import entries, merge_into, remove_from

#: A token as an older kubectl may have written it: a text to YAML 1.1, a number to Go.
OTHERS = """\
apiVersion: v1
kind: Config
current-context: other
users:
- name: other
  user:
    token: 2111436021779e33
"""


def test_texts_that_go_reads_as_numbers_are_quoted(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(OTHERS)
    merge_into(file, entries("team", "1e3", server="https://10.0.0.1:6443", authority="-"))
    written = file.read_text()
    assert "token: '2111436021779e33'" in written
    assert "- '1e3'\n" in written
    assert "current-context: team/1e3" in written
    remove_from(file, "team", "1e3")
    left = file.read_text()
    assert "1e3" not in left
    assert "token: '2111436021779e33'" in left
