"""The photos of a run on its page: small pictures of some, and a line on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from .page import picture, shortened
from .parts import table

MOST_LINES = 1_000
STYLE = """
.wall { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(30%, 8.5rem), 1fr)); gap: .7rem;
  list-style: none; margin: 0 0 1rem; padding: 0; }
.wall .small { aspect-ratio: 4 / 3; display: flex; align-items: center; justify-content: center; overflow: hidden;
  background: var(--card); border: 1px solid var(--line); border-radius: .35rem; }
.wall .out .small { border: 2px solid var(--bad); }
.wall img { width: 100%; height: 100%; object-fit: contain; border-radius: 0; }
.wall .name { font-size: .82rem; line-height: 1.25; margin-top: .25rem; display: block; }
.wall .numbers { font-size: .82rem; }
.wall .out .numbers { color: var(--bad); }
"""


@dataclass(frozen=True, eq=False)
class Photo:
    """An image of the run.

    Args:
        name: relative to the folder.
        cells: what the table says of it: name of the column to text.
        state: in a few words: "1,234 points", "not registered".
        out: it is not part of the result.
        pixels: a small picture, None where it is not shown.
    """

    name: str
    cells: dict[str, str]
    state: str
    out: bool = False
    pixels: NDArray[np.uint8] | None = None


def photo_wall(photos: Sequence[Photo]) -> str:
    """Small pictures of those photos that have one: those outside the result first, then in order."""
    shown = sorted((photo for photo in photos if photo.pixels is not None), key=lambda photo: not photo.out)
    if not shown:
        return '<p class="numbers">The photos were not at hand.</p>'
    cells = "".join(_cell(photo) for photo in shown)
    few = len(shown) < len(photos)
    note = f'<p class="numbers">{len(shown):,} of {len(photos):,} photos.</p>' if few else ""
    return f'<ul class="wall">{cells}</ul>{note}'


def _cell(photo: Photo) -> str:
    assert photo.pixels is not None
    kind = ' class="out"' if photo.out else ""
    return (
        f'<li{kind}><div class="small">{picture(photo.pixels, photo.name, lazy=True, quality=72)}</div>'
        f'<span class="name">{escape(shortened(photo.name))}</span>'
        f'<span class="numbers">{escape(photo.state)}</span></li>'
    )


def photo_table(photos: Sequence[Photo]) -> str:
    """A line a photo, `MOST_LINES` at most: those outside the result first, if not all fit."""
    if not photos:
        return ""
    shown = list(photos)
    note = ""
    if len(shown) > MOST_LINES:
        outside = [photo for photo in shown if photo.out]
        kept = {id(photo) for photo in [*outside, *(photo for photo in shown if not photo.out)][:MOST_LINES]}
        shown = [photo for photo in shown if id(photo) in kept]
        note = f'<p class="numbers">{len(shown):,} of {len(photos):,} photos.</p>'
    columns = list(shown[0].cells)
    rows = (([shortened(photo.name), *(photo.cells[name] for name in columns)], photo.out) for photo in shown)
    lines = table(["photo", *columns], rows, "the photos, a line each")
    return f"<details><summary>All numbers</summary>{lines}{note}</details>"
