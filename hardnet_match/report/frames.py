"""Local affine frames drawn on their image: an ellipse each, and a stroke from its centre the way it is turned."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..frames import laf_scale

# As in pictures of matches: a frame's axes are six sigma long, at three neighbours stay apart.
ELLIPSE_PART = 0.5
# Colours are quantised, so that one call to OpenCV draws all ellipses of a colour.
LEVELS = 32
SHIFT = 4
CORNERS = 40
PLAIN = (255, 214, 10)
USED, UNUSED = (64, 224, 160), (205, 205, 205)
SMALLEST_DETAIL = 1.2


def draw_frames(
    image: NDArray[np.uint8],
    lafs: NDArray[np.float32],
    colours: NDArray[np.uint8] | None = None,
    *,
    orientation: bool = True,
    dim: float = 0.8,
    thickness: int = 1,
) -> NDArray[np.uint8]:
    """Draw frames as ellipses of half their size (three standard deviations of the blob they stand for).

    Args:
        image: uint8, (H, W) or (H, W, 3) RGB, the pixels that the frames refer to.
        lafs: (N, 2, 3) frames in pixels of the image; the first are drawn last, over the others.
        colours: (N, 3) uint8 RGB; all in one if None.
        orientation: a stroke from the centre along the frame's "up", which is how its patch is turned.
        dim: brightness that is left of the image, so that the colours stand out.
        thickness: of the lines, pixels.

    Returns:
        uint8 (H, W, 3) RGB; the image is not touched.

    Raises:
        DataError: the shapes do not fit.
    """
    lafs = np.asarray(lafs, np.float32)
    if lafs.ndim != 3 or lafs.shape[1:] != (2, 3):
        raise DataError(f"frames must be an array (N, 2, 3), got shape {lafs.shape}")
    if colours is None:
        colours = np.tile(np.array(PLAIN, np.uint8), (len(lafs), 1))
    if colours.shape != (len(lafs), 3):
        raise DataError(f"colours must be ({len(lafs)}, 3) as there are {len(lafs)} frames, got {colours.shape}")
    shown = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    canvas: NDArray[np.uint8] = (shown * np.float32(dim)).astype(np.uint8)
    turn = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False, dtype=np.float32)
    circle = np.float32(ELLIPSE_PART) * np.stack([np.cos(turn), np.sin(turn)])
    outlines = np.swapaxes(lafs[:, :, :2] @ circle, 1, 2) + lafs[:, None, :, 2]
    # The patch's up is the frame's negative second axis: y runs down in both.
    tips = lafs[:, :, 2] - np.float32(ELLIPSE_PART) * lafs[:, :, 1]
    strokes = np.stack([lafs[:, :, 2], tips], axis=1)
    groups, first = np.unique(colours, axis=0, return_index=True)
    for group in np.argsort(-first):
        rows = np.flatnonzero((colours == groups[group]).all(axis=1))
        rgb = tuple(int(value) for value in groups[group])
        cv2.polylines(canvas, list(_fixed(outlines[rows])), True, rgb, thickness, cv2.LINE_AA, SHIFT)
        if orientation:
            cv2.polylines(canvas, list(_fixed(strokes[rows])), False, rgb, thickness, cv2.LINE_AA, SHIFT)
    return canvas


def colours_of_scores(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(N, 3) RGB from purple (weakest) to yellow (strongest), by rank: scores of detectors are of very uneven sizes."""
    ranks = np.empty(len(scores), np.int64)
    ranks[np.argsort(scores, kind="stable")] = np.arange(len(scores))
    level = ranks * LEVELS // max(len(scores), 1)
    # the darkest fifth of the map would not be seen on a photo
    ramp = np.linspace(60, 255, LEVELS).round().astype(np.uint8)[:, None]
    palette = cv2.cvtColor(cv2.applyColorMap(ramp, cv2.COLORMAP_PLASMA), cv2.COLOR_BGR2RGB)[:, 0]
    return np.asarray(palette[level], np.uint8)


def colours_of_use(used: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(N, 3) RGB: green for what became part of the result, grey for the rest."""
    return np.where(used[:, None], np.array(USED, np.uint8), np.array(UNUSED, np.uint8))


def drawable(lafs: NDArray[np.float32], rows: NDArray[np.int64], most: int, side: int) -> NDArray[np.int64]:
    """At most `most` of the rows, drawn by chance but the same each time.

    Frames too small to see, and those whose ellipse spans more than a quarter of the image (of longer side `side`) and
    would lie over the others, are left out.
    """
    radius = ELLIPSE_PART * laf_scale(lafs[rows])
    rows = rows[(radius >= SMALLEST_DETAIL) & (radius <= side / 8)]
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))


def _fixed(points: NDArray[np.float32]) -> NDArray[np.int32]:
    # far outside is as good as anywhere outside, and fits OpenCV's integers
    return np.round(points.clip(-1e5, 1e5) * (1 << SHIFT)).astype(np.int32)
