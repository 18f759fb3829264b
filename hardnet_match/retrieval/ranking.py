"""Images by similarity to a query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Ranking:
    """Images by similarity to a query, best first.

    Args:
        images: (K,) int64, numbers in the index.
        scores: (K,) float32, descending, all above 0.
    """

    images: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)


def best_first(scores: NDArray[np.float64], top: int | None = None) -> Ranking:
    """The images with a score above 0, or the best so many of them; equal ones in the order of their numbers.

    Args:
        scores: (n_images,), of every image.
    """
    single = scores.astype(np.float32)
    found = np.flatnonzero(single > 0)
    if top is not None and top < len(found):
        # All that are as good as the last one, so that equal scores are cut by number and not by chance.
        least = np.partition(single[found], len(found) - top)[len(found) - top]
        found = found[single[found] >= least]
    order = np.lexsort((found, -single[found]))[:top]
    return Ranking(found[order], single[found][order])
