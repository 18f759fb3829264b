"""Figures of two views of a plane whose homography is known.

- Mean matching accuracy: the share of matches that agree with the homography within t pixels, t = 1, ..., 10 (Dusmanu
  et al., D2-Net, CVPR 2019, on HPatches; before, Mikolajczyk and Schmid, PAMI 2005). A pair without matches has 0.
- Matching score: correct matches over the features that lie in the part both views see, the mean of both directions
  (DeTone et al., SuperPoint, CVPRW 2018; Mikolajczyk and Schmid).
- Repeatability: features in the shared part that have a feature of the other view within t pixels of where the
  homography puts them, both directions counted together (SuperPoint).
- Corner error: mean distance between the first image's corners as the estimated and as the true homography map them
  (SuperPoint); its area under recall is `recall.recall_auc`.

A homography maps homogeneous pixels of the first image to the second, pixel centres at integers.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError

PIXELS = tuple(range(1, 11))
_AT_ONCE = 2048


def checked_homography(homography: ArrayLike) -> NDArray[np.float64]:
    """(3, 3) float64, finite and invertible.

    Raises:
        DataError: it is not.
    """
    matrix = np.asarray(homography, dtype=np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        raise DataError(f"a homography is an invertible (3, 3) matrix of finite numbers, got {matrix.tolist()}")
    return matrix


def transfer(homography: NDArray[np.float64], xy: ArrayLike) -> NDArray[np.float64]:
    """Points (N, 2) of the first image in the second, (N, 2); infinity for those beyond the plane's horizon."""
    points = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
    mapped = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ homography.T
    # The sign of det(H) w says on which side of the horizon a point lies.
    ahead = mapped[:, 2] * np.sign(np.linalg.det(homography)) > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(ahead[:, None], mapped[:, :2] / mapped[:, 2:], np.inf)


def transfer_errors(homography: NDArray[np.float64], xy0: ArrayLike, xy1: ArrayLike) -> NDArray[np.float64]:
    """How far matched points of the second image, (M, 2), are from where the first's are mapped; pixels, (M,)."""
    return np.asarray(np.linalg.norm(transfer(homography, xy0) - np.asarray(xy1, dtype=np.float64), axis=1))


def matching_accuracy(errors: NDArray[np.float64], pixels: tuple[float, ...] = PIXELS) -> NDArray[np.float64]:
    """Share of matches whose error is at most each number of pixels; zeros without matches."""
    if not len(errors):
        return np.zeros(len(pixels))
    return np.asarray((errors[:, None] <= np.asarray(pixels)[None]).mean(axis=0))


def in_shared_view(homography: NDArray[np.float64], xy: ArrayLike, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which points (N, 2) of the first image the second, (width, height), sees, (N,) bool."""
    there = transfer(homography, xy)
    return np.asarray(((there >= -0.5) & (there <= np.array(size) - 0.5)).all(axis=1))


def matching_score(correct: int, shared0: int, shared1: int) -> float:
    """Correct matches over features in the shared view, the mean of the two images; 0 where there are none."""
    return sum(min(correct / count, 1.0) if count else 0.0 for count in (shared0, shared1)) / 2


def repeatability(
    homography: NDArray[np.float64],
    xy0: ArrayLike,
    xy1: ArrayLike,
    size0: tuple[int, int],
    size1: tuple[int, int],
    pixels: float = 3.0,
) -> float:
    """Share of features in the shared view that the other image has too, in [0, 1]; 0 where there are none.

    Args:
        xy0, xy1: (N, 2) and (M, 2) keypoints.
        size0, size1: (width, height) of the images.
        pixels: how far off counts as the same, measured in the image the point is mapped to.
    """
    back = np.asarray(np.linalg.inv(homography), dtype=np.float64)
    first = np.asarray(xy0, dtype=np.float64).reshape(-1, 2)
    second = np.asarray(xy1, dtype=np.float64).reshape(-1, 2)
    first = first[in_shared_view(homography, first, size1)]
    second = second[in_shared_view(back, second, size0)]
    if not len(first) or not len(second):
        return 0.0
    again = int((_nearest(transfer(homography, first), second) <= pixels).sum())
    again += int((_nearest(transfer(back, second), first) <= pixels).sum())
    return again / (len(first) + len(second))


def corner_error(estimated: ArrayLike | None, homography: NDArray[np.float64], size: tuple[int, int]) -> float:
    """Mean distance of the four corners of the first image, (width, height), pixels of the second.

    Infinity without an estimate, and where it sends a corner beyond the horizon.
    """
    if estimated is None:
        return float("inf")
    matrix = np.asarray(estimated, dtype=np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or np.linalg.det(matrix) == 0:
        return float("inf")
    width, height = size
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], dtype=np.float64)
    true = transfer(homography, corners)
    found = transfer(matrix, corners)
    if not np.isfinite(true).all() or not np.isfinite(found).all():
        return float("inf")
    return float(np.linalg.norm(found - true, axis=1).mean())


def _nearest(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each point (N, 2) from the nearest of others (M, 2), (N,)."""
    there = torch.from_numpy(others)
    parts = [
        torch.cdist(torch.from_numpy(points[start : start + _AT_ONCE]), there).min(dim=1).values
        for start in range(0, len(points), _AT_ONCE)
    ]
    return np.asarray(torch.cat(parts).numpy())
