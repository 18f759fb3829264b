"""The pipeline on two small rendered pictures whose cameras are known: does it still match what is the same?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .check import BROKEN, LOOK, OK, Check

if TYPE_CHECKING:
    from ...extractor import FeatureExtractor
    from ...world.camera import View

SIZE = (320, 240)
KEYPOINTS = 400
TEXEL = 0.012
NEAR = 4.0
"""A match is right within so many pixels of where the known depth says."""
LEAST_SHARE, LEAST_RIGHT = 0.7, 40
ALIKE = 0.98


def self_test() -> Check:
    """Render, extract, match, compare with the truth; and with the processor, where another device does the work."""
    from ...extractor import FeatureExtractor
    from ...matching import match
    from ...world import World

    started = time.perf_counter()
    first, second = World(0, texel=TEXEL).render(2, SIZE)
    extractor = FeatureExtractor.from_preset(max_keypoints=KEYPOINTS)
    one, other = extractor.extract_batch([first.image, second.image])
    found = match(one, other)
    truth, known = _seen_from(first, second, one.keypoints[found.pairs[:, 0]])
    off = np.linalg.norm(truth - other.keypoints[found.pairs[:, 1]], axis=1)
    right = int((off[known] <= NEAR).sum())
    share = right / max(int(known.sum()), 1)
    text = f"{right} of {int(known.sum())} matches of two rendered pictures right on {extractor.device}"
    alike = None
    if extractor.device.type != "cpu":
        alike = _alike(extractor, first.image)
        text += f", descriptors' cosine to the processor's {alike:.4f}"
    text += f" ({time.perf_counter() - started:.1f} s)"
    if right < LEAST_RIGHT or share < LEAST_SHARE:
        return Check("self-test", BROKEN, text, "run it with --device cpu; install torch and the package again")
    if alike is not None and alike < ALIKE:
        return Check("self-test", LOOK, text, "this device computes differently: compare results with --device cpu")
    return Check("self-test", OK, text)


def _seen_from(first: View, second: View, points: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Where the second view shows what lies at pixels of the first, and of which pixels that is known."""
    rows, columns = np.round(points[:, ::-1]).astype(int).T
    depth = first.depth[rows.clip(0, SIZE[1] - 1), columns.clip(0, SIZE[0] - 1)].astype(np.float64)
    known = np.isfinite(depth)
    world = first.camera.lift(points.astype(np.float64), np.where(known, depth, 1.0))
    there, away = second.camera.project(world)
    return there, known & (away > 0)


def _alike(extractor: FeatureExtractor, image: NDArray[np.uint8]) -> float:
    """Mean cosine of descriptors of the same frames, there and on the processor."""
    from ...extractor import FeatureExtractor

    here = FeatureExtractor.from_preset(max_keypoints=KEYPOINTS, device="cpu").extract(image)
    there = extractor.extract(image)
    apart = np.linalg.norm(here.keypoints[:, None] - there.keypoints[None], axis=2)
    nearest = apart.argmin(axis=1)
    same = apart[np.arange(len(here)), nearest] < 0.1
    one = here.descriptors[same].astype(np.float64)
    other = there.descriptors[nearest[same]].astype(np.float64)
    scale = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    # the same place may carry several frames, of other sizes: the median does not mind
    return float(np.median((one * other).sum(axis=1) / np.maximum(scale, 1e-12))) if same.any() else 0.0
