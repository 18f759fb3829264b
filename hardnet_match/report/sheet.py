"""A contact sheet of a patch set: what a network learns from, a track beside a track."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, OptionError

BACKGROUND = (24, 24, 24)
INK, FAINT = (225, 225, 225), (140, 140, 140)
REGION = (120, 205, 255)
GAP, ROW_GAP, EDGE = 3, 9, 18
HEAD, FOOT = 40, 30
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_sheet(
    patches: NDArray[np.uint8],
    track: NDArray[np.int64],
    scene: NDArray[np.int32],
    *,
    margin: float = 1.0,
    title: str = "",
    rows: int = 12,
    views: int = 6,
    columns: int = 2,
    cell: int = 72,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Draw tracks drawn at random, their patches side by side; the measurement region is outlined.

    Where tracks have several patches, each group of cells is one track; where all have one, each cell is another.

    Args:
        patches: (M, S, S) uint8, perhaps mapped; sorted by track. Only those that are shown are read.
        track, scene: (M,) as in a patch set; scenes get equal shares of the sheet.
        margin: side of a patch over the side of its measurement region.
        title: a line above (ASCII; other characters show as `?`).
        rows, columns: how many tracks from top to bottom, and side by side.
        views: patches of a track at most, evenly spread over it.
        cell: side of a patch on the sheet, pixels.
        seed: of the draw.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        OptionError: a size that cannot work.
        DataError: there is no patch.
    """
    if min(rows, columns, views) < 1 or cell < 16:
        raise OptionError("a sheet needs at least one row, column and view, and cells of 16 pixels")
    if not len(track):
        raise DataError("there is no patch to show")
    starts = np.flatnonzero(np.r_[True, np.diff(track) > 0])
    counts = np.diff(np.r_[starts, len(track)])
    single = bool((counts == 1).all())
    if single:
        columns, views = columns * views, 1
    views = int(min(views, counts.max()))
    usable = np.flatnonzero(counts > 1) if not single else np.arange(len(starts))
    chosen = _shared_out(scene[starts[usable]], rows * columns, np.random.default_rng(seed))
    chosen = usable[chosen]
    rows = -(-len(chosen) // columns)
    group = views * (cell + GAP) - GAP
    across = 2 * GAP if single else 3 * ROW_GAP
    gap = 2 * GAP if single else ROW_GAP
    width = 2 * EDGE + columns * group + (columns - 1) * across
    height = HEAD + rows * (cell + gap) - gap + FOOT + EDGE
    sheet: NDArray[np.uint8] = np.full((height, width, 3), BACKGROUND, np.uint8)
    for number, index in enumerate(chosen):
        top = HEAD + (number // columns) * (cell + gap)
        left = EDGE + (number % columns) * (group + across)
        shown = np.unique(np.linspace(0, counts[index] - 1, min(views, counts[index])).round().astype(int))
        for place, row in enumerate(starts[index] + shown):
            x = left + place * (cell + GAP)
            sheet[top : top + cell, x : x + cell] = _cell(patches[row], cell, margin)
    _text(sheet, title, (EDGE, 26), 0.5, INK)
    below = f"{len(starts):,} tracks, {len(track):,} patches, {len(track) / len(starts):.1f} a track"
    region = "" if margin == 1 else "   blue corners: the region a network is shown"
    _text(sheet, below + region, (EDGE, height - EDGE), 0.42, FAINT)
    return sheet


def _shared_out(scene: NDArray[np.int32], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """At most `count` rows, as evenly over the scenes as they allow, grouped by scene."""
    order = rng.permutation(len(scene))
    # the k-th row drawn of every scene comes before the (k + 1)-th of any
    by_scene = order[np.argsort(scene[order], kind="stable")]
    starts = np.flatnonzero(np.r_[True, np.diff(scene[by_scene]) > 0])
    rank = np.arange(len(scene)) - np.repeat(starts, np.diff(np.r_[starts, len(scene)]))
    chosen = by_scene[np.argsort(rank, kind="stable")[:count]]
    return np.asarray(chosen[np.argsort(scene[chosen], kind="stable")])


def _cell(patch: NDArray[np.uint8], cell: int, margin: float) -> NDArray[np.uint8]:
    method = cv2.INTER_AREA if patch.shape[0] > cell else cv2.INTER_CUBIC
    out = cv2.cvtColor(cv2.resize(np.ascontiguousarray(patch), (cell, cell), interpolation=method), cv2.COLOR_GRAY2RGB)
    if margin > 1:
        low = round(cell * (1 - 1 / margin) / 2)
        high, arm = cell - 1 - low, max(cell // 12, 3)
        for x, to_x in ((low, low + arm), (high, high - arm)):
            for y, to_y in ((low, low + arm), (high, high - arm)):
                cv2.line(out, (x, y), (to_x, y), REGION, 1)
                cv2.line(out, (x, y), (x, to_y), REGION, 1)
    return np.asarray(out, np.uint8)


def _text(sheet: NDArray[np.uint8], text: str, at: tuple[int, int], size: float, rgb: tuple[int, int, int]) -> None:
    plain = text.encode("ascii", "replace").decode()
    room = sheet.shape[1] - 2 * EDGE
    wide = cv2.getTextSize(plain, FONT, size, 1)[0][0]
    cv2.putText(sheet, plain, at, FONT, size * min(1.0, room / max(wide, 1)), rgb, 1, cv2.LINE_AA)
