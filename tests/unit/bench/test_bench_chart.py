"""Charts are well-formed SVG whose marks stand where the figures say."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.bench.chart import BarChart, LineChart, Series, draw_bars, draw_lines, ticks

SVG = "{http://www.w3.org/2000/svg}"


def parsed(document: str) -> ElementTree.Element:
    return ElementTree.fromstring(document)  # noqa: S314 - made a moment ago


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def bars(root: ElementTree.Element, colour: str) -> list[ElementTree.Element]:
    """Return bars of a colour without the legend's square."""
    return [bar for bar in root.iter(f"{SVG}rect") if bar.get("fill") == colour][1:]


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        (0, (0, 1)),
        (10, (0, 2, 4, 6, 8, 10)),
        (4.2, (0, 1, 2, 3, 4, 5)),
        (1, (0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        (480, (0, 100, 200, 300, 400, 500)),
        (0.011, (0, 0.0025, 0.005, 0.0075, 0.01, 0.0125)),
    ],
)
def test_ticks_are_round(top: float, expected: tuple[float, ...]) -> None:
    assert ticks(top) == expected


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_ticks_reach_the_top_and_are_few(top: float) -> None:
    found = ticks(top)
    assert found[0] == 0
    assert found[-1] >= top * (1 - 1e-6)
    assert 2 <= len(found) <= 7


CHART = BarChart(
    "Time <to> create",
    "seconds",
    ("API & answers", "node"),
    (Series("native", (2.0, 4.0), (3.0, 4.0)), Series("cilium", (1.0, None))),
)


def test_bars_are_as_high_as_their_values() -> None:
    root = parsed(draw_bars(CHART))
    first, second = bars(root, "#0072b2")
    assert float(second.get("height", "0")) == pytest.approx(2 * float(first.get("height", "0")), abs=0.2)
    (only,) = bars(root, "#d55e00")
    assert float(only.get("height", "0")) == pytest.approx(float(first.get("height", "0")) / 2, abs=0.2)


def test_everything_is_labelled_and_escaped() -> None:
    shown = texts(parsed(draw_bars(CHART)))
    for label in ("Time <to> create", "seconds", "API & answers", "node", "native", "cilium", "2.00", "4.00", "1.00"):
        assert label in shown


def test_long_labels_break_and_figures_are_short_where_bars_are_narrow() -> None:
    groups = ("controller-manager", "etcd", "first pod runs at last", "unbreakablename", "e", "f", "g", "h")
    series = tuple(Series(name, (65.43, 0.841, 123.4, 7.2, 0, 1, 1, 1)) for name in "abc")
    shown = texts(parsed(draw_bars(BarChart("Memory", "MiB", groups, series))))
    for label in (
        "controller-",
        "manager",
        "first pod",
        "runs at last",
        "unbreakablename",
        "65",
        "0.8",
        "123",
        "7.2",
        "0",
    ):
        assert label in shown


def test_the_figures_are_also_there_in_words() -> None:
    root = parsed(draw_bars(CHART))
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == "Time <to> create"
    words = "native, seconds: API & answers: 2, node: 4. cilium, seconds: API & answers: 1"
    assert root.findtext(f"{SVG}desc") == words


def test_the_upper_end_is_drawn_only_where_it_is_above() -> None:
    document = draw_bars(CHART)
    assert document.count('stroke="#0072b2"') == 1


def test_lines_go_through_their_points() -> None:
    chart = LineChart(
        "Memory", "clusters", "MiB", (1, 2, 3), (Series("PSS", (100, 200, 300)), Series("x", (5, None, 9)))
    )
    root = parsed(draw_lines(chart))
    first, second = root.iter(f"{SVG}polyline")
    points = [tuple(map(float, point.split(","))) for point in first.get("points", "").split()]
    assert [points[1][0] - points[0][0], points[1][1] - points[0][1]] == pytest.approx(
        [points[2][0] - points[1][0], points[2][1] - points[1][1]], abs=0.2
    )
    assert points[0][1] > points[2][1]
    assert len(second.get("points", "").split()) == 2
    assert "clusters" in texts(root)


def test_every_mark_is_inside_the_drawing() -> None:
    root = parsed(draw_bars(CHART))
    _, _, width, height = map(float, root.get("viewBox", "").split())
    for mark in root.iter(f"{SVG}rect"):
        assert 0 <= float(mark.get("x", "-1")) <= width - float(mark.get("width", "0"))
        assert 0 <= float(mark.get("y", "-1")) <= height - float(mark.get("height", "0"))


def test_a_chart_without_values_is_still_a_drawing() -> None:
    parsed(draw_bars(BarChart("Nothing", "seconds", (), ())))
    parsed(draw_lines(LineChart("Nothing", "x", "y", (), ())))


@pytest.mark.parametrize("background", ["#ffffff", "#0d1117"])
def test_colours_can_be_seen_on_light_and_dark(background: str) -> None:
    document = draw_bars(BarChart("All", "s", ("a",), tuple(Series(str(n), (1.0,)) for n in range(6))))
    colours = {element.get("fill", "none") for element in parsed(document).iter()} - {"none"}
    assert len(colours) >= 6
    for colour in colours:
        assert contrast(colour, background) >= 3, colour


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours (WCAG 2.2, "contrast ratio")."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
