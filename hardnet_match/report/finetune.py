"""The page of a fine-tuning: before and after on what was held out, the run's curves, and patches to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .chart import STYLE as CHART_STYLE
from .chart import line_chart
from .page import facts, page, picture

STYLE = (
    CHART_STYLE
    + """
.verdict { border-left: .3rem solid var(--accent); padding: .5rem .9rem; margin: 0 0 1rem; }
.verdict.worse { border-left-color: #c2410c; }
.wide { overflow-x: auto; margin-bottom: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { color: var(--faint); font-weight: normal; }
.up { color: #15803d; } .down { color: #c2410c; }
@media (prefers-color-scheme: dark) { .up { color: #4ade80; } .down { color: #fb923c; } }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
.strips { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(47%, 14rem), 1fr)); gap: .75rem; }
.strip { display: flex; gap: .3rem; }
.strip img { flex: 1 1 0; min-width: 0; }
@media (max-width: 30rem) { table { font-size: .85rem; } th, td { padding-right: .4rem; } }
figure { margin: 0 0 1rem; } .strips figure { margin: 0; }
figcaption { color: var(--faint); font-size: .9rem; margin-top: .3rem; }
"""
)
CELL = 72
PATCHES = ("held-out photo", "other photo", "taken in its place")


@dataclass(frozen=True)
class Row:
    """A figure before and after.

    Args:
        name: plain text.
        before, after: the values.
        share: they are shares, shown in per cent.
        lower: less is better; None where neither is.
        error: standard error of the change over the pairs, in the same unit, or None.
    """

    name: str
    before: float
    after: float
    share: bool = True
    lower: bool | None = False
    error: float | None = None


@dataclass(frozen=True, eq=False)
class Strip:
    """Patches of one point: as the held-out photo shows it, the right one of the other photo, and the one taken."""

    patches: Sequence[NDArray[np.uint8]]
    text: str


@dataclass(frozen=True, eq=False)
class FinetunePage:
    """What the page shows.

    Args:
        title: of the page. verdict: a sentence or two. improved: whether it is good news.
        rows: the figures on the held-out part.
        pairs: a line a pair: names of the two photos, points, then (before, after) of average precision and of correct
            matches.
        curve: (step, loss). choices: (step, average precision on the choosing points); `chosen` the step taken, `start`
            their value at the start.
        about: facts, name to value. how: how it was measured, paragraphs of plain text.
        pictures: title and pixels of wide pictures. gained, lost: patches of held-out points.
        sheet: picture of what was learned from, or None.
    """

    title: str
    verdict: str
    improved: bool
    rows: Sequence[Row]
    pairs: Sequence[tuple[str, str, int, tuple[float, float], tuple[int, int]]]
    curve: Sequence[tuple[float, float]]
    choices: Sequence[tuple[float, float]]
    chosen: float | None
    start: float
    about: Mapping[str, str]
    how: Sequence[str]
    pictures: Sequence[tuple[str, NDArray[np.uint8]]] = ()
    gained: Sequence[Strip] = ()
    lost: Sequence[Strip] = ()
    sheet: NDArray[np.uint8] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


def finetune_page(shown: FinetunePage) -> str:
    """The page as HTML."""
    parts = [
        f"<h1>{escape(shown.title)}</h1>",
        f'<p class="card verdict{"" if shown.improved else " worse"}">{escape(shown.verdict.replace("->", "→"))}</p>',
        "<h2>Held-out part, before and after</h2>",
        _figures(shown.rows),
        *(f'<p class="numbers">{escape(text)}</p>' for text in shown.how),
        "<h2>The run</h2>",
        _curves(shown),
        facts(shown.about),
        "<h2>Pairs of photos</h2>",
        _pairs(shown.pairs),
    ]
    for title, pixels in shown.pictures:
        parts.append(f"<figure>{picture(pixels, title, lazy=True)}<figcaption>{escape(title)}</figcaption></figure>")
    for title, strips, count in (
        ("Found after, not before", shown.gained, shown.counts.get("gained", 0)),
        ("Found before, not after", shown.lost, shown.counts.get("lost", 0)),
    ):
        parts.append(f"<h2>{title}: {count} held-out patches</h2>")
        parts.append(_strips(strips))
    if shown.sheet is not None:
        parts.append("<h2>What was learned from</h2>")
        parts.append(picture(shown.sheet, "patches of points drawn at random, a point a group", lazy=True))
    return page(shown.title, "\n".join(parts), STYLE)


def _shown(row: Row, value: float) -> str:
    if not row.share:
        return f"{value:,.0f}"
    return f"{100 * value:.3f} %" if abs(value) < 0.02 else f"{100 * value:.2f} %"


def _change(row: Row) -> str:
    change = row.after - row.before
    digits = 3 if row.share and max(abs(row.before), abs(row.after)) < 0.02 else 2
    text = f"{100 * change:+.{digits}f}" if row.share else f"{change:+,.0f}"
    if row.error is not None:
        text += f" ± {100 * row.error:.{digits}f}" if row.share else f" ± {row.error:.0f}"
    if row.lower is None or not change:
        return escape(text)
    return f'<span class="{"up" if (change < 0) == row.lower else "down"}">{escape(text)}</span>'


def _figures(rows: Sequence[Row]) -> str:
    lines = [
        f"<tr><td>{escape(row.name)}</td><td>{_shown(row, row.before)}</td><td>{_shown(row, row.after)}</td>"
        f"<td>{_change(row)}</td></tr>"
        for row in rows
    ]
    head = "<tr><th></th><th>before</th><th>after</th><th>change</th></tr>"
    return f'<div class="wide"><table>{head}{"".join(lines)}</table></div>'


def _curves(shown: FinetunePage) -> str:
    loss = line_chart(
        [step for step, _ in shown.curve], [value for _, value in shown.curve], title="training loss", x_name="step"
    )
    choice = line_chart(
        [step for step, _ in shown.choices],
        [100 * value for _, value in shown.choices],
        title="average precision on the choosing points, per cent",
        x_name="step",
        level=(100 * shown.start, "start"),
        chosen=shown.chosen,
        dots=True,
    )
    return (
        f'<div class="two"><figure>{loss}<figcaption>Loss on the patches learned from</figcaption></figure>'
        f"<figure>{choice}<figcaption>Average precision, %, on the points the weights were chosen by; ringed: taken"
        "</figcaption></figure></div>"
    )


def _pairs(pairs: Sequence[tuple[str, str, int, tuple[float, float], tuple[int, int]]]) -> str:
    lines = []
    for held, other, points, precision, correct in pairs:
        first = _change(Row("", *precision))
        second = _change(Row("", *correct, share=False))
        lines.append(
            f"<tr><td>{escape(held)}</td><td>{escape(other)}</td><td>{points}</td>"
            f"<td>{100 * precision[0]:.2f}</td><td>{100 * precision[1]:.2f}</td><td>{first}</td>"
            f"<td>{correct[0]}</td><td>{correct[1]}</td><td>{second}</td></tr>"
        )
    head = (
        "<tr><th>held out</th><th>other photo</th><th>points</th><th>AP before</th><th>after</th><th></th>"
        "<th>correct before</th><th>after</th><th></th></tr>"
    )
    return f'<div class="wide"><table>{head}{"".join(lines)}</table></div>'


def _strips(strips: Sequence[Strip]) -> str:
    if not strips:
        return '<p class="numbers">None.</p>'
    cells = []
    for strip in strips:
        shown = "".join(
            picture(_enlarged(patch), f"{what}, {strip.text}", lazy=True)
            for patch, what in zip(strip.patches, PATCHES, strict=True)
        )
        caption = f"<figcaption>{escape(strip.text)}</figcaption>"
        cells.append(f'<figure class="card"><div class="strip">{shown}</div>{caption}</figure>')
    return f'<p class="numbers">{" | ".join(PATCHES)}</p><div class="strips">{"".join(cells)}</div>'


def _enlarged(patch: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A patch at the page's size, its contrast stretched: a network does not see contrast either."""
    low, high = (float(value) for value in np.percentile(patch, [1, 99]))
    stretched = np.clip((patch.astype(np.float32) - low) * (255 / max(high - low, 8.0)), 0, 255).astype(np.uint8)
    large: Any = cv2.resize(np.ascontiguousarray(stretched), (CELL, CELL), interpolation=cv2.INTER_CUBIC)
    return np.asarray(large, dtype=np.uint8)
