"""Distances within a batch of matching descriptors, and which of its negatives a loss looks at.

Row i of the anchors belongs to row i of the positives; all other rows of the batch are negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor

DUPLICATE = 0.008
"""Negatives closer than this are taken for the same patch met twice."""
FAR = 10.0
"""Added to the distance of a pair that is no negative, beyond the reach of any margin."""
SMOOTH = 1e-6
"""Under the square root of a distance, so that a gradient exists where two descriptors are equal."""


def distance_matrix(anchors: Tensor, positives: Tensor) -> Tensor:
    """(A, B) Euclidean distances of rows (A, D) and (B, D), smoothed at zero so that a gradient exists."""
    squares = anchors.square().sum(1)[:, None] + positives.square().sum(1)[None]
    return (squares - 2 * anchors @ positives.T + SMOOTH).clamp(min=1e-12).sqrt() + 1e-8


def pair_distance(anchors: Tensor, positives: Tensor, smooth: float = SMOOTH) -> Tensor:
    """(N,) Euclidean distances of rows (N, D) to each other's, smoothed at zero."""
    return ((anchors - positives).square().sum(1) + smooth).sqrt()


def no_negatives(label: Tensor, same: Tensor | None) -> Tensor:
    """(N, N) bool: own pairs, others of one label, and those that show the same place."""
    out = label[:, None] == label[None]
    return out if same is None else out | same


def negatives_of(distances: Tensor, excluded: Tensor) -> Tensor:
    """The distances with `FAR` added where a pair is no negative: excluded, or a duplicate by its distance."""
    pushed = distances + FAR * excluded.to(distances.dtype)
    return pushed + FAR * (pushed < DUPLICATE).to(distances.dtype)


def hardest(negatives: Tensor, *, anchor_swap: bool = True) -> Tensor:
    """(N,) least distance of every row of (N, N), and of every column where the anchor may be swapped."""
    closest = negatives.min(dim=1).values
    return torch.minimum(closest, negatives.min(dim=0).values) if anchor_swap else closest


def random_of_batch(negatives: Tensor, *, anchor_swap: bool, generator: torch.Generator | None) -> Tensor:
    """(N,) one negative each, by a random cycle through the batch: never the own pair, every other equally often."""
    count = len(negatives)
    where = negatives.device if generator is None else generator.device
    order = torch.randperm(count, generator=generator, device=where).to(negatives.device)
    partner = torch.empty_like(order)
    partner[order] = order.roll(-1)
    rows = torch.arange(count, device=negatives.device)
    chosen = negatives[rows, partner]
    return torch.minimum(chosen, negatives[partner, rows]) if anchor_swap else chosen


def hardest_of_all(anchors: Tensor, positives: Tensor, excluded: Tensor) -> Tensor:
    """(N,) closest negative of every pair among anchors and positives, seen from either (SOSNet's mining)."""
    both = negatives_of(distance_matrix(anchors, positives), excluded)
    either = excluded | excluded.T
    one, other = (negatives_of(distance_matrix(rows, rows), either) for rows in (anchors, positives))
    return torch.stack([hardest(both), one.min(dim=1).values, other.min(dim=1).values]).min(dim=0).values
