"""HardNetPS: HardNet's trunk as trained on the PhotoSynth set (third-party weights in DagnyT/hardnet)."""

from __future__ import annotations

from torch import Tensor, nn

from ..inference import check_patches, standardise
from ..l2net import orthogonal_, trunk
from .base import DescriptorNetwork


class HardNetPS(DescriptorNetwork):
    """HardNetPS (Mitra et al.: A Large Dataset for Improving Patch Matching, 2018).

    Patches (N, 1, 32, 32) to unit vectors (N, 128). As HardNet, but convolutions have a bias, BatchNorm a gain and
    shift, and the last convolution stands at index 18 with no BatchNorm after it.
    """

    def __init__(self, projection: int | None = None) -> None:
        super().__init__()
        self.features = nn.Sequential(*trunk(plain=False), nn.Conv2d(128, 128, 8))
        orthogonal_(self.features, 0.6)
        self.reserve(projection)

    def forward(self, patches: Tensor) -> Tensor:
        check_patches(patches, self.patch_size)
        return self._finished(self.features(standardise(patches, 1e-7)))
