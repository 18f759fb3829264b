"""How well descriptors tell matching patches from others."""

from __future__ import annotations

import torch
from torch import Tensor


def fpr95(positive: Tensor, negative: Tensor) -> float:
    """Share of negative distances below the threshold that keeps 95 % of the positive ones (Brown et al., 2011)."""
    index = max(int(-(-95 * len(positive) // 100)) - 1, 0)
    threshold = positive.sort().values[index]
    return float((negative <= threshold).double().mean())


def pair_figures(anchors: Tensor, positives: Tensor, ignore: Tensor | None = None) -> dict[str, float]:
    """FPR95 over all other rows as negatives, and how often the own row is the nearest (rank 1).

    Args:
        anchors, positives: (N, D) descriptors.
        ignore: (N, N) bool, pairs that are no negatives.

    Returns:
        `fpr95` and `rank1`, both in [0, 1].
    """
    distances = torch.cdist(anchors.double(), positives.double())
    own = torch.eye(len(anchors), dtype=torch.bool)
    skip = own if ignore is None else own | ignore
    others = distances.masked_fill(skip, float("inf"))
    first = (distances.diagonal() < others.min(dim=1).values).double().mean()
    return {"fpr95": fpr95(distances.diagonal(), distances[~skip]), "rank1": float(first)}
