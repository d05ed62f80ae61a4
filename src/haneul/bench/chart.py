"""Charts as SVG, drawn without a library: bars in groups, and lines. Pure.

A drawing needs no script, no font and nothing from elsewhere, and is the same for the same figures, so that it can be
kept beside the page that shows it. It has no background; its colours keep a contrast of 3 : 1 and more (WCAG 2.2,
criterion 1.4.11) on white and on near-black, and the series' colours can be told apart by colour-blind people
(Okabe and Ito, "Color Universal Design").
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_WIDTH, _HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 72, 56
# Letters of a proportional font are a little under seven units wide at the size of labels.
_LETTER: Final = 6.6
_INK: Final = "#737b85"
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#b8649a", "#8a7f00", "#737b85")


@dataclass(frozen=True)
class Series:
    """Values of one kind, one for each group or point; None where there is none.

    ``high`` may give each value's upper end, such as a 90th percentile, which is drawn as a thin line above a bar.
    """

    name: str
    values: tuple[float | None, ...]
    high: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class BarChart:
    """Bars side by side in each of ``groups``; ``y_label`` names the unit."""

    title: str
    y_label: str
    groups: tuple[str, ...]
    series: tuple[Series, ...]


@dataclass(frozen=True)
class LineChart:
    """Lines over common ``x`` values, which ascend from 0 or above; labels name the units."""

    title: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    series: tuple[Series, ...]


def ticks(top: float, *, about: int = 5) -> tuple[float, ...]:
    """Return round values from 0 to at least ``top`` in about that many steps of 1, 2, 2.5 or 5 times a power of 10."""
    if top <= 0:
        return (0.0, 1.0)
    rough = top / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    count = math.ceil(top / step - 1e-9)
    return tuple(round(index * step, 10) for index in range(count + 1))


def draw_bars(chart: BarChart) -> str:
    """Return the chart as an SVG document."""
    scale = _Scale.over(chart.series)
    parts = [*_frame(chart.title, chart.series), *_y_axis(scale, chart.y_label)]
    slot = _plot_width() / max(len(chart.groups), 1)
    width = min(slot * 0.8 / max(len(chart.series), 1), 64.0)
    for group, name in enumerate(chart.groups):
        centre = _LEFT + slot * (group + 0.5)
        for line, words in enumerate(_lines_of(name, slot)):
            parts.append(_text(centre, _HEIGHT - _BOTTOM + 18 + 15 * line, words, anchor="middle"))
        for index, series in enumerate(chart.series):
            left = centre + width * (index - len(chart.series) / 2)
            parts += _bar(series, group, left, width, scale, _COLOURS[index % len(_COLOURS)])
    return _document(chart.title, _described(chart.groups, chart.series, chart.y_label), parts)


def draw_lines(chart: LineChart) -> str:
    """Return the chart as an SVG document."""
    scale = _Scale.over(chart.series)
    x_ticks = ticks(max(chart.x, default=1.0), about=min(10, max(len(chart.x), 1)))
    parts = [*_frame(chart.title, chart.series), *_y_axis(scale, chart.y_label)]

    def across(value: float) -> float:
        return _LEFT + _plot_width() * value / x_ticks[-1]

    for value in x_ticks:
        parts.append(_text(across(value), _HEIGHT - _BOTTOM + 20, _number(value), anchor="middle"))
    parts.append(_text(_LEFT + _plot_width() / 2, _HEIGHT - 14, chart.x_label, anchor="middle"))
    for index, series in enumerate(chart.series):
        colour = _COLOURS[index % len(_COLOURS)]
        points = [
            (across(x), scale.y(value)) for x, value in zip(chart.x, series.values, strict=True) if value is not None
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    names = tuple(_number(value) for value in chart.x)
    return _document(chart.title, _described(names, chart.series, chart.y_label), parts)


@dataclass(frozen=True)
class _Scale:
    """The vertical axis."""

    ticks: tuple[float, ...]

    @classmethod
    def over(cls, series: Sequence[Series]) -> _Scale:
        values = [value for one in series for value in (*one.values, *one.high) if value is not None]
        return cls(ticks(max(values, default=0.0)))

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / self.ticks[-1]


def _bar(series: Series, group: int, left: float, width: float, scale: _Scale, colour: str) -> Iterator[str]:
    value = series.values[group]
    if value is None:
        return
    top, base = scale.y(value), scale.y(0)
    yield (
        f'<rect x="{left + 1:.1f}" y="{top:.1f}" width="{width - 2:.1f}" height="{base - top:.1f}" fill="{colour}"/>'
    )
    high = series.high[group] if series.high else None
    middle = left + width / 2
    if high is not None and high > value:
        end = scale.y(high)
        yield f'<path d="M{middle:.1f} {top:.1f}V{end:.1f}M{middle - 5:.1f} {end:.1f}h10" stroke="{colour}"/>'
        top = end
    yield _text(middle, top - 5, _short(value, width), anchor="middle", size=11)


def _frame(title: str, series: Sequence[Series]) -> Iterator[str]:
    yield _text(_LEFT - 48, 22, title, size=15, weight="600")
    x = float(_LEFT)
    for index, one in enumerate(series):
        yield f'<rect x="{x:.1f}" y="38" width="11" height="11" fill="{_COLOURS[index % len(_COLOURS)]}"/>'
        yield _text(x + 16, 48, one.name)
        x += 34 + _LETTER * len(one.name)


def _y_axis(scale: _Scale, label: str) -> Iterator[str]:
    for value in scale.ticks:
        y = scale.y(value)
        faint = "" if value == 0 else ' stroke-opacity="0.3"'
        yield f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="{_INK}"{faint}/>'
        yield _text(_LEFT - 8, y + 4, _number(value), anchor="end")
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    yield (
        f'<text transform="translate(16 {middle:.1f}) rotate(-90)" text-anchor="middle" fill="{_INK}">'
        f"{html.escape(label)}</text>"
    )


def _plot_width() -> float:
    return _WIDTH - _LEFT - _RIGHT


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, weight: str = "400") -> str:
    style = f'font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style} fill="{_INK}">{html.escape(text)}</text>'


def _number(value: float) -> str:
    """Return a value with three figures at most, without needless zeros."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _short(value: float, width: float) -> str:
    """Return a value as it fits above a bar of that width, with two or three figures."""
    digits = 3 if width >= 4 * _LETTER else 2
    decimals = max(0, digits - 1 - max(0, math.floor(math.log10(value)))) if value > 0 else 0
    return f"{value:.{decimals}f}"


def _lines_of(name: str, width: float) -> list[str]:
    """Return a label in one line, or in two where it has a place to break and one is too long."""
    if len(name) * _LETTER <= width:
        return [name]
    breaks = [index + 1 for index, letter in enumerate(name) if letter in " -"]
    if not breaks:
        return [name]
    middle = min(breaks, key=lambda index: abs(index - len(name) / 2))
    return [name[:middle].rstrip(), name[middle:]]


def _described(names: Sequence[str], series: Sequence[Series], unit: str) -> str:
    """Return the figures in words, for people who hear the page."""
    said = []
    for one in series:
        pairs = [
            f"{name}: {_number(value)}" for name, value in zip(names, one.values, strict=True) if value is not None
        ]
        said.append(f"{one.name}, {unit}: {', '.join(pairs)}")
    return ". ".join(said)


def _document(title: str, description: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" role="img" font-family="system-ui, sans-serif" font-size="12" fill="none">'
    )
    body = [f"<title>{html.escape(title)}</title>", f"<desc>{html.escape(description)}</desc>", *parts]
    return "\n".join([head, *(f"  {part}" for part in body), "</svg>"]) + "\n"
