"""Losses over any number of descriptors a label."""

from __future__ import annotations

import torch
from torch import Tensor

from .mining import DUPLICATE, pair_distance


def triplet_margin_tuples(
    descriptors: Tensor, label: Tensor, margin: float = 1.0, *, same: Tensor | None = None
) -> Tensor:
    """tripletMargin++ of HardNet8 (Pultar et al., 2020): of every label its worst positive and its worst negative.

    Every descriptor finds its farthest one of the same label, and its closest one of another. Of each label, the
    largest of the former distances, a, and the smallest of the latter, b, give clamp(margin + a - b, 0). Who belongs
    to whom is found without gradient. Pairs closer than 0.008 are duplicates and no negatives.

    Args:
        descriptors: (N, D).
        label: (N,) integers; any number of rows may share one.
        margin: added to the difference.
        same: (N, N) bool, pairs that are no negatives although their labels differ.

    Returns:
        The mean over labels. A label with one descriptor has a positive distance of zero; one without any negative
        counts nothing.
    """
    with torch.no_grad():
        distances = torch.cdist(descriptors, descriptors, compute_mode="use_mm_for_euclid_dist")
        positive = label[:, None] == label[None]
        # the own distance is zero by definition, whatever the product of matrices rounds it to
        farthest, partner = distances.fill_diagonal_(0).masked_fill(~positive, -1).max(dim=1)
        barred = positive | (distances <= DUPLICATE)
        if same is not None:
            barred = barred | same
        closest, rival = distances.masked_fill(barred, float("inf")).min(dim=1)
        _, group = torch.unique(label, return_inverse=True)
        groups = int(group.max()) + 1
        one, other = _extreme(farthest, group, groups, largest=True), _extreme(closest, group, groups, largest=False)
        real = closest[other].isfinite()
    a = pair_distance(descriptors[one], descriptors[partner[one]])
    b = pair_distance(descriptors[other], descriptors[rival[other]])
    return torch.where(real, (margin + a - b).clamp(min=0), 0).mean()


def _extreme(values: Tensor, group: Tensor, groups: int, *, largest: bool) -> Tensor:
    """(groups,) row of the first largest or smallest value of every group."""
    order = values.argsort(stable=True, descending=largest)
    # the rank of the best row of each group
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    best = torch.full((groups,), len(order), device=order.device, dtype=order.dtype)
    best = best.scatter_reduce(0, group, rank, "amin")
    return order[best]
