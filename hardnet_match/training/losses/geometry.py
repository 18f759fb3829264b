"""Losses over what shape and orientation networks say."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


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
