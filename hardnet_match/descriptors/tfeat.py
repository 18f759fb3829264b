"""TFeat: a shallow descriptor, fast and not normalised."""

from __future__ import annotations

from torch import Tensor, nn

from ..inference import check_patches
from .base import DescriptorNetwork


class TFeat(DescriptorNetwork):
    """TFeat (Balntas, Riba, Ponsa, Mikolajczyk: Learning local feature descriptors with triplets, BMVC 2016).

    Patches (N, 1, 32, 32) to (N, 128) in [-1, 1], **not** unit vectors. State dict names are those of vbalnt/tfeat.
    Its instance normalisation adds 1e-5 to the variance of a patch in [0, 1].
    """

    unit = False

    def __init__(self, projection: int | None = None) -> None:
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
        self.reserve(projection)

    def forward(self, patches: Tensor) -> Tensor:
        check_patches(patches, self.patch_size)
        return self._finished(self.descr(self.features(patches.float()).flatten(1)))
