"""The table of base images agrees with itself and with the house's files."""

import re
from pathlib import Path

import pytest

from haneul.components.base_images.reference import base_image_page
from haneul.components.base_images.table import BASE_IMAGES, BaseImage, base_image, lineage, repository

PROJECT = Path(__file__).parents[3]
HOUSE = PROJECT / "components" / "base-images"


def test_the_images_that_people_ask_for_are_there() -> None:
    assert [repository(row) for row in BASE_IMAGES] == [
        "base/debian",
        "base/python",
        "base/node",
        "base/java",
        "base/nginx",
    ]
    with pytest.raises(KeyError):
        base_image("cobol")


@pytest.mark.parametrize("row", BASE_IMAGES, ids=lambda row: row.name)
def test_an_image_stands_on_earlier_ones_and_is_named_for_one_of_its_packages(row: BaseImage) -> None:
    line = lineage(row)
    assert line[0] is base_image("debian")
    assert line[-1] is row
    assert [BASE_IMAGES.index(image) for image in line] == sorted(BASE_IMAGES.index(image) for image in line)
    assert row.main in row.packages
    assert not set(row.without) & {name for image in line for name in image.packages}


@pytest.mark.parametrize("row", BASE_IMAGES, ids=lambda row: row.name)
def test_nothing_is_set_that_a_container_refuses(row: BaseImage) -> None:
    assert row.port == 0 or row.port >= 1024
    assert {setting.name for image in lineage(row) for setting in image.environment} >= {"PATH", "LANG", "TZ", "HOME"}
    assert all(path and not path.startswith("/") for path, _ in row.links)


@pytest.mark.parametrize("row", BASE_IMAGES, ids=lambda row: row.name)
def test_a_page_says_what_is_inside_and_every_setting_with_its_reason(row: BaseImage) -> None:
    page = base_image_page(row)
    assert page.startswith(f"# {repository(row)}\n")
    for name in (*row.packages, *row.without):
        assert f"`{name}`" in page
    for image in lineage(row):
        for setting in image.environment:
            assert f"| `{setting.name}` | `{setting.value}` | {setting.why} |" in page
        for line in image.house:
            assert f"- {line}\n" in page
    assert f"hub.example.com/{repository(row)}:{row.version}" in page


def test_the_house_has_files_for_images_only_and_they_name_no_host() -> None:
    assert {path.name for path in HOUSE.iterdir()} <= {row.name for row in BASE_IMAGES}
    for path in HOUSE.rglob("*"):
        assert not path.is_file() or not re.search(r"https?://", path.read_text()), path
