"""The match matrix of a page: which image matches which, and how much."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from .page import data, packed, script, shortened

MOST_CELLS = 200
MOST_LABELS = 30
INK = (48, 128, 212)  # seen on white and on black
STYLE = """
.matrix { display: grid; grid-template-columns: minmax(0, 34rem) minmax(14rem, 1fr); gap: .5rem 1.5rem; }
.matrix .field { display: flex; gap: .5rem; align-items: stretch; }
.matrix ol { list-style: none; margin: 0; padding: 0; display: flex; flex-direction: column; max-width: 9rem; }
.matrix li { flex: 1 1 0; min-height: 0; display: flex; align-items: center; justify-content: flex-end; }
.matrix li span { min-width: 0; font-size: .75rem; line-height: 1.1; color: var(--faint); white-space: nowrap;
  overflow: hidden; text-overflow: ellipsis; direction: rtl; }
.matrix .cells { position: relative; flex: 1 1 0; min-width: 0; aspect-ratio: 1; border: 1px solid var(--line);
  cursor: crosshair; background: var(--card); touch-action: pan-y; }
.matrix .cells img { width: 100%; height: 100%; border-radius: 0; image-rendering: pixelated; }
.matrix .mark { position: absolute; outline: 2px solid var(--ink); pointer-events: none; min-width: 3px;
  min-height: 3px; }
.matrix .told { margin: 0; min-height: 3em; }
.matrix .scale { display: flex; align-items: center; gap: .5rem; margin: .2rem 0 .8rem; }
.matrix .scale span { flex: 0 1 10rem; height: .7rem; border: 1px solid var(--line);
  background: linear-gradient(to right, transparent, rgb(48 128 212)); }
@media (max-width: 46rem) { .matrix { grid-template-columns: minmax(0, 1fr); } .matrix ol { display: none; } }
"""


def match_matrix(names: Sequence[str], pairs: NDArray[Any], counts: NDArray[Any], unit: str) -> str:
    """The matrix as HTML; the page has to run `matrix_script()`.

    Where there are more than `MOST_CELLS` images, neighbours share a cell, which has the mean of their pairs' counts.
    It takes up 0.2 MB at most.

    Args:
        names: of N images, in the order of the rows.
        pairs: (P, 2) rows into `names`. counts: (P,), what of; `unit` names it in the plural.
    """
    whole = len(names)
    block = -(-whole // MOST_CELLS)
    side = -(-whole // block)
    sums = np.zeros((side, side))
    for first, second in ((0, 1), (1, 0)):
        cell = pairs[:, first] // block, pairs[:, second] // block
        np.add.at(sums, cell, counts)
    sizes = np.bincount(np.arange(whole) // block, minlength=side)
    places = np.outer(sizes, sizes) - np.diag(sizes)
    means = np.where(places > 0, sums / np.maximum(places, 1), 0)
    most = max(float(means.max()), 1.0)
    level = np.sqrt(means / most)
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[..., :3] = INK[::-1]
    pixels[..., 3] = np.round(np.where(means > 0, 25 + 230 * level, 0))
    if block == 1:
        pixels[np.arange(side), np.arange(side)] = (128, 128, 128, 60)
    done, coded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise ImageError("OpenCV could not encode the match matrix")
    image = base64.b64encode(coded.tobytes()).decode("ascii")
    matched = int((np.asarray(counts) > 0).sum())
    label = f"Match matrix of {whole} images: {matched} of {whole * (whole - 1) // 2} pairs have {unit}"
    told = {
        "side": side,
        "block": block,
        "unit": unit,
        "labels": [_range(names, first, block) for first in range(0, whole, block)],
        "counts": packed(np.minimum(np.round(means), 65535).astype(np.uint16)),
    }
    labels = ""
    if whole <= MOST_LABELS:
        lines = "".join(f"<li><span><bdi>{escape(shortened(name))}</bdi></span></li>" for name in names)
        labels = f"<ol aria-hidden=true>{lines}</ol>"
    shared = f" A cell is {block} by {block} images and shows their mean." if block > 1 else ""
    return (
        f'<div class="matrix" data-matrix><div class="field">{labels}<div class="cells" tabindex="0" '
        f'role="application" aria-label="{escape(label, quote=True)}; arrow keys go through it"><img alt="" '
        f'width="{side}" height="{side}" src="data:image/png;base64,{image}"><div class="mark" hidden></div></div>'
        f"</div><div>"
        f'<p class="numbers">{escape(label)}.{shared} Rows and columns are in the order of the names.</p>'
        f'<p class="scale numbers">0<span></span>{most:,.0f} {escape(unit)}</p>'
        f'<p class="told" data-told aria-live="polite">Point at a cell, or go there with the arrow keys.</p></div>'
        f"{data(told)}</div>"
    )


def _range(names: Sequence[str], first: int, block: int) -> str:
    last = min(first + block, len(names)) - 1
    return shortened(names[first]) if last == first else f"{shortened(names[first])} … {shortened(names[last])}"


def matrix_script() -> str:
    """What makes the matrix tell its numbers."""
    return script("matrix.js")
