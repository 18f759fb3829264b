"""HardNetPS: HardNet's trunk as trained on the PhotoSynth set (third-party weights in DagnyT/hardnet)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import normalize

from ..inference import PatchNetwork, check_patches, standardise
from ..l2net import orthogonal_, trunk


class HardNetPS(PatchNetwork):
    """HardNetPS (Mitra et al.: A Large Dataset for Improving Patch Matching, 2018).

    Patches (N, 1, 32, 32) to unit vectors (N, 128). As HardNet, but convolutions have a bias, BatchNorm a gain and
    shift, and the last convolution stands at index 18 with no BatchNorm after it.
    """

    dim = 128

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*trunk(plain=False), nn.Conv2d(128, 128, 8))
        orthogonal_(self.features, 0.6)

    def forward(self, patches: Tensor) -> Tensor:
        check_patches(patches, self.patch_size)
        return normalize(self.features(standardise(patches, 1e-7)).flatten(1).float(), dim=1)
