"""k-means by faiss for codebooks, flat or in two levels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from .assignment import Cells, Floats, means, nearest_of_all

FLAT_WORDS = 1 << 16
# Comparisons of a descriptor with a word that one may wait for: a minute of one processor core.
FLAT_COMPARISONS = 1 << 34
# Cells looked into while training; a descriptor that misses its nearest word pulls at the second or third.
PROBES = 6


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


def is_quick(descriptors: int, words: int, iterations: int) -> bool:
    """Whether flat k-means of this size is worth its time."""
    return words <= FLAT_WORDS and descriptors * words * iterations <= FLAT_COMPARISONS


def kmeans(descriptors: NDArray[Any], words: int, *, seed: int, iterations: int, flat: bool) -> tuple[Floats, float]:
    """k-means of descriptors.

    Flat, every descriptor is compared with every word. In two levels, the descriptors are split into about the square
    root of the words' number of groups and each group into its share of words, all by faiss; then as many rounds over
    the whole go through the cells of `assignment`, as approximate k-means does (Philbin et al., CVPR 2007). The mean
    squared distance comes out the same within a per cent.

    Args:
        descriptors: (M, D), M at least `words`.

    Returns:
        centroids (words, D) float32, and the mean squared distance of the descriptors to theirs.
    """
    faiss = load_faiss()
    points = np.ascontiguousarray(descriptors, dtype=np.float32)
    if flat:
        return _flat(faiss, points, words, seed, iterations)
    centroids = _split(faiss, points, words, seed, iterations)
    error = 0.0
    for _ in range(iterations):
        found, distances = Cells.build(centroids, seed).nearest(points, centroids, 1, probes=PROBES)
        centroids = means(points, found[:, 0].astype(np.int64), centroids)
        error = float(distances.mean(dtype=np.float64))
    return centroids, error


def _flat(faiss: Any, points: Floats, words: int, seed: int, iterations: int) -> tuple[Floats, float]:
    clustering = faiss.Clustering(points.shape[1], words)
    clustering.seed, clustering.niter, clustering.verbose = seed, iterations, False
    clustering.min_points_per_centroid, clustering.max_points_per_centroid = 1, len(points)
    clustering.train(points, faiss.IndexFlatL2(points.shape[1]))
    centroids: Floats = faiss.vector_to_array(clustering.centroids).reshape(words, points.shape[1])
    stats = clustering.iteration_stats
    return centroids, float(stats.at(stats.size() - 1).obj) / len(points)


def _split(faiss: Any, points: Floats, words: int, seed: int, iterations: int) -> Floats:
    """Two levels of flat k-means, (words, D)."""
    groups = int(np.sqrt(words))
    rng = np.random.default_rng(seed)
    sample = points[np.sort(rng.choice(len(points), min(len(points), 256 * groups), replace=False))]
    group = nearest_of_all(points, _flat(faiss, sample, groups, seed, iterations)[0])
    order = np.argsort(group, kind="stable")
    counts = np.bincount(group, minlength=groups)
    ends = np.cumsum(counts)
    parts = [
        _flat(faiss, points[order[end - count : end]], share, seed, iterations)[0]
        for count, end, share in zip(counts.tolist(), ends.tolist(), shares(counts, words).tolist(), strict=True)
        if share
    ]
    return np.concatenate(parts)


def shares(counts: NDArray[np.int64], words: int) -> NDArray[np.int64]:
    """How many words each group gets, (G,): in proportion to its descriptors, at most so many, `words` in all."""
    exact: NDArray[np.float64] = counts * (words / counts.sum())
    share: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    # The largest remainders get the rest; they have a descriptor to spare, as a share is at most a group's size.
    rest = words - int(share.sum())
    share[np.argsort(share - exact, kind="stable")[:rest]] += 1
    return share
