"""Losses over pairs of matching descriptors: triplet margin, softmax, contrastive, L2-Net's, HardNegC."""

from __future__ import annotations

import torch
from torch import Tensor

from .mining import distance_matrix, hardest, negatives_of

KINDS = ("triplet_margin", "softmax", "contrastive", "quadratic_hinge")


def compare(kind: str, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """What a positive and a negative distance cost, element by element.

    Args:
        kind: `triplet_margin` max(0, m + p - n); `softmax` -log(e^(2-p) / (e^(2-p) + e^(2-n))); `contrastive`
            max(0, m - n) + p; `quadratic_hinge` max(0, m + p - n)^2 (SOSNet's first-order part).
        positive, negative: distances of one shape, or shapes that broadcast.
        margin: m; no part of the softmax.
    """
    if kind == "softmax":
        # the same as above, but nothing overflows
        return torch.nn.functional.softplus(positive - negative)
    if kind == "contrastive":
        return (margin - negative).clamp(min=0) + positive
    hinge = (margin + positive - negative).clamp(min=0)
    return hinge.square() if kind == "quadratic_hinge" else hinge


def average(
    kind: str, positive: Tensor, negatives: Tensor, counted: Tensor, margin: float, *, anchor_swap: bool
) -> Tensor:
    """Mean over all pairs of a positive with one of its negatives in the batch.

    Args:
        kind, margin: see `compare`.
        positive: (N,) distances.
        negatives: (N, N) distances.
        counted: (N, N) bool, which of them are negatives.
        anchor_swap: of the distances (i, j) and (j, i), take the smaller one, or the one that is of a negative.
    """
    if anchor_swap:
        negatives = torch.minimum(negatives, negatives.T)
        counted = counted | counted.T
    cost = compare(kind, positive[:, None], negatives, margin)
    return (cost * counted).sum() / counted.sum().clamp(min=1)


def l2net_loss(
    anchors: Tensor, positives: Tensor, *, anchor_swap: bool = True, excluded: Tensor | None = None
) -> Tensor:
    """L2-Net's relative loss (Tian et al., CVPR 2017): each row of exp(2 - distance) is to be all on its diagonal.

    Args:
        anchors, positives: (N, D).
        anchor_swap: the columns likewise; both are added.
        excluded: (N, N) bool; what is neither the own pair nor a negative.
    """
    closeness = 2 - distance_matrix(anchors, positives)
    if excluded is not None:
        closeness = closeness.masked_fill(excluded & ~_own(anchors), float("-inf"))
    loss = closeness.logsumexp(dim=1) - closeness.diagonal()
    if anchor_swap:
        loss = loss + closeness.logsumexp(dim=0) - closeness.diagonal()
    return loss.mean()


def constant_negative_loss(
    anchors: Tensor, positives: Tensor, margin: float = 1.0, *, excluded: Tensor | None = None
) -> Tensor:
    """Triplet margin with the hardest negative's distance held constant: a stricter relative of HardNegC.

    The gradient only pulls matching patches together, and only where a negative is within the margin: the shape may
    not buy distance from the negatives by becoming degenerate.

    Args:
        anchors, positives: (N, D).
        margin: of the hinge.
        excluded: (N, N) bool, pairs that are no negatives; the own pairs when None.
    """
    distances = distance_matrix(anchors, positives)
    negative = hardest(negatives_of(distances.detach(), _own(anchors) if excluded is None else excluded))
    return (margin + distances.diagonal() - negative).clamp(min=0).mean()


def hardnegc_loss(anchors: Tensor, positives: Tensor, margin: float = 1.0, *, excluded: Tensor | None = None) -> Tensor:
    """AffNet's hard-negative-constant loss (Mishkin et al., ECCV 2018): the negative descriptor gets no gradient.

    Half is the mean hinge of every anchor with its closest positive of another pair, that one held constant; the
    other half that of every positive with its closest anchor. The distance itself still pushes its own side away.

    Args:
        anchors, positives: (N, D).
        margin: of the hinge.
        excluded: (N, N) bool, pairs that are no negatives; the own pairs when None.
    """
    distances = distance_matrix(anchors, positives)
    positive = distances.diagonal()
    excluded = _own(anchors) if excluded is None else excluded
    by_anchor = negatives_of(distance_matrix(anchors, positives.detach()), excluded)
    by_positive = negatives_of(distance_matrix(anchors.detach(), positives), excluded)
    halves = [
        (margin + positive - hardest(negatives, anchor_swap=False)).clamp(min=0).mean()
        for negatives in (by_anchor, by_positive.T)
    ]
    return (halves[0] + halves[1]) / 2


def _own(rows: Tensor) -> Tensor:
    return torch.eye(len(rows), dtype=torch.bool, device=rows.device)
