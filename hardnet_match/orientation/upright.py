"""No rotation: for photos taken upright."""

from __future__ import annotations

from torch import Tensor

from ..inference import PatchNetwork, check_patches


class Upright(PatchNetwork):
    """Angle 0 for every patch: frames keep the orientation they have."""

    def forward(self, patches: Tensor) -> Tensor:
        check_patches(patches, self.patch_size)
        return patches.new_zeros(patches.shape[0]).float()
