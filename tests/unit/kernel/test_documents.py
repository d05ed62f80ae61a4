"""What is written as YAML is read as the same values, also by programs that know YAML 1.2."""

import pytest

from haneul.kernel.documents import from_yaml, to_yaml


@pytest.mark.parametrize("text", ["2111436021779e33", "1e3", "-1E+3", ".5", "1.", "0o17", "0x1f", "12", "1.5"])
def test_a_text_that_go_reads_as_a_number_is_quoted(text: str) -> None:
    assert to_yaml({"digest": text}) == f"digest: '{text}'\n"


@pytest.mark.parametrize("text", ["e3", "1e", "1.2.3.4", "v1.37.2", "0abc", "21114360217f9e33"])
def test_other_texts_are_written_plainly(text: str) -> None:
    assert to_yaml({"digest": text}) == f"digest: {text}\n"


@pytest.mark.parametrize("value", [1, -7, 1.5, 1e46, 0.1, True, None, "", "yes", "~", "2111436021779e33"])
def test_every_value_is_read_back(value: object) -> None:
    assert from_yaml(to_yaml({"value": value})) == {"value": value}
    assert type(from_yaml(to_yaml({"value": value}))["value"]) is type(value)


def test_documents_follow_one_another() -> None:
    assert to_yaml({"b": 1, "a": 2}, {"c": "1e3"}) == "b: 1\na: 2\n---\nc: '1e3'\n"
