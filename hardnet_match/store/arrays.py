"""What is done to arrays on their way into a file and out of it, as fast as reading their bytes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import StoreError
from ..features import Features

PRECISIONS = ("float16", "float32")
"""What descriptors that are float32 are kept as. float16 is what hloc keeps: half the room, at no loss in matching that
could be measured (`scripts/bench_networks.py --parts store`)."""
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.int32}
"""What OpenCV takes numbers for that are only moved."""
_HALF_INFINITIES = 0x7C00, 0xFC00
"""Bits of +infinity and of -infinity in float16; those of NaNs come after each."""


def kept_as(features: Features, precision: str) -> Features:
    """The features with float32 descriptors in the precision they are to be kept in; others are left as they are.

    Raises:
        StoreError: a number is too large for float16.
    """
    if precision == "float32" or features.descriptors.dtype != np.float32:
        return features
    try:
        with np.errstate(over="raise"):
            half = features.descriptors.astype(np.float16)
    except FloatingPointError:
        largest = float(np.abs(features.descriptors).max())
        raise StoreError(
            f"descriptors up to {largest:.3g} do not fit into float16 (65504 at most); store them as float32"
        ) from None
    return dataclasses.replace(features, descriptors=half)


def turned(matrix: NDArray[Any]) -> NDArray[Any]:
    """The transposed matrix, contiguous. OpenCV does in .1 ms what numpy takes 1.7 ms for with 4,096 descriptors."""
    if not matrix.size or matrix.itemsize not in _WORDS:
        return np.ascontiguousarray(matrix.T)
    import cv2

    out: NDArray[Any] = cv2.transpose(np.ascontiguousarray(matrix).view(_WORDS[matrix.itemsize]))
    return out.view(matrix.dtype)


def finite(array: NDArray[Any]) -> bool:
    """Whether no float is NaN or infinite; of half floats by their bits, for numpy converts each of them first."""
    if array.dtype == np.float16 and array.size:
        plus, minus = _HALF_INFINITIES  # as signed numbers the negative floats are below all others
        return int(array.view(np.int16).max()) < plus and int(array.view(np.uint16).max()) < minus
    return bool(np.isfinite(array).all())
