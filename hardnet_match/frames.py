"""Local affine frames (LAFs) and every conversion of them; numpy only.

A LAF is a (2, 3) matrix [A | c] in pixels, the centre of the top-left pixel at (0, 0): it maps the unit square
[-1, 1]^2 of a patch into the image, x = A u + c. The sense of angles is kornia's: `laf_orientation` is positive
counter-clockwise as the image is looked at (y down), so that an upright frame turned by t is
A = s [[cos t, sin t], [-sin t, cos t]].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import DataError

if TYPE_CHECKING:
    import cv2

MR_SIZE = 6.0
"""Length of a frame's axes in standard deviations of the blob it stands for: the measurement region is 12 sigma
wide."""

_COLMAP_ORIGIN = 0.5
"""COLMAP puts (0, 0) at the corner of the top-left pixel, everybody else here at its centre."""

Lafs = NDArray[np.float32]


def as_lafs(lafs: ArrayLike) -> Lafs:
    """(N, 2, 3) float32 array of finite frames, or `DataError`."""
    array = np.asarray(lafs, dtype=np.float32)
    if array.ndim != 3 or array.shape[1:] != (2, 3):
        raise DataError(f"frames must be an array (N, 2, 3), got shape {array.shape}")
    if not np.isfinite(array).all():
        raise DataError("frames hold NaN or infinity")
    return array


def make_lafs(xy: ArrayLike, scale: ArrayLike, angle_degrees: ArrayLike = 0.0) -> Lafs:
    """Frames from centres (N, 2), axis lengths in pixels and orientations in degrees (each (N,) or one number)."""
    centres = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
    turn = np.deg2rad(np.broadcast_to(np.asarray(angle_degrees, dtype=np.float64), len(centres)))
    size = np.broadcast_to(np.asarray(scale, dtype=np.float64), len(centres))
    cos, sin = size * np.cos(turn), size * np.sin(turn)
    rows = np.stack([cos, sin, centres[:, 0], -sin, cos, centres[:, 1]], axis=1)
    return rows.reshape(-1, 2, 3).astype(np.float32)


def laf_scale(lafs: ArrayLike) -> NDArray[np.float32]:
    """sqrt|det A| in pixels, (N,)."""
    a = as_lafs(lafs)[:, :, :2].astype(np.float64)
    return np.sqrt(np.abs(a[:, 0, 0] * a[:, 1, 1] - a[:, 0, 1] * a[:, 1, 0])).astype(np.float32)


def laf_orientation(lafs: ArrayLike) -> NDArray[np.float32]:
    """Orientation in degrees within (-180, 180], (N,)."""
    a = as_lafs(lafs)
    return np.rad2deg(np.arctan2(a[:, 0, 1].astype(np.float64), a[:, 0, 0])).astype(np.float32)


def make_upright(lafs: ArrayLike) -> Lafs:
    """The same ellipses with A lower triangular and a positive diagonal ("up is up"): orientation zero."""
    array = as_lafs(lafs)
    return _with_centres(_lower_triangular(_covariance(array)), array[:, :, 2])


def scale_laf(lafs: ArrayLike, factor: float) -> Lafs:
    """The same frames with axes `factor` times as long."""
    array = as_lafs(lafs).copy()
    array[:, :, :2] *= factor
    return array


# OpenCV ---------------------------------------------------------------------------------------------------------------


def from_opencv(keypoints: Iterable[cv2.KeyPoint], mr_size: float = MR_SIZE) -> Lafs:
    """Frames of OpenCV keypoints: `size` is the diameter 2 sigma, `angle` is clockwise, -1 (none) counts as upright."""
    rows = np.array([(*k.pt, k.size, k.angle) for k in keypoints], dtype=np.float64).reshape(-1, 4)
    angle = np.where(rows[:, 3] < 0, 0.0, rows[:, 3])
    return make_lafs(rows[:, :2], rows[:, 2] / 2 * mr_size, -angle)


def to_opencv(lafs: ArrayLike, scores: ArrayLike | None = None, mr_size: float = MR_SIZE) -> list[cv2.KeyPoint]:
    """OpenCV keypoints; the affine shape cannot be kept, so `size` is 2 sqrt|det A| / mr_size."""
    import cv2

    array = as_lafs(lafs)
    size = 2 * laf_scale(array) / mr_size
    angle = np.mod(-laf_orientation(array).astype(np.float64), 360.0)
    response = np.zeros(len(array)) if scores is None else np.asarray(scores, dtype=np.float64)
    columns = zip(array[:, 0, 2], array[:, 1, 2], size, angle, response, strict=True)
    return [cv2.KeyPoint(float(x), float(y), float(s), float(a), float(r)) for x, y, s, a, r in columns]


# COLMAP ---------------------------------------------------------------------------------------------------------------


def to_colmap(lafs: ArrayLike, mr_size: float = MR_SIZE) -> NDArray[np.float32]:
    """COLMAP keypoint rows x y a11 a12 a21 a22, (N, 6): A in standard deviations, the pixel corner at (0, 0)."""
    array = as_lafs(lafs)
    shape = array[:, :, :2].reshape(-1, 4) / np.float32(mr_size)
    return np.concatenate([array[:, :, 2] + np.float32(_COLMAP_ORIGIN), shape], axis=1)


def from_colmap(keypoints: ArrayLike, mr_size: float = MR_SIZE) -> Lafs:
    """Frames of COLMAP keypoint rows: x y, x y scale orientation (radians), or x y a11 a12 a21 a22."""
    rows = np.asarray(keypoints, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] not in (2, 4, 6):
        raise DataError(f"COLMAP keypoints have 2, 4 or 6 columns, got shape {rows.shape}")
    centres = rows[:, :2] - np.float32(_COLMAP_ORIGIN)
    if rows.shape[1] == 6:
        return _with_centres(rows[:, 2:].reshape(-1, 2, 2) * np.float32(mr_size), centres)
    if rows.shape[1] == 4:
        # COLMAP's A is s [[cos, -sin], [sin, cos]]: its angle runs the other way round than ours.
        return make_lafs(centres, rows[:, 2] * mr_size, -np.rad2deg(rows[:, 3]))
    return make_lafs(centres, mr_size)


# Oxford ellipses ------------------------------------------------------------------------------------------------------


def to_oxford(lafs: ArrayLike) -> NDArray[np.float64]:
    """Rows x y a b c, (N, 5): the boundary a dx^2 + 2 b dx dy + c dy^2 = 1 is the image of the patch's unit circle.

    Orientation is not part of the format. A frame without area has no ellipse: `DataError`.
    """
    array = as_lafs(lafs)
    covariance = _covariance(array)
    det = covariance[:, 0, 0] * covariance[:, 1, 1] - covariance[:, 0, 1] ** 2
    if (det <= 0).any():
        raise DataError(f"frame {int(np.argmin(det))} has no area and so no ellipse; drop it first")
    a, b, c = covariance[:, 1, 1] / det, -covariance[:, 0, 1] / det, covariance[:, 0, 0] / det
    return np.stack([array[:, 0, 2], array[:, 1, 2], a, b, c], axis=1).astype(np.float64)


def from_oxford(ellipses: ArrayLike) -> Lafs:
    """Up-is-up frames of Oxford rows x y a b c; `DataError` where a row is no ellipse."""
    rows = np.asarray(ellipses, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 5:
        raise DataError(f"ellipses must be (N, 5) rows x y a b c, got shape {rows.shape}")
    a, b, c = rows[:, 2], rows[:, 3], rows[:, 4]
    det = a * c - b * b
    bad = ~((a > 0) & (det > 0) & np.isfinite(rows).all(axis=1))
    if bad.any():
        raise DataError(
            f"row {int(np.argmax(bad))} is not an ellipse: a b c = {rows[int(np.argmax(bad)), 2:].tolist()}"
        )
    covariance = np.stack([c / det, -b / det, -b / det, a / det], axis=1).reshape(-1, 2, 2)
    return _with_centres(_lower_triangular(covariance), rows[:, :2])


def write_oxford(path: str | Path, lafs: ArrayLike) -> None:
    """Write the text format of the affine covariant detectors: `1.0`, the count, a row x y a b c per region."""
    rows = to_oxford(lafs)
    lines = [" ".join(f"{value:.9g}" for value in row) for row in rows]
    Path(path).write_text("\n".join(["1.0", str(len(rows)), *lines]) + "\n", encoding="ascii")


def read_oxford(path: str | Path) -> Lafs:
    """Read such a file (columns after the fifth, the descriptors of some tools, are passed over)."""
    lines = Path(path).read_text(encoding="ascii", errors="replace").split("\n")
    try:
        count = int(float(lines[1]))
        rows = [_floats(line) for line in lines[2 : 2 + count]]
    except (IndexError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not an Oxford region file ('1.0', count, rows 'x y a b c'): {error}") from None
    if len(rows) != count or count < 0:
        raise DataError(f"{path}: says {count} regions but has {len(rows)} rows; is the file cut off?")
    try:
        return from_oxford(np.array(rows, dtype=np.float64).reshape(-1, 5))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _floats(line: str) -> Sequence[float]:
    fields = line.split()[:5]
    if len(fields) < 5:
        raise ValueError(f"a row has {len(fields)} columns: {line[:60]!r}")
    return [float(field) for field in fields]


# The algebra under all of it ------------------------------------------------------------------------------------------


def _covariance(lafs: Lafs) -> NDArray[np.float64]:
    a = lafs[:, :, :2].astype(np.float64)
    return np.asarray(a @ a.transpose(0, 2, 1))


def _lower_triangular(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cholesky factor of each (2, 2) matrix, kept finite where rounding made it singular."""
    l11 = np.sqrt(np.maximum(covariance[:, 0, 0], 1e-24))
    l21 = covariance[:, 1, 0] / l11
    l22 = np.sqrt(np.maximum(covariance[:, 1, 1] - l21 * l21, 0.0))
    return np.stack([l11, np.zeros_like(l11), l21, l22], axis=1).reshape(-1, 2, 2)


def _with_centres(shape: NDArray[Any], centres: NDArray[Any]) -> Lafs:
    return np.concatenate([shape, centres[:, :, None]], axis=2).astype(np.float32)
