"""k-means by faiss for codebooks, flat and in two levels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError

FLAT_WORDS = 65536


def load_faiss() -> Any:
    """The faiss module.

    Raises:
        OptionError: it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise OptionError(
            'training a codebook needs faiss: pip install "hardnet-match[retrieval]", or give a trained codebook'
        ) from None
    return faiss


def kmeans(descriptors: NDArray[Any], words: int, *, seed: int, iterations: int) -> tuple[NDArray[np.float32], float]:
    """Centroids (words, D) float32 and the mean squared distance of the descriptors to theirs."""
    faiss = load_faiss()
    points = np.ascontiguousarray(descriptors, dtype=np.float32)
    clustering = faiss.Clustering(points.shape[1], words)
    clustering.seed, clustering.niter, clustering.verbose = seed, iterations, False
    clustering.min_points_per_centroid, clustering.max_points_per_centroid = 1, 1 << 30
    clustering.train(points, faiss.IndexFlatL2(points.shape[1]))
    centroids = faiss.vector_to_array(clustering.centroids).reshape(words, points.shape[1])
    error = clustering.iteration_stats.at(clustering.iteration_stats.size() - 1).obj / len(points)
    return centroids, float(error)
