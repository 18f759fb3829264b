"""What is added to a loss so that descriptors spread out and keep their neighbourhoods."""

from __future__ import annotations

import torch
from torch import Tensor

from .mining import SMOOTH, distance_matrix


def global_orthogonal(anchors: Tensor, negatives: Tensor) -> Tensor:
    """GOR (Zhang et al., ICCV 2017): descriptors of pairs that do not match should be as random directions are.

    With s the products of rows: mean(s)^2 + max(0, mean(s^2) - 1/D).

    Args:
        anchors, negatives: (N, D); row by row of different labels.
    """
    product = (anchors * negatives).sum(1)
    return product.mean().square() + (product.square().mean() - 1 / anchors.shape[1]).clamp(min=0)


def correlation_penalty(descriptors: Tensor) -> Tensor:
    """L2-Net's penalty on correlated dimensions: Frobenius norm of the covariance off its diagonal.

    Args:
        descriptors: (N, D); their mean is taken off first.
    """
    centred = descriptors - descriptors.mean(0)
    covariance = centred.T @ centred
    off = covariance - torch.diag(covariance.diagonal())
    return (off.square().sum() + 1e-12).sqrt() / len(descriptors)


def second_order(anchors: Tensor, positives: Tensor, neighbours: int = 8, *, excluded: Tensor | None = None) -> Tensor:
    """Second-order similarity (SOSNet; Tian et al., CVPR 2019): both views of a label see its neighbours alike.

    Of every pair i, over those j that are among the nearest `neighbours` of i by the anchors or by the positives:
    sqrt(sum (|a_i - a_j| - |p_i - p_j|)^2). The mean over i.

    Args:
        anchors, positives: (N, D).
        neighbours: K; at most N - 1 are used.
        excluded: (N, N) bool, pairs that are not looked at besides the own ones.
    """
    count = len(anchors)
    own = torch.eye(count, dtype=torch.bool, device=anchors.device)
    barred = own if excluded is None else own | excluded
    of_anchors, of_positives = distance_matrix(anchors, anchors), distance_matrix(positives, positives)
    with torch.no_grad():
        near = torch.zeros_like(own)
        for distances in (of_anchors, of_positives):
            hidden = distances.masked_fill(barred, float("inf"))
            nearest = hidden.topk(min(neighbours, count - 1), dim=1, largest=False).indices
            near.scatter_(1, nearest, True)
        near &= ~barred
    square = ((of_anchors - of_positives).square() * near).sum(1)
    return (square + SMOOTH).sqrt().mean()
