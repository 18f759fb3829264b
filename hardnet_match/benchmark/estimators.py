"""Robust estimation of a homography or a relative pose from matches: OpenCV's RANSAC and MAGSAC++, and PoseLib.

Each sees the matches in an order that the seed shuffles, and the same seed gives the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError

ESTIMATORS = ("ransac", "magsac", "poselib")
"""`ransac`: OpenCV's (Fischler and Bolles, 1981; local refinement of the inliers); `magsac`: OpenCV's USAC with
MAGSAC++ (Barath et al., CVPR 2020); `poselib`: LO-RANSAC (Larsson et al., PoseLib)."""

_CONFIDENCE = 0.99999
_ITERATIONS = 10_000
_PINHOLE = {"model": "SIMPLE_PINHOLE", "width": 1, "height": 1, "params": [1.0, 0.0, 0.0]}
Pose = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Estimator:
    """A robust estimator.

    Args:
        name: one of `ESTIMATORS`.
        threshold: how far from the model an inlier lies at most, pixels.
        seed: of everything random.

    Raises:
        OptionError: no such estimator, a threshold that is not above 0, or PoseLib is not installed.
    """

    name: str
    threshold: float
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in ESTIMATORS:
            raise OptionError(f"there is no estimator {self.name!r}; there are {', '.join(ESTIMATORS)}")
        if not self.threshold > 0:
            raise OptionError(f"an inlier threshold is above 0 pixels, got {self.threshold}")
        if self.name == "poselib" and not has_poselib():
            raise OptionError('the estimator poselib is an extra: pip install "hardnet-match[benchmark]"')

    def homography(self, xy0: NDArray[Any], xy1: NDArray[Any]) -> NDArray[np.float64] | None:
        """(3, 3) float64 from matched pixels (M, 2) each, first to second; None where there is none."""
        if len(xy0) < 4:
            return None
        a, b = self._shuffled(xy0, xy1)
        if self.name == "poselib":
            import poselib

            options = {**self._poselib(), "max_reproj_error": self.threshold}
            return _usable(poselib.estimate_homography(a, b, options, {})[0])
        import cv2

        return _usable(cv2.findHomography(a, b, self._flag(), self.threshold, None, _ITERATIONS, _CONFIDENCE)[0])

    def relative_pose(self, rays0: NDArray[Any], rays1: NDArray[Any], focal: float) -> Pose | None:
        """(R, t) from the first camera's coordinates to the second's, t of length 1; None where there is none.

        Args:
            rays0, rays1: (M, 2) matched points without lens distortion, at focal length one.
            focal: pixels a unit of them, which the threshold is divided by.
        """
        if len(rays0) < 5:
            return None
        a, b = self._shuffled(rays0, rays1)
        threshold = self.threshold / focal
        if self.name == "poselib":
            import poselib

            options = {**self._poselib(), "max_epipolar_error": threshold}
            solved, info = poselib.estimate_relative_pose(a, b, _PINHOLE, _PINHOLE, options, {})
            if not info["num_inliers"]:
                return None
            return np.asarray(solved.R, dtype=np.float64), np.asarray(solved.t, dtype=np.float64)
        import cv2

        eye = np.eye(3)
        found, mask = cv2.findEssentialMat(
            a, b, eye, method=self._flag(), prob=_CONFIDENCE, threshold=threshold, maxIters=_ITERATIONS
        )
        if found is None or found.shape[0] < 3 or found.shape[1:] != (3,) or not np.isfinite(found).all():
            return None
        # From five points there may be several matrices, one above the other; the one most points lie ahead of wins.
        best = 0
        pose: Pose | None = None
        for essential in np.split(found[: len(found) // 3 * 3], len(found) // 3):
            ahead, turn, move, _ = cv2.recoverPose(essential, a, b, eye, 1e9, mask=mask.copy())[:4]
            if ahead > best:
                best, pose = ahead, (np.asarray(turn, dtype=np.float64), np.asarray(move, dtype=np.float64)[:, 0])
        return pose

    def _shuffled(self, *points: NDArray[Any]) -> list[NDArray[np.float64]]:
        order = np.random.default_rng(self.seed).permutation(len(points[0]))
        return [np.ascontiguousarray(side, dtype=np.float64)[order] for side in points]

    def _poselib(self) -> dict[str, Any]:
        return {"seed": self.seed, "success_prob": _CONFIDENCE, "max_iterations": _ITERATIONS}

    def _flag(self) -> int:
        import cv2

        return int(cv2.USAC_MAGSAC if self.name == "magsac" else cv2.RANSAC)


def has_poselib() -> bool:
    """Whether PoseLib can be imported."""
    from importlib.util import find_spec

    return find_spec("poselib") is not None


def _usable(matrix: Any) -> NDArray[np.float64] | None:
    if matrix is None:
        return None
    found = np.asarray(matrix, dtype=np.float64)
    return found if found.shape == (3, 3) and np.isfinite(found).all() and found.any() else None
