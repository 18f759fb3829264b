"""Transforms judged by the matches that agree with them, and improved: arithmetic over images, transforms and matches.

B images at a time, with H or K transforms and T matches each; `points` (B, T, 4) are x y u v, a match's centres in the
query and in the image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .affine import Array, Limits, determinant, inverse, least_squares

# One frame alone is off far away from it: the first rounds of least squares also draw in what lies outside, up to so
# many thresholds.
WIDE = (3.0, 2.0, 1.0)


def reach(models: Array, threshold: float) -> Array:
    """The threshold in pixels of the second image: where it shows things smaller, as many pixels of the first.

    Without it a hypothesis that shrinks all to a spot had all matches around the spot as inliers.
    """
    det = models[..., 0, 0] * models[..., 1, 1] - models[..., 0, 1] * models[..., 1, 0]
    return threshold * np.sqrt(np.minimum(np.maximum(det, 1e-12), 1.0))


def score(
    models: Array,
    points: NDArray[np.float32],
    weight: NDArray[np.float32],
    threshold: float,
    scratch: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Truncated quadratic score of (B, H, 2, 3) models on (B, T, 4) points, (B, H) float32; larger is better.

    Args:
        scratch: (2, B H T or more): the system would give and take back fresh memory in every call.
    """
    x, y, u, v = np.moveaxis(points, -1, 0)
    one = np.ones_like(x)
    # In thresholds, so that an inlier is off by less than 1.
    rows = np.concatenate([models, np.full((*models.shape[:2], 2, 1), -1.0)], axis=-1)
    rows = (rows / reach(models, threshold)[..., None, None]).astype(np.float32)
    shape = (*models.shape[:2], points.shape[1])
    off, other = scratch[:, : shape[0] * shape[1] * shape[2]].reshape(2, *shape)
    np.matmul(rows[:, :, 0], np.stack([x, y, one, u], axis=1), out=off)
    np.matmul(rows[:, :, 1], np.stack([x, y, one, v], axis=1), out=other)
    np.multiply(off, off, out=off)
    np.multiply(other, other, out=other)
    np.add(off, other, out=off)
    np.subtract(1, off, out=off)
    # max(a, 0) = (a + |a|) / 2, and several times as fast.
    np.abs(off, out=other)
    np.add(off, other, out=off)
    return np.asarray((off @ weight[..., None])[..., 0] / 2)


def errors(models: Array, points: NDArray[np.float32], threshold: float) -> Array:
    """Squared distance over squared threshold of (B, K, 2, 3) models on (B, T, 4) points, (B, K, T)."""
    x, y, u, v = np.moveaxis(points.astype(np.float64), -1, 0)
    one = np.ones_like(x)
    minus = np.full((*models.shape[:2], 1), -1.0)
    off = np.concatenate([models[:, :, 0], minus], axis=-1) @ np.stack([x, y, one, u], axis=1)
    other = np.concatenate([models[:, :, 1], minus], axis=-1) @ np.stack([x, y, one, v], axis=1)
    return np.asarray((off * off + other * other) / reach(models, threshold)[..., None] ** 2)


def refine(
    models: Array,
    points: NDArray[np.float32],
    sums: Array,
    weight: NDArray[np.float32],
    threshold: float,
    rounds: int,
    limits: Limits,
) -> tuple[Array, Array, Array]:
    """Models after weighted least squares over their inliers; a round that scores less is not taken.

    Args:
        models: (B, K, 2, 3).
        points: (B, T, 4).
        sums: (B, T, 12), the matches' `affine.moments`.
        weight: (B, T).
        threshold: pixels.
        rounds: of least squares.
        limits: which transforms are believed; a round that ends outside is not taken either.

    Returns:
        models (B, K, 2, 3), `errors` (B, K, T) of the matches, scores (B, K).
    """
    error = errors(models, points, threshold)
    worth = weight[:, None].astype(np.float64)
    best = (np.maximum(1 - error, 0) * worth).sum(axis=-1)
    now, now_error = models, error
    for round_ in range(rounds):
        wide = WIDE[min(round_, len(WIDE) - 1)] ** 2
        trial = least_squares((np.maximum(1 - now_error / wide, 0) * worth) @ sums)
        fine = limits.allow(trial)
        now = np.where(fine[..., None, None], trial, now)
        now_error = errors(now, points, threshold)
        worth_now = (np.maximum(1 - now_error, 0) * worth).sum(axis=-1)
        better = worth_now > best
        best = np.where(better, worth_now, best)
        models = np.where(better[..., None, None], now, models)
        error = np.where(better[..., None], now_error, error)
    return models, error, best


def agree(hypotheses: Array, models: Array, scale: float, degrees: float) -> NDArray[np.bool_]:
    """Which matches' own hypotheses are turned and scaled like the model, (M, 2, 3) each.

    Args:
        scale: the largest ratio of sizes.
        degrees: the largest angle.
    """
    # What is left when the model is undone: no change of size, no rotation, if they agree.
    rest = hypotheses[:, :, :2] @ inverse(models[:, :, :2])
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.abs(np.log(determinant(rest))) / 2
        turn = np.abs(np.arctan2(rest[:, 1, 0] - rest[:, 0, 1], rest[:, 0, 0] + rest[:, 1, 1]))
        return np.asarray((size <= np.log(scale)) & (turn <= np.deg2rad(degrees)))


def one_to_one(problem: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of the matches that stay when, in the order given, each takes its two features if both are free."""
    left = np.arange(len(problem))
    if not len(left):
        return left
    _, first = np.unique(problem * (int(first.max()) + 1) + first, return_inverse=True)
    _, second = np.unique(problem * (int(second.max()) + 1) + second, return_inverse=True)
    kept = []
    while len(left):
        # Whoever comes first for both of its features takes them; one such is left in every round.
        earliest = [np.full(int(side[left].max()) + 1, len(problem)) for side in (first, second)]
        for side, when in zip((first, second), earliest, strict=True):
            np.minimum.at(when, side[left], left)
        takes = (earliest[0][first[left]] == left) & (earliest[1][second[left]] == left)
        taken = left[takes]
        kept.append(taken)
        free = [np.ones(len(when), bool) for when in earliest]
        free[0][first[taken]] = False
        free[1][second[taken]] = False
        left = left[free[0][first[left]] & free[1][second[left]]]
    return np.sort(np.concatenate(kept))
