"""The two things that travel between the floors: `Features` of one image and `Matches` of two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

DESCRIPTOR_DTYPES = (np.float32, np.float16, np.uint8)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise DataError(message)


@dataclass(frozen=True, eq=False)
class Features:
    """Local features of one image; as many rows as there are features, never padded.

    Args:
        lafs: local affine frames, (N, 2, 3) float32, in pixels of the image file, pixel centres at integers.
            Columns are the two axes and the centre; the described patch spans [-1, 1]^2 of the frame.
        scores: by which the detector ranks its keypoints, (N,) float32; larger is better.
        descriptors: (N, D) float32, float16 or uint8.
        image_size: (width, height) in pixels of the image file.
        meta: what made them (preset, settings hash, weights hash, ...).

    Raises:
        DataError: a shape or dtype is wrong, row counts differ, or a frame or score is not finite.
    """

    lafs: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[Any]
    image_size: tuple[int, int]
    meta: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lafs, scores, descriptors = self.lafs, self.scores, self.descriptors
        _require(lafs.ndim == 3 and lafs.shape[1:] == (2, 3), f"lafs must be (N, 2, 3), got {lafs.shape}")
        _require(lafs.dtype == np.float32, f"lafs must be float32, got {lafs.dtype}")
        count = len(lafs)
        _require(scores.shape == (count,), f"scores must be ({count},) as there are {count} lafs, got {scores.shape}")
        _require(scores.dtype == np.float32, f"scores must be float32, got {scores.dtype}")
        _require(
            descriptors.ndim == 2 and len(descriptors) == count,
            f"descriptors must be ({count}, D) as there are {count} lafs, got {descriptors.shape}",
        )
        _require(
            descriptors.dtype in DESCRIPTOR_DTYPES,
            f"descriptors must be float32, float16 or uint8, got {descriptors.dtype}",
        )
        _require(bool(np.isfinite(lafs).all()), "lafs hold NaN or infinity")
        _require(bool(np.isfinite(scores).all()), "scores hold NaN or infinity")
        width, height = self.image_size
        _require(width > 0 and height > 0, f"image_size must be positive (width, height), got {self.image_size}")

    def __len__(self) -> int:
        return len(self.lafs)

    @property
    def keypoints(self) -> NDArray[np.float32]:
        """Centres of the frames, (N, 2) float32 x, y; the centre of the top-left pixel is (0, 0)."""
        return np.ascontiguousarray(self.lafs[:, :, 2])

    def select(self, rows: NDArray[Any] | slice) -> Features:
        """The same features, only the given rows (indices, a boolean mask or a slice)."""
        return Features(self.lafs[rows], self.scores[rows], self.descriptors[rows], self.image_size, self.meta)


@dataclass(frozen=True, eq=False)
class Matches:
    """Tentative matches between the features of two images.

    Args:
        pairs: (M, 2) int32, row numbers into the first and the second image's features.
        scores: (M,) float32, larger is better.

    Raises:
        DataError: a shape or dtype is wrong, an index is negative or a score is not finite.
    """

    pairs: NDArray[np.int32]
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        pairs, scores = self.pairs, self.scores
        _require(pairs.ndim == 2 and pairs.shape[1] == 2, f"pairs must be (M, 2), got {pairs.shape}")
        _require(pairs.dtype == np.int32, f"pairs must be int32, got {pairs.dtype}")
        _require(scores.shape == (len(pairs),), f"scores must be ({len(pairs)},), got {scores.shape}")
        _require(scores.dtype == np.float32, f"scores must be float32, got {scores.dtype}")
        _require(not len(pairs) or int(pairs.min()) >= 0, "pairs hold a negative index")
        _require(bool(np.isfinite(scores).all()), "scores hold NaN or infinity")

    def __len__(self) -> int:
        return len(self.pairs)

    def swapped(self) -> Matches:
        """The same matches seen from the second image."""
        return Matches(np.ascontiguousarray(self.pairs[:, ::-1]), self.scores)
