"""HardNet: 128-dimensional descriptor of a patch."""

from __future__ import annotations

from torch import Tensor, nn

from ..inference import check_patches, standardise
from ..l2net import orthogonal_, trunk
from .base import DescriptorNetwork


class HardNet(DescriptorNetwork):
    """HardNet (Mishchuk, Mishkin, Radenovic, Matas: Working hard to know your neighbor's margins, NIPS 2017).

    Patches (N, 1, 32, 32) to unit vectors (N, 128). The state dict has the names of DagnyT/hardnet, so its
    checkpoints (and kornia's mirror of them) load as they are. Brightness and contrast of a patch do not matter:
    each is standardised first.

    Args:
        projection: dimensions after a PCA (see `DescriptorNetwork.project`); None for the 128 themselves.
    """

    def __init__(self, projection: int | None = None) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *trunk(), nn.Dropout(0.3), nn.Conv2d(128, 128, 8, bias=False), nn.BatchNorm2d(128, affine=False)
        )
        orthogonal_(self.features, 0.6)
        self.reserve(projection)

    def forward(self, patches: Tensor) -> Tensor:
        check_patches(patches, self.patch_size)
        return self._finished(self.features(standardise(patches)))
