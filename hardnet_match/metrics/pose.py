"""Error of a relative pose between two calibrated views.

The larger of the angle between the rotations and the angle between the directions of translation, degrees; scale
cannot be seen in two views, and by the custom of the benchmarks (Sarlin et al., SuperGlue, CVPR 2020; Jin et al., Image
Matching across Wide Baselines, IJCV 2021) nor is the direction's sign counted. The figure over many pairs is the area
under recall up to 5, 10 and 20 degrees, `recall.recall_auc`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError

DEGREES = (5, 10, 20)


def relative_pose(
    rotation0: ArrayLike, translation0: ArrayLike, rotation1: ArrayLike, translation1: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(R, t) that takes the first camera's coordinates to the second's, of two world-to-camera poses."""
    r0, r1 = np.asarray(rotation0, dtype=np.float64), np.asarray(rotation1, dtype=np.float64)
    t0, t1 = (
        np.asarray(translation0, dtype=np.float64).reshape(3),
        np.asarray(translation1, dtype=np.float64).reshape(3),
    )
    turn = r1 @ r0.T
    return turn, t1 - turn @ t0


def rotation_error(estimated: ArrayLike, true: ArrayLike) -> float:
    """Angle between two rotations, degrees."""
    chord = np.linalg.norm(np.asarray(estimated, dtype=np.float64) - np.asarray(true, dtype=np.float64)) / np.sqrt(8)
    return float(np.rad2deg(2 * np.arcsin(min(chord, 1.0))))


def translation_error(estimated: ArrayLike, true: ArrayLike) -> float:
    """Angle between two directions whatever their signs, degrees in [0, 90].

    Raises:
        DataError: the true translation is zero: two views from one place have no direction.
    """
    a, b = (np.asarray(value, dtype=np.float64).reshape(3) for value in (estimated, true))
    if not np.linalg.norm(b) > 0:
        raise DataError("the two cameras are in one place, so their relative pose has no direction of translation")
    if not np.linalg.norm(a) > 0:
        return 90.0
    # atan2 of cross and dot product is exact for small angles, where acos is not
    return float(np.rad2deg(np.arctan2(np.linalg.norm(np.cross(a, b)), abs(a @ b))))


def pose_error(
    estimated: tuple[ArrayLike, ArrayLike] | None, true: tuple[ArrayLike, ArrayLike]
) -> tuple[float, float, float]:
    """Errors of rotation and translation and the larger of them, degrees; infinite without an estimate.

    Args:
        estimated, true: (R, t) from the first camera's coordinates to the second's.

    Raises:
        DataError: the true translation is zero.
    """
    if estimated is None:
        return float("inf"), float("inf"), float("inf")
    turn = rotation_error(estimated[0], true[0])
    move = translation_error(estimated[1], true[1])
    return turn, move, max(turn, move)


def epipolar_distance(
    rays0: ArrayLike, rays1: ArrayLike, rotation: NDArray[np.float64], translation: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far matched rays are from each other's epipolar line, the larger of both images, at focal length one, (M,).

    The share of matches within a pixel or so is the epipolar precision of SuperGlue's tables.

    Args:
        rays0, rays1: (M, 2) matched points without lens distortion, at focal length one.
        rotation, translation: from the first camera's coordinates to the second's.
    """
    first, second = (
        np.concatenate([np.asarray(rays, dtype=np.float64).reshape(-1, 2), np.ones((len(np.asarray(rays)), 1))], axis=1)
        for rays in (rays0, rays1)
    )
    x, y, z = np.asarray(translation, dtype=np.float64).reshape(3)
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation
    lines, back = first @ essential.T, second @ essential
    off = np.abs((second * lines).sum(axis=1))
    least = np.minimum(np.linalg.norm(lines[:, :2], axis=1), np.linalg.norm(back[:, :2], axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(least > 0, off / least, np.inf))
