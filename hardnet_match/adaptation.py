"""Frames given a shape and an orientation: the algebra between the networks, in torch."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_AXIS_RATIO = 6.0
"""Frames at least this elongated are dropped, as in AffNet's paper: what they show does not repeat."""

_SURPLUS = 1.05


def with_surplus(wanted: int) -> int:
    """How many frames to detect so that dropping the elongated ones still leaves the number asked for."""
    return int(wanted * _SURPLUS) + 1


def shaped(lafs: Tensor, shapes: Tensor) -> Tensor:
    """Frames (..., 2, 3) with their shapes (..., 2, 2), as patches of them showed it."""
    return torch.cat([lafs[..., :2] @ shapes, lafs[..., 2:]], dim=-1)


def turned(lafs: Tensor, angles: Tensor) -> Tensor:
    """Frames (..., 2, 3) turned by angles (...) in radians: their orientation grows by them."""
    cos, sin = torch.cos(angles), torch.sin(angles)
    return shaped(lafs, torch.stack([cos, sin, -sin, cos], dim=-1).reshape(*angles.shape, 2, 2))


def elongated(axes: Tensor) -> Tensor:
    """(...) bool: which of the axes (..., 2, 2) are too long for their width."""
    # Squared Frobenius norm over determinant = r + 1 / r for the axis ratio r.
    area = torch.linalg.det(axes).abs().clamp(min=torch.finfo(axes.dtype).tiny)
    spread = axes.square().sum(dim=(-2, -1)) / area
    return torch.ge(spread, MAX_AXIS_RATIO + 1 / MAX_AXIS_RATIO)
