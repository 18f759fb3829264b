"""Losses over a batch of matching descriptors: row i of the anchors belongs to row i of the positives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

DUPLICATE = 0.008
"""Negatives closer than this are taken for the same patch met twice."""
FAR = 10.0


def distance_matrix(anchors: Tensor, positives: Tensor) -> Tensor:
    """(A, B) Euclidean distances of rows (A, D) and (B, D), smoothed at zero so that a gradient exists."""
    squares = anchors.square().sum(1)[:, None] + positives.square().sum(1)[None]
    return (squares - 2 * anchors @ positives.T + 1e-6).clamp(min=1e-12).sqrt() + 1e-8


def hardest_in_batch(
    anchors: Tensor, positives: Tensor, *, anchor_swap: bool = True, ignore: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Distance of each pair, and of the closest negative in the batch.

    Args:
        anchors, positives: (N, D).
        anchor_swap: look among the anchors as well, as seen from the positive.
        ignore: (N, N) bool, pairs that are no negatives although their numbers differ.

    Returns:
        (N,) and (N,) distances.
    """
    distances = distance_matrix(anchors, positives)
    own = torch.eye(len(anchors), device=anchors.device)
    negatives = distances + FAR * own
    negatives = negatives + FAR * (negatives < DUPLICATE).to(negatives.dtype)
    if ignore is not None:
        negatives = negatives + FAR * ignore.to(negatives.dtype)
    closest = negatives.min(dim=1).values
    if anchor_swap:
        closest = torch.minimum(closest, negatives.min(dim=0).values)
    return distances.diagonal(), closest


def hardnet_loss(anchors: Tensor, positives: Tensor, margin: float = 1.0, *, ignore: Tensor | None = None) -> Tensor:
    """Triplet margin with the hardest negative in the batch (Mishchuk et al., NIPS 2017), mean over the batch."""
    positive, negative = hardest_in_batch(anchors, positives, ignore=ignore)
    return (margin + positive - negative).clamp(min=0).mean()


def hard_negative_constant_loss(
    anchors: Tensor, positives: Tensor, margin: float = 1.0, *, ignore: Tensor | None = None
) -> Tensor:
    """The same with the negative distance held constant (HardNegC; Mishkin et al., ECCV 2018).

    The gradient only pulls matching patches together, and only where a negative is within the margin: the shape may
    not buy distance from the negatives by becoming degenerate.
    """
    positive, negative = hardest_in_batch(anchors, positives, ignore=ignore)
    return (margin + positive - negative.detach()).clamp(min=0).mean()


def angle_loss(first: Tensor, second: Tensor, turn: Tensor) -> Tensor:
    """How far two orientations are from differing by a known turn: mean of 1 - cosine of the error.

    Args:
        first, second: (N, 2) vectors (sine, cosine) of any length but zero.
        turn: (N,) radians that the second angle should lie beyond the first.
    """
    first, second = normalize(first, dim=1), normalize(second, dim=1)
    cosine = (first * second).sum(1)
    sine = second[:, 0] * first[:, 1] - second[:, 1] * first[:, 0]
    return (1 - (cosine * turn.cos() + sine * turn.sin())).mean()


def shape_distance(first: Tensor, second: Tensor) -> Tensor:
    """How unlike two ellipses of the same area are: log of half the squared Frobenius norm of first^-1 second, (N,).

    Zero when A A^T is the same; a circle against an ellipse with axes t and 1/t gives log((t^2 + t^-2) / 2).

    Args:
        first, second: (N, 2, 2) of positive determinant.
    """
    relative: Tensor = torch.linalg.solve(first, second)
    area = torch.linalg.det(relative).abs().clamp(min=1e-9)
    unlike: Tensor = relative.square().sum(dim=(1, 2)) / (2 * area)
    return unlike.clamp(min=1.0).log()
