"""Histograms and bars of times: SVG and HTML without a script, colours of the page, readable at any width."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 400, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 38
MOST_BINS = 24
TAIL = 0.985

STYLE = """
.bars { width: 100%; max-width: 38rem; height: auto; display: block; font-size: 12px; }
.bars text { fill: var(--faint); }
.bars .grid { stroke: var(--line); stroke-width: 1; }
.bars rect { fill: var(--accent); }
.bars rect.more { fill-opacity: .45; }
.bars .mark { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 3 3; }
.bars text.mark { fill: var(--ink); stroke: none; }
.times { display: grid; grid-template-columns: max-content 1fr max-content; gap: .35rem .8rem; align-items: center;
  font-variant-numeric: tabular-nums; }
.times .bar { height: .7rem; border-radius: .2rem; background: var(--accent); min-width: 2px; }
.times .name { color: var(--faint); }
"""


def histogram(values: NDArray[Any], *, title: str, x_name: str, whole: bool = False, mark: str = "mean") -> str:
    """How often which value occurs; the few largest are counted in a last, paler bar.

    Args:
        values: (N,) numbers, not negative.
        title: what it shows, for those who cannot see it; plain text.
        x_name: below the axis, plain text.
        whole: they are whole numbers, each with a bar of its own as far as there is room.
        mark: what the dashed line at the mean is called.

    Returns:
        an `svg` element; a sentence where there is nothing to count.
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return '<p class="numbers">There is nothing to count.</p>'
    edges, counts, more = _binned(values, whole)
    bars = [*counts.tolist(), *([more] if more else [])]
    step = _round_step(max(bars))
    top: float = step * max(1, math.ceil(max(bars) / step))
    wide = (WIDTH - LEFT - RIGHT) / len(bars)

    def down(value: float) -> float:
        return float(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top)

    parts = []
    for level in range(round(top / step) + 1):
        height = down(level * step)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{_short(level * step)}</text>'
        )
    for place, count in enumerate(bars):
        tail = place == len(counts)
        label = _label(edges, place, whole, tail)
        parts.append(
            f'<rect x="{LEFT + place * wide + 0.5:.1f}" y="{down(count):.1f}" width="{max(wide - 1, 1):.1f}" '
            f'height="{HEIGHT - BOTTOM - down(count):.1f}"{" class=" + chr(34) + "more" + chr(34) if tail else ""}>'
            f"<title>{label}: {count:,}</title></rect>"
        )
    parts += _ticks(edges, len(counts), wide, whole, bool(more))
    mean = float(values.mean())
    at = LEFT + wide * min(_place(edges, mean, whole), len(bars))
    anchor = "end" if at > WIDTH * 0.7 else "start"
    parts.append(
        f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/><text class="mark" '
        f'x="{at + (-5 if anchor == "end" else 5):.1f}" y="{TOP + 9}" text-anchor="{anchor}">{escape(mark)} '
        f"{mean:.3g}</text>"
    )
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>')
    told = f"{title}: mean {mean:.3g}, median {float(np.median(values)):.3g}, largest {float(values.max()):.3g}"
    return (
        f'<svg class="bars" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(told, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )


def time_bars(seconds: Mapping[str, float], reused: Sequence[str] = ()) -> str:
    """Times of stages as bars; those of an earlier run that were reused are told so."""
    longest = max([*seconds.values(), 1e-9])
    rows = []
    for name, value in seconds.items():
        note = " (reused)" if name in reused else ""
        rows.append(
            f'<span class="name">{escape(name)}</span><span><span class="bar" style="display:block;width:'
            f'{100 * value / longest:.1f}%"></span></span><span>{in_words(value)}{note}</span>'
        )
    for name in reused:
        if name not in seconds:
            rows.append(f'<span class="name">{escape(name)}</span><span></span><span>reused</span>')
    return f'<div class="times">{"".join(rows)}</div>'


def in_words(seconds: float) -> str:
    """A time as a reader takes it in."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _binned(values: NDArray[np.float64], whole: bool) -> tuple[NDArray[Any], NDArray[np.int64], int]:
    """Edges of the bins, counts, and how many lie beyond the last edge."""
    low, high = float(values.min()), float(np.quantile(values, TAIL))
    edges: NDArray[Any]
    if whole:
        first = math.floor(low)
        last = min(max(math.ceil(high), first), first + MOST_BINS - 1)
        if values.max() <= first + MOST_BINS - 1:
            last = int(values.max())
        edges = np.arange(first, last + 2, dtype=np.float64)
        counts = np.bincount(values[values <= last].astype(np.int64) - first, minlength=last - first + 1)
        return edges, counts.astype(np.int64), int((values > last).sum())
    step = _round_step(max(high, 1e-9), MOST_BINS - 4)
    edges = np.arange(0, math.ceil(high / step - 1e-9) + 1) * step if high > 1e-9 else np.arange(2.0)
    counts = np.histogram(values[values <= edges[-1]], edges)[0]
    return edges, counts.astype(np.int64), int((values > edges[-1]).sum())


def _place(edges: NDArray[np.float64], value: float, whole: bool) -> float:
    """Where a value lies, in bars from the left; a whole number stands in the middle of its bar."""
    step = float(edges[1] - edges[0])
    return (value - float(edges[0])) / step + (0.5 if whole else 0.0)


def _label(edges: NDArray[np.float64], place: int, whole: bool, tail: bool) -> str:
    if tail:
        return f"{edges[-1]:g} and more" if whole else f"over {edges[-1]:g}"
    return f"{edges[place]:g}" if whole else f"{edges[place]:g} to {edges[place + 1]:g}"


def _ticks(edges: NDArray[np.float64], bins: int, wide: float, whole: bool, more: bool) -> list[str]:
    every = max(1, math.ceil(bins / 8))
    parts = []
    for place in range(0, bins + (0 if whole else 1), every):
        x = LEFT + wide * (place + (0.5 if whole else 0.0))
        if more and whole and place + every > bins:
            break
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{edges[place]:g}</text>')
    if more:
        x = LEFT + wide * (bins + 0.5)
        text = f"{edges[-1]:g}+" if whole else "more"
        if whole or bins % every:
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{text}</text>')
    return parts


def _round_step(high: float, most: int = 5) -> float:
    """A round number of which `most` reach up to `high`."""
    size = 10.0 ** math.floor(math.log10(max(high, 1e-12) / most))
    return float(next(size * factor for factor in (1, 2, 2.5, 5, 10, 20) if high / (size * factor) <= most))


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e4 else f"{value:g}"
