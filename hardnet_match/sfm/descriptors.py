"""Float descriptors as the unsigned bytes that COLMAP's own matchers compare."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

COLMAP_DIM = 128
_NORM = 512.0  # COLMAP's brute-force matcher takes the angle as acos(dot / 512^2)
_OFFSET = 0.1  # lifts most negative entries of a unit vector of 128 above zero; kept 97.5-99.6 % of the float inliers


def colmap_descriptors(descriptors: NDArray[Any]) -> NDArray[np.uint8]:
    """Descriptors of COLMAP's SIFT type: non-negative bytes of Euclidean norm 512.

    Unit vectors with negative entries (HardNet, TFeat) are shifted by 0.1, cut at zero and normalised again;
    non-negative ones (RootSIFT) are only scaled. Bytes are taken to be of that type already. A bare cast, which
    pycolmap does by itself, turns unit vectors into zeros.

    Args:
        descriptors: (N, 128) float32, float16 or uint8.

    Returns:
        (N, 128) uint8.

    Raises:
        DataError: other than 128 columns, or NaN or infinity.
    """
    if descriptors.ndim != 2 or descriptors.shape[1] != COLMAP_DIM:
        raise DataError(f"COLMAP's matchers take descriptors (N, {COLMAP_DIM}), got {descriptors.shape}")
    if descriptors.dtype == np.uint8:
        return np.ascontiguousarray(descriptors)
    values = descriptors.astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError("descriptors hold NaN or infinity; extract the image again")
    values = _unit(values)
    if values.size and float(values.min()) < 0:
        values = _unit(np.maximum(values + _OFFSET, 0))
    quantised: NDArray[np.uint8] = np.clip(np.rint(values * _NORM), 0, 255).astype(np.uint8)
    return quantised


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(norm, np.finfo(np.float32).tiny))
