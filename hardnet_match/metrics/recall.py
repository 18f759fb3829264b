"""Area under the curve of recall over error, the figure of pose and homography benchmarks.

As computed by SuperGlue's evaluation (Sarlin et al., CVPR 2020) and those after it: the curve runs in straight lines
through (error, share of pairs at most that far off), from (0, 0), and is level behind the last error below the
threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError


def recall_auc(errors: ArrayLike, thresholds: Sequence[float]) -> dict[float, float]:
    """Area under recall over error, up to each threshold and divided by it.

    Args:
        errors: (N,), one a pair; infinity for a pair that failed.
        thresholds: in the errors' unit, above 0.

    Returns:
        Threshold to area in [0, 1]; 0 without pairs.

    Raises:
        DataError: an error is negative or NaN, or a threshold is not above 0.
    """
    ordered = np.sort(np.asarray(errors, dtype=np.float64).reshape(-1))
    if np.isnan(ordered).any() or (ordered < 0).any():
        raise DataError("errors must be 0 or more; infinity stands for a pair that failed")
    if any(not threshold > 0 for threshold in thresholds):
        raise DataError(f"thresholds must be above 0, got {list(thresholds)}")
    recall = np.arange(1, len(ordered) + 1) / max(len(ordered), 1)
    found = {}
    for threshold in thresholds:
        below = int(np.searchsorted(ordered, threshold))
        level = recall[below - 1] if below else 0.0
        x = np.concatenate([[0.0], ordered[:below], [threshold]])
        y = np.concatenate([[0.0], recall[:below], [level]])
        found[threshold] = float(np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1])) / 2 / threshold)
    return found
