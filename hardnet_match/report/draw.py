"""One picture of the matches between two images: frames as ellipses, inliers as lines that an eye can follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, ImageError

# A frame's axes are six sigma long, for the descriptor wants the surroundings; at three sigma neighbours stay apart.
ELLIPSE_PART = 0.5
# Colours are quantised, so that one call to OpenCV draws all ellipses or lines of a colour.
COLOURS = 24
# OpenCV's fixed point for sub-pixel drawing: four bits after the point.
SHIFT = 4
CAPTION = 34
GAP = 8
BACKGROUND = 24
REJECTED = (150, 150, 150)


def draw_matches(
    image0: NDArray[np.uint8],
    image1: NDArray[np.uint8],
    lafs0: NDArray[np.float32],
    lafs1: NDArray[np.float32],
    pairs: NDArray[Any],
    inliers: NDArray[np.bool_] | None = None,
    *,
    height: int = 720,
    max_lines: int = 120,
    max_ellipses: int = 500,
    caption: str = "",
) -> NDArray[np.uint8]:
    """Draw two images side by side with matched frames as ellipses and matches as lines.

    A match has the same colour at both ends, chosen by where it lies in the first image, so that a wrong one stands
    out. Where there are many, a fair sample of the inliers is drawn. Rejected matches are thin grey lines underneath.

    Args:
        image0, image1: uint8, (H, W) or (H, W, 3) RGB, the pixels that the frames refer to.
        lafs0, lafs1: (N, 2, 3) frames in pixels of these images.
        pairs: (M, 2) rows into lafs0 and lafs1.
        inliers: (M,) bool, which matches survived geometric verification; all if None.
        height: of both images in the picture, in pixels.
        max_lines: how many inliers (and how many rejected matches) get a line at most.
        max_ellipses: how many inliers get their two ellipses at most; all that have a line are among them.
        caption: a line of text under the images (ASCII; other characters show as `?`).

    Returns:
        uint8 (height + caption, W, 3) RGB.

    Raises:
        DataError: a pair points outside the frames, or the shapes do not fit.
    """
    pairs = np.asarray(pairs).reshape(-1, 2)
    inliers = np.ones(len(pairs), dtype=bool) if inliers is None else np.asarray(inliers, dtype=bool)
    if len(inliers) != len(pairs):
        raise DataError(f"inliers must have one entry for each of the {len(pairs)} matches, got {len(inliers)}")
    if len(pairs) and (pairs.min() < 0 or pairs[:, 0].max() >= len(lafs0) or pairs[:, 1].max() >= len(lafs1)):
        raise DataError(f"a match points outside the {len(lafs0)} and {len(lafs1)} frames")
    left, scale0 = _shown(image0, height)
    right, scale1 = _shown(image1, height)
    offset = left.shape[1] + GAP
    canvas: NDArray[np.uint8] = np.full((height, offset + right.shape[1], 3), BACKGROUND, dtype=np.uint8)
    canvas[:, : left.shape[1]] = left
    canvas[:, offset:] = right
    frames0 = _to_canvas(lafs0[pairs[:, 0]], scale0, 0)
    frames1 = _to_canvas(lafs1[pairs[:, 1]], scale1, offset)
    colour = _colour_by_place(frames0[:, :, 2], left.shape[1], height)

    rejected = _spread(np.flatnonzero(~inliers), max_lines)
    _lines(canvas, frames0[rejected], frames1[rejected], REJECTED, 0.25)
    kept = np.flatnonzero(inliers)
    ringed = _spread(kept, max(max_ellipses, max_lines))
    lined = _spread(ringed, max_lines)
    palette = _palette()
    for index in range(COLOURS):
        rows = lined[colour[lined] == index]
        _lines(canvas, frames0[rows], frames1[rows], palette[index], 0.75)
    for index in range(COLOURS):
        rows = ringed[colour[ringed] == index]
        # each within its own image, however far its ellipse reaches
        _ellipses(canvas[:, : left.shape[1]], frames0[rows], palette[index])
        _ellipses(canvas[:, offset:], _moved(frames1[rows], -offset), palette[index])
    return _with_caption(canvas, caption) if caption else canvas


def save_picture(path: str | Path, picture: NDArray[np.uint8]) -> None:
    """Write an RGB or grey picture; the extension chooses the format (JPEG at quality 92).

    Raises:
        ImageError: the folder is missing or not writable, or the extension is unknown.
    """
    path = Path(path)
    pixels = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    try:
        # OpenCV complains on stderr of a JPEG's option for another format.
        options = [cv2.IMWRITE_JPEG_QUALITY, 92] if path.suffix.lower() in (".jpg", ".jpeg") else []
        done, data = cv2.imencode(path.suffix, pixels, options)
        if not done:
            raise ImageError(f"{path}: OpenCV could not encode the picture")
        path.write_bytes(data.tobytes())
    except cv2.error as error:
        raise ImageError(f"{path}: no known image format has the extension {path.suffix!r}") from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be written ({error.strerror or error})") from error


def _shown(image: NDArray[np.uint8], height: int) -> tuple[NDArray[np.uint8], float]:
    """The image at the drawing's height, RGB, a little darker and greyer than life, so that the colours stand out."""
    scale = height / image.shape[0]
    width = max(1, round(image.shape[1] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(image, (width, height), interpolation=method)
    colour = small if small.ndim == 3 else cv2.cvtColor(small, cv2.COLOR_GRAY2RGB)
    grey = cv2.cvtColor(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    shown: NDArray[np.uint8] = cv2.addWeighted(colour, 0.35, grey, 0.40, 0)
    return shown, scale


def _to_canvas(lafs: NDArray[np.float32], scale: float, offset: int) -> NDArray[np.float32]:
    frames = lafs.astype(np.float32) * np.float32(scale)
    # Pixel centres are integers on both sides of the resize, hence the half-pixel terms.
    frames[:, :, 2] += 0.5 * scale - 0.5
    frames[:, 0, 2] += offset
    return frames


def _moved(frames: NDArray[np.float32], across: int) -> NDArray[np.float32]:
    moved = frames.copy()
    moved[:, 0, 2] += across
    return moved


def _palette() -> list[tuple[int, int, int]]:
    hsv = np.zeros((1, COLOURS, 3), dtype=np.uint8)
    hsv[0, :, 0] = np.arange(COLOURS) * 180 // COLOURS
    hsv[0, :, 1] = 200
    hsv[0, :, 2] = 255
    return [(int(r), int(g), int(b)) for r, g, b in cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]]


def _colour_by_place(xy: NDArray[np.float32], width: int, height: int) -> NDArray[np.int64]:
    """Hue turns with the direction from the middle of the first image: neighbours look alike, strangers do not."""
    angle = np.arctan2(xy[:, 1] / height - 0.5, xy[:, 0] / width - 0.5)
    return np.floor((angle / (2 * np.pi) % 1.0) * COLOURS).astype(np.int64) % COLOURS


def _spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of the rows, the same ones each time."""
    if len(rows) <= count:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, count, replace=False))


def _fixed(points: NDArray[np.float32]) -> NDArray[np.int32]:
    return np.round(points * (1 << SHIFT)).astype(np.int32)


def _lines(
    canvas: NDArray[np.uint8],
    frames0: NDArray[np.float32],
    frames1: NDArray[np.float32],
    rgb: tuple[int, int, int],
    opacity: float,
) -> None:
    if not len(frames0):
        return
    layer = canvas.copy()
    ends = _fixed(np.stack([frames0[:, :, 2], frames1[:, :, 2]], axis=1))
    cv2.polylines(layer, list(ends), False, rgb, 1, cv2.LINE_AA, SHIFT)
    cv2.addWeighted(layer, opacity, canvas, 1 - opacity, 0, dst=canvas)


def _ellipses(canvas: NDArray[np.uint8], frames: NDArray[np.float32], rgb: tuple[int, int, int]) -> None:
    if not len(frames):
        return
    turn = np.linspace(0, 2 * np.pi, 33, dtype=np.float32)[:-1]
    circle = np.float32(ELLIPSE_PART) * np.stack([np.cos(turn), np.sin(turn)])
    outline = np.swapaxes(frames[:, :, :2] @ circle, 1, 2) + frames[:, None, :, 2]
    cv2.polylines(canvas, list(_fixed(outline)), True, rgb, 1, cv2.LINE_AA, SHIFT)


def _with_caption(canvas: NDArray[np.uint8], caption: str) -> NDArray[np.uint8]:
    bar: NDArray[np.uint8] = np.full((CAPTION, canvas.shape[1], 3), BACKGROUND, dtype=np.uint8)
    text = caption.encode("ascii", "replace").decode()
    cv2.putText(bar, text, (10, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (225, 225, 225), 1, cv2.LINE_AA)
    return np.concatenate([canvas, bar])
