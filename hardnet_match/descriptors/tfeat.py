"""TFeat: a shallow descriptor, fast and not normalised."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from ..inference import PatchNetwork, check_patches


class TFeat(PatchNetwork):
    """TFeat (Balntas, Riba, Ponsa, Mikolajczyk: Learning local feature descriptors with triplets, BMVC 2016).

    Patches (N, 1, 32, 32) to (N, 128) in [-1, 1], **not** unit vectors. State dict names are those of vbalnt/tfeat.
    Its instance normalisation adds 1e-5 to the variance of a patch in [0, 1].
    """

    dim = 128

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.InstanceNorm2d(1, affine=False),
            nn.Conv2d(1, 32, 7),
            nn.Tanh(),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(32, 64, 6),
            nn.Tanh(),
        )
        self.descr = nn.Sequential(nn.Linear(64 * 8 * 8, 128), nn.Tanh())

    def forward(self, patches: Tensor) -> Tensor:
        check_patches(patches, self.patch_size)
        return cast(Tensor, self.descr(self.features(patches.float()).flatten(1)))
