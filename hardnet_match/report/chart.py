"""Line charts as SVG inside a page: no script, colours of the page, readable at any width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 400, 220
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 12, 36

STYLE = """
.chart { width: 100%; height: auto; max-width: 34rem; display: block; font-size: 13px; }
.chart text { fill: var(--faint); }
.chart .grid { stroke: var(--line); stroke-width: 1; }
.chart .line { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round; }
.chart .level { stroke: var(--faint); stroke-width: 1.5; stroke-dasharray: 5 4; }
.chart .dot { fill: var(--accent); }
.chart .chosen { fill: none; stroke: var(--accent); stroke-width: 2; }
"""


def line_chart(
    x: Sequence[float],
    y: Sequence[float],
    *,
    title: str,
    x_name: str,
    level: tuple[float, str] | None = None,
    chosen: float | None = None,
    dots: bool = False,
) -> str:
    """A curve with its axes.

    Args:
        x, y: the points, x rising.
        title: what it shows, for those who cannot see it; plain text.
        x_name: below the axis, plain text.
        level: a dashed line at this height, and what it is.
        chosen: the x of the point to ring.
        dots: mark the points.

    Returns:
        an `svg` element; a sentence where there is nothing to draw.
    """
    points = [(float(a), float(b)) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if not points:
        return '<p class="numbers">Nothing was reported.</p>'
    heights = [b for _, b in points] + ([level[0]] if level else [])
    low, high, step = _range(min(heights), max(heights))
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1e-9)

    def across(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - first) / (last - first)

    def down(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    parts = []
    for number in range(round((high - low) / step) + 1):
        value = low + number * step
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down(value):.1f}" y2="{down(value):.1f}"/>'
            f'<text x="{LEFT - 6}" y="{down(value) + 4:.1f}" text-anchor="end">{_number(value, step)}</text>'
        )
    for value, anchor in ((first, "start"), (last, "end")):
        parts.append(
            f'<text x="{across(value):.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="{anchor}">{value:g}</text>'
        )
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>')
    if level is not None:
        height = down(level[0])
        parts.append(
            f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>'
            f'<text x="{WIDTH - RIGHT}" y="{height - 5:.1f}" text-anchor="end">{escape(level[1])}</text>'
        )
    places = [(across(a), down(b)) for a, b in points]
    parts.append(f'<polyline class="line" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in places)}"/>')
    if dots or len(points) == 1:
        parts += [f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in places]
    for (a, b), (value, _) in zip(places, points, strict=True):
        if value == chosen:
            parts.append(f'<circle class="chosen" cx="{a:.1f}" cy="{b:.1f}" r="7"/>')
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _range(low: float, high: float) -> tuple[float, float, float]:
    """Round numbers around some values, and the step between the lines: four to eight of them."""
    spread = high - low if high > low else max(abs(high), 1.0) * 0.1
    size = 10 ** math.floor(math.log10(spread / 4))
    step = next(size * factor for factor in (1, 2, 5, 10) if spread / (size * factor) <= 6)
    return step * math.floor(low / step), step * max(math.ceil(high / step), math.floor(low / step) + 1), step


def _number(value: float, step: float) -> str:
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
