"""OriNet: the orientation of a patch, learned so that descriptors match."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..inference import PatchNetwork, check_patches, standardise
from ..l2net import orthogonal_, trunk


class OriNet(PatchNetwork):
    """OriNet (Mishkin, Radenovic, Matas: Repeatability Is Not Enough, ECCV 2018; its companion network).

    Patches (N, 1, 32, 32) to angles (N,) float32 in radians. A frame A whose patch gave the angle t becomes
    `A @ [[cos t, sin t], [-sin t, cos t]]`: its orientation grows by t (kornia's `rotate_laf`), so the angle turns
    with the content, counter-clockwise on the screen being positive. State dict names are those of ducha-aiki/affnet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *trunk((16, 32, 64)), nn.Dropout(0.25), nn.Conv2d(64, 2, 8, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(1)
        )
        orthogonal_(self.features, 0.8)

    def vectors(self, patches: Tensor) -> Tensor:
        """(N, 2) before the angle is taken: (sine, cosine) of the angle, times a confidence."""
        check_patches(patches, self.patch_size)
        return self.features(standardise(patches)).flatten(1).float()  # type: ignore[no-any-return]

    def forward(self, patches: Tensor) -> Tensor:
        sine, cosine = self.vectors(patches).unbind(1)
        return torch.atan2(sine + 1e-8, cosine + 1e-8)
