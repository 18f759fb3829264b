"""Images a second of spatial verification, on random features with planted geometry.

    python scripts/bench_verification.py [--images 1000] [--features 1000] [--words 65536 4096] [--repeats 5]

Each image has as many features as the query. Words are drawn with probabilities that fall as the root of their rank,
so that some are common. Every tenth image shows the query under one affine transform: four in ten of its features,
half of which keep their word. One thread; the table has processor time, which other work on the machine does not
stretch, and wall time.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import time

import numpy as np

from hardnet_match.frames import make_lafs
from hardnet_match.retrieval.affine import apply_to_frames
from hardnet_match.retrieval.tentative import Candidates
from hardnet_match.retrieval.verification import verify


def frames(rng: np.random.Generator, count: int) -> np.ndarray:
    """Oriented ellipses all over an image of 800 pixels."""
    lafs = make_lafs(rng.uniform(0, 800, (count, 2)), np.exp(rng.uniform(2, 4, count)), rng.uniform(-180, 180, count))
    stretch = np.exp(rng.normal(0, 0.3, count)).astype(np.float32)[:, None]
    lafs[:, :, 0] *= stretch
    lafs[:, :, 1] /= stretch
    return lafs


def scene(images: int, features: int, words: int) -> tuple[np.ndarray, np.ndarray, Candidates]:
    """A query's frames and words, and the images to verify."""
    rng = np.random.default_rng(0)
    chance = np.cumsum(np.arange(1, words + 1) ** -0.5)

    def drawn(count: int) -> np.ndarray:
        return np.asarray(np.searchsorted(chance, rng.random(count) * chance[-1]), np.uint32)

    query, query_words = frames(rng, features), drawn(features)
    lafs, of_image = frames(rng, images * features), drawn(images * features)
    transform = np.array([[0.9, 0.2, 20.0], [-0.15, 1.1, -30.0]])
    shown = int(0.4 * features)
    for image in range(0, images, 10):
        here = image * features + rng.choice(features, shown, replace=False)
        there = rng.choice(features, shown, replace=False)
        seen = apply_to_frames(transform, query[there])
        seen[:, :, :2] *= np.exp(rng.normal(0, 0.1, (shown, 1, 1))).astype(np.float32)
        seen[:, :, 2] += rng.normal(0, 1, (shown, 2)).astype(np.float32)
        lafs[here] = seen
        kept = rng.random(shown) < 0.5
        of_image[here[kept]] = query_words[there[kept]]
    return query, query_words, Candidates(lafs, of_image, np.arange(images + 1) * features)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--features", type=int, default=1000)
    parser.add_argument("--words", type=int, nargs="+", default=[65536, 4096])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print("| words | tentative matches an image | images/s (processor) | images/s (wall) | inliers, planted / others |")
    print("|---|---|---|---|---|")
    for words in options.words:
        query, query_words, candidates = scene(options.images, options.features, words)
        spent: list[tuple[float, float]] = []
        for _ in range(options.repeats):
            cpu, wall = time.process_time(), time.perf_counter()
            found = verify(query, query_words, candidates)
            spent.append((time.process_time() - cpu, time.perf_counter() - wall))
        planted = np.arange(options.images) % 10 == 0
        cpu, wall = (statistics.median(column) for column in zip(*spent, strict=True))
        print(
            f"| {words} | {found.tentative.mean():.0f} | {options.images / cpu:.0f} | {options.images / wall:.0f} "
            f"| {np.median(found.inliers[planted]):.0f} / {np.median(found.inliers[~planted]):.0f} |"
        )


if __name__ == "__main__":
    main()
