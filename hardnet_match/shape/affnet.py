"""AffNet: the affine shape of a patch, learned so that descriptors match."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..inference import PatchNetwork, check_patches, standardise
from ..l2net import orthogonal_, trunk

MIN_DIAGONAL = 1e-3
"""Shapes flatter than this are no shape: the network's tanh has run to its end, and the identity stands in."""


def unit_shape(raw: Tensor) -> Tensor:
    """(N, 3) numbers x0, x1, x2 to [[1 + x0, 0], [x1, 1 + x2]] divided by the root of its determinant, (N, 2, 2).

    Where a diagonal entry is below `MIN_DIAGONAL` or not finite, the identity.
    """
    a11, a21, a22 = 1 + raw[:, 0], raw[:, 1], 1 + raw[:, 2]
    good = (a11 > MIN_DIAGONAL) & (a22 > MIN_DIAGONAL) & a21.isfinite()
    a11, a22 = torch.where(good, a11, 1.0), torch.where(good, a22, 1.0)
    a21 = torch.where(good, a21, 0.0)
    scale = (a11 * a22).rsqrt()
    zero = torch.zeros_like(a11)
    return torch.stack([a11 * scale, zero, a21 * scale, a22 * scale], dim=1).reshape(-1, 2, 2)


class AffNet(PatchNetwork):
    """AffNet (Mishkin, Radenovic, Matas: Repeatability Is Not Enough, ECCV 2018).

    Patches (N, 1, 32, 32) to (N, 2, 2) float32 shapes S, lower triangular with a positive diagonal (up stays up) and
    unit determinant. The patch must be sampled through the **upright** form U of its frame A = U R (U lower
    triangular with positive diagonal, R = [[cos, sin], [-sin, cos]] of the frame's orientation). The adapted frame is
    `U @ S` (upright again, same area), or `U @ S @ R` to keep the orientation. State dict names are those of
    ducha-aiki/affnet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *trunk((16, 32, 64)), nn.Dropout(0.25), nn.Conv2d(64, 3, 8), nn.Tanh(), nn.AdaptiveAvgPool2d(1)
        )
        orthogonal_(self.features, 0.8)

    def forward(self, patches: Tensor) -> Tensor:
        check_patches(patches, self.patch_size)
        return unit_shape(self.features(standardise(patches)).flatten(1).float())
