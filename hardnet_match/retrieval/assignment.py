"""Nearest words of descriptors, through coarse cells: only the words of the cells around a descriptor are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

ROWS_AT_ONCE = 2048


@dataclass(frozen=True, eq=False)
class Cells:
    """Words grouped around coarse centres.

    Args:
        centres: (C, D) float32.
        order: (K,) uint32, the words, cell by cell.
        starts: (C + 1,) int64, cell c holds `order[starts[c]:starts[c + 1]]`.
    """

    centres: NDArray[np.float32]
    order: NDArray[np.uint32]
    starts: NDArray[np.int64]
    NAMES: ClassVar[tuple[str, ...]] = ("centres", "order", "starts")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is stored of them."""
        return {name: getattr(self, name) for name in self.NAMES}

    @classmethod
    def build(cls, centroids: NDArray[np.float32]) -> Cells:
        """Group the words."""
        order = np.arange(len(centroids), dtype=np.uint32)
        return cls(centroids.mean(axis=0, keepdims=True), order, np.array([0, len(centroids)], dtype=np.int64))

    def nearest(
        self, descriptors: NDArray[np.float32], centroids: NDArray[np.float32], k: int, *, exact: bool = False
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """The k nearest words, (N, k) uint32, nearest first, and their squared distances, (N, k) float32."""
        words = np.empty((len(descriptors), k), dtype=np.uint32)
        distances = np.empty((len(descriptors), k), dtype=np.float32)
        half = np.einsum("kd,kd->k", centroids, centroids) / 2
        for start in range(0, len(descriptors), ROWS_AT_ONCE):
            rows = descriptors[start : start + ROWS_AT_ONCE]
            closeness = rows @ centroids.T - half
            spare = min(k + 2, len(centroids))
            best = np.argpartition(-closeness, spare - 1, axis=1)[:, :spare]
            squared = np.square(rows[:, None] - centroids[best]).sum(axis=2)
            # Equal distances go to the lower word, whatever the order they were found in.
            first = np.lexsort((best, squared), axis=1)[:, :k]
            words[start : start + ROWS_AT_ONCE] = np.take_along_axis(best, first, axis=1)
            distances[start : start + ROWS_AT_ONCE] = np.take_along_axis(squared, first, axis=1)
        return words, distances
