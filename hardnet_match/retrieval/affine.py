"""Affine transforms between images, very many at once: from frames, by least squares, and which of them can be true.

A transform is (..., 2, 3) float64, x -> A x + t, in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError

Array = NDArray[np.float64]

FRAME_WEIGHT = 0.1
"""What the axes of a matched frame count beside its centre in least squares: a frame is off by a tenth or two of its
size (some pixels), its centre by a pixel or two."""


@dataclass(frozen=True)
class Limits:
    """Which transforms are believed.

    Args:
        scale: the most that lengths may grow or shrink, sqrt|det A| within [1/scale, scale].
        anisotropy: the largest ratio of the two singular values.
    """

    scale: float = 10.0
    anisotropy: float = 6.0

    def __post_init__(self) -> None:
        if not (self.scale >= 1 and self.anisotropy >= 1):
            raise OptionError(f"limits of scale and anisotropy are at least 1, got {self.scale} and {self.anisotropy}")

    def allow(self, transforms: Array) -> NDArray[np.bool_]:
        """Which transforms (..., 2, 3) are finite, keep orientation (no mirror) and stay within the limits."""
        a = transforms[..., :2]
        with np.errstate(invalid="ignore", over="ignore"):
            det = determinant(a)
            # Of singular values s1 >= s2: s1^2 + s2^2 = |A|^2, s1 s2 = det, and so s1/s2 + s2/s1 = |A|^2 / det.
            spread = (a * a).sum(axis=(-2, -1))
            stretch = self.anisotropy + 1 / self.anisotropy
            low, high = self.scale**-2 * (1 - 1e-9), self.scale**2 * (1 + 1e-9)
            fine = (det >= low) & (det <= high) & (spread <= det * stretch * (1 + 1e-9))
        return np.asarray(fine & np.isfinite(transforms).all(axis=(-2, -1)))


def determinant(a: Array) -> Array:
    """Determinants of (..., 2, 2)."""
    return np.asarray(a[..., 0, 0] * a[..., 1, 1] - a[..., 0, 1] * a[..., 1, 0])


def inverse(a: Array) -> Array:
    """Inverses of (..., 2, 2); NaN or infinite where there is none."""
    turned = np.stack([a[..., 1, 1], -a[..., 0, 1], -a[..., 1, 0], a[..., 0, 0]], axis=-1).reshape(a.shape)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(turned / determinant(a)[..., None, None])


def invert(transforms: Array) -> Array:
    """The way back, (..., 2, 3)."""
    a = inverse(transforms[..., :2])
    return np.concatenate([a, -a @ transforms[..., 2:]], axis=-1)


def from_frames(first: Array, second: Array, *, similarity: bool = False) -> Array:
    """The transform that takes each frame of the first to that of the second: A = A1 inv(A0), t = c1 - A c0.

    Args:
        first, second: (M, 2, 3) frames.
        similarity: only scale and rotation of A (sqrt of its determinant, its polar rotation) are kept.

    Returns:
        (M, 2, 3), not finite where the first frame is singular.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        back = inverse(first[..., :2])
        a = second[..., 0, None] * back[..., None, 0, :] + second[..., 1, None] * back[..., None, 1, :]
        if similarity:
            cos, sin = a[..., 0, 0] + a[..., 1, 1], a[..., 1, 0] - a[..., 0, 1]
            size = np.sqrt(np.abs(determinant(a))) / np.maximum(np.hypot(cos, sin), 1e-300)
            mirrored = np.where(determinant(a) < 0, np.nan, size)
            cos, sin = cos * mirrored, sin * mirrored
            a = np.stack([cos, -sin, sin, cos], axis=-1).reshape(a.shape)
        moved = a[..., 0] * first[..., 0, 2, None] + a[..., 1] * first[..., 1, 2, None]
        return np.concatenate([a, (second[..., 2] - moved)[..., None]], axis=-1)


def moments(first: Array, second: Array, frame_weight: float = FRAME_WEIGHT) -> Array:
    """What each match (..., 2, 3), (..., 2, 3) adds to the normal equations of `least_squares`, (..., 12).

    The columns are xx xy yy x y 1 ux uy vx vy u v, centres x y in the first and u v in the second image, with the
    products of the axes, weighted, added to the second-order ones.
    """
    # Element by element: numpy is slow at very many very small matrix products.
    p, q = first.reshape(*first.shape[:-2], 6), second.reshape(*second.shape[:-2], 6)
    sums = np.empty((*p.shape[:-1], 12))
    sums[..., 3:5], sums[..., 5], sums[..., 10:12] = p[..., 2::3], 1, q[..., 2::3]
    pairs = ((0, p, 0, 0), (1, p, 0, 3), (2, p, 3, 3), (6, q, 0, 0), (7, q, 0, 3), (8, q, 3, 0), (9, q, 3, 3))
    for column, left, i, j in pairs:
        axes = left[..., i] * p[..., j] + left[..., i + 1] * p[..., j + 1]
        sums[..., column] = left[..., i + 2] * p[..., j + 2] + frame_weight * axes
    return sums


def least_squares(sums: Array) -> Array:
    """The affine transforms of weighted sums of `moments`, (..., 12) -> (..., 2, 3); not finite where undetermined."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        mean = sums / sums[..., 5:6]
        x, u = mean[..., 3:5], mean[..., 10:12]
        xx = mean[..., [0, 1, 1, 2]].reshape(*x.shape[:-1], 2, 2) - x[..., :, None] * x[..., None, :]
        ux = mean[..., 6:10].reshape(*x.shape[:-1], 2, 2) - u[..., :, None] * x[..., None, :]
        a = ux @ inverse(xx)
        return np.concatenate([a, u[..., None] - a @ x[..., None]], axis=-1)


def apply_to_frames(transform: Array, lafs: NDArray[Any]) -> NDArray[np.float32]:
    """Frames (N, 2, 3) seen through one transform (2, 3), or each through its own (N, 2, 3); float32."""
    moved = transform[..., :2] @ np.asarray(lafs, np.float64)
    moved[..., 2] += transform[..., 2]
    return moved.astype(np.float32)
