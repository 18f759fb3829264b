"""OpenCV's SIFT of patches that are cut already, the rival every patch benchmark has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

_COLUMNS = 16
_AT_ONCE = 1024


def opencv_sift(patches: NDArray[np.uint8], *, root: bool = False) -> NDArray[np.float32]:
    """SIFT of whole patches: upright, the 4 x 4 cells spread over the patch (a blob of side / 12 pixels).

    Patches are laid out as one picture with their edges repeated around them, so that OpenCV describes many at a time.

    Args:
        patches: (N, S, S) uint8, S of 8 or more.
        root: the square root of the L1-normalised descriptor.

    Returns:
        (N, 128) float32.

    Raises:
        DataError: the patches have another shape.
    """
    if patches.ndim != 3 or patches.shape[1] != patches.shape[2] or patches.shape[1] < 8:
        raise DataError(f"patches are (N, S, S) with S of 8 or more, got {patches.shape}")
    rows = [_block(patches[start : start + _AT_ONCE]) for start in range(0, len(patches), _AT_ONCE)]
    found = np.concatenate(rows) if rows else np.zeros((0, 128), np.float32)
    if root:
        found = np.sqrt(found / np.maximum(found.sum(axis=1, keepdims=True), 1e-6))
    return np.asarray(found, np.float32)


def _block(patches: NDArray[np.uint8]) -> NDArray[np.float32]:
    import cv2

    count, side = patches.shape[:2]
    high = -(-count // _COLUMNS)
    margin = side // 2
    cell = side + 2 * margin
    padded = np.zeros((high * _COLUMNS, cell, cell), np.uint8)
    padded[:count] = np.pad(patches, ((0, 0), (margin, margin), (margin, margin)), mode="edge")
    canvas = padded.reshape(high, _COLUMNS, cell, cell).swapaxes(1, 2).reshape(high * cell, _COLUMNS * cell)
    centre = margin + (side - 1) / 2
    y, x = np.divmod(np.arange(count), _COLUMNS)
    places = np.stack([x * cell + centre, y * cell + centre], axis=1).tolist()
    points = [cv2.KeyPoint(float(right), float(down), side / 6, 0.0) for right, down in places]
    kept, described = cv2.SIFT.create().compute(np.ascontiguousarray(canvas), points)
    if len(kept) != count:
        raise DataError(f"OpenCV described {len(kept)} of {count} patches")
    return np.asarray(described, np.float32)
