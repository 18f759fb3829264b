"""Features of a made-up world of words, for the tests of retrieval."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hardnet_match.features import Features
from hardnet_match.retrieval.codebook import Codebook

SETTINGS = {"descriptor": "hardnet", "weights": {"descriptor": "0bea0c57"}, "max_keypoints": 1000}


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_codebook(words: int = 64, dim: int = 128, seed: int = 0) -> Codebook:
    rng = np.random.default_rng(seed)
    return Codebook(unit(rng.normal(size=(words, dim))), {"settings": SETTINGS})


def make_features(
    codebook: Codebook, count: int, seed: int, *, words: NDArray[np.int64] | None = None, noise: float = 0.05
) -> Features:
    """So many features around the given words (random ones otherwise), their frames anywhere in 640 x 480."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(codebook), count) if words is None else words
    descriptors = unit(codebook.centroids[chosen] + noise * rng.normal(size=(count, codebook.dim)))
    lafs = rng.normal(size=(count, 2, 3)).astype(np.float32) * 10
    lafs[:, :, 2] = rng.uniform((0, 0), (639, 479), (count, 2))
    return Features(lafs, np.ones(count, np.float32), descriptors, (640, 480))


def make_images(codebook: Codebook, count: int, seed: int = 0, features: int = 60) -> list[tuple[str, Features]]:
    """Images of different numbers of features, the fourth of them without any."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(features // 2, features * 2, count)
    sizes[3:4] = 0
    return [
        (f"place {number % 3}/{number:03d}.jpg", make_features(codebook, size, seed * 1000 + number))
        for number, size in enumerate(sizes.tolist())
    ]
