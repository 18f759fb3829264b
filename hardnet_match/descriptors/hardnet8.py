"""HardNet8: a deeper and wider HardNet, with or without a projection to fewer dimensions."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..errors import DataError
from ..inference import check_patches, standardise
from ..l2net import convolution_block, orthogonal_, trunk
from .base import DescriptorNetwork


class HardNet8(DescriptorNetwork):
    """HardNet8 (Pultar: Improving the HardNet Descriptor, 2020).

    Patches (N, 1, 32, 32) to unit vectors (N, `dim`). State dict names are those of pultarmi/HardNet_MultiDataset;
    with a projection, buffers `components` (width, dim) and `mean` (width,) as in kornia's file.

    Args:
        width: channels of the last layer: 256 (the original's `h8`) or 512 (`h8E512`).
        projection: dimensions after the PCA; None for the `width`-dimensional descriptor itself.
    """

    def __init__(self, width: int = 512, projection: int | None = 128) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *trunk(),
            *convolution_block(128, 256),
            nn.Dropout(0.3),
            nn.Conv2d(256, width, 8, bias=False),
            nn.BatchNorm2d(width, affine=False),
        )
        orthogonal_(self.features, 0.6)
        self.width = width
        self.reserve(projection)

    @classmethod
    def for_state_dict(cls, state: Mapping[str, Tensor]) -> HardNet8:
        """An instance of the form (width, projection or not) that the given state dict fits; it is not loaded.

        Raises:
            DataError: it is no state dict of a HardNet8.
        """
        last = state.get("features.22.weight")
        if last is None or last.ndim != 4 or last.shape[1] != 256:
            raise DataError("not a HardNet8 state dict: features.22.weight with 256 input channels is missing")
        components = state.get("components")
        return cls(int(last.shape[0]), None if components is None else int(components.shape[1]))

    def forward(self, patches: Tensor) -> Tensor:
        check_patches(patches, self.patch_size)
        return self._finished(self.features(standardise(patches, 1e-7)))
