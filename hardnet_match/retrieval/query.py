"""A query: features with the words they fall into, or what query expansion made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..features import Features

if TYPE_CHECKING:
    from .codebook import Codebook


@dataclass(frozen=True, eq=False)
class Query:
    """Quantised features that are looked up in an index.

    Args:
        words: (N, k) uint32, the k nearest words of each feature, nearest first.
        distances: (N, k) float32, squared distance to them.
        lafs: (N, 2, 3) float32, frames in pixels of the query image.
        descriptors: (N, D) float32.
        weights: (N,) float32, what a feature counts for; 1 each as extracted, less or more after query expansion.

    Raises:
        DataError: row counts or shapes do not fit together.
    """

    words: NDArray[np.uint32]
    distances: NDArray[np.float32]
    lafs: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    weights: NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.words)
        if self.words.ndim != 2 or self.words.shape != self.distances.shape:
            raise DataError(f"words and distances must be (N, k), got {self.words.shape} and {self.distances.shape}")
        if self.lafs.shape != (count, 2, 3):
            raise DataError(f"lafs must be ({count}, 2, 3) as there are {count} features, got {self.lafs.shape}")
        if self.descriptors.ndim != 2 or len(self.descriptors) != count or self.weights.shape != (count,):
            raise DataError(f"descriptors {self.descriptors.shape} or weights {self.weights.shape} do not fit {count}")

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def from_features(cls, features: Features, codebook: Codebook, assignments: int = 1) -> Query:
        """Quantise the features of an image.

        Args:
            assignments: words each feature goes to (multiple assignment).

        Raises:
            DataError: the descriptors are not of the codebook's kind.
            OptionError: the codebook has not as many words.
        """
        descriptors = codebook.checked(features.descriptors)
        words, distances = codebook.nearest(descriptors, assignments)
        return cls(words, distances, features.lafs, descriptors, np.ones(len(features), dtype=np.float32))

    def select(self, rows: NDArray[Any] | slice) -> Query:
        """The same query, only the given features (indices, a boolean mask or a slice)."""
        return Query(
            self.words[rows], self.distances[rows], self.lafs[rows], self.descriptors[rows], self.weights[rows]
        )
