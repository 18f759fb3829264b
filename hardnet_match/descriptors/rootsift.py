"""RootSIFT of a patch: the classic descriptor, for comparison and where no weights are wanted."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..gradients import central_difference, gaussian_window
from ..inference import PatchNetwork, check_patches

ANGLES = 8
CELLS = 4
CLIP = 0.2


def _cell_weights(size: int) -> Tensor:
    """(CELLS, size): how much each pixel counts for each cell along one axis; overlapping triangles."""
    stride = size // CELLS
    width = 2 * (size // (CELLS + 1))
    width += (width - size + (CELLS - 1) * stride) % 2  # so that the grid stands on the patch's centre
    centres = (size - 1) / 2 + (torch.arange(CELLS) - (CELLS - 1) / 2) * stride
    distance = (torch.arange(size)[None] - centres[:, None]).abs()
    return (width / 2 - distance).clamp(min=0) / (width / 2)


class RootSIFT(PatchNetwork):
    """SIFT (Lowe, IJCV 2004) with the square root of Arandjelović and Zisserman (CVPR 2012).

    Patches (N, 1, 32, 32) to unit vectors (N, 128): eight angles, each 4x4 cells (angle-major). A flat patch gives
    almost zeros. The patch is taken as already oriented.
    """

    dim = ANGLES * CELLS * CELLS
    window: Tensor
    cells: Tensor

    def __init__(self) -> None:
        super().__init__()
        size = self.patch_size
        self.register_buffer("window", gaussian_window(size, size / math.sqrt(2)), persistent=False)
        self.register_buffer("cells", _cell_weights(size), persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        check_patches(patches, self.patch_size)
        gx, gy = central_difference(patches.float())
        energy = gx.square() + gy.square()
        magnitude = torch.where(energy > 0, (energy + 1e-10).sqrt(), 0.0) * self.window
        position = (torch.atan2(gy, gx + 1e-10) / (2 * math.pi) * ANGLES) % ANGLES
        lower = position.floor()
        upper_share = position - lower
        lower_bin = lower.long() % ANGLES
        votes = patches.new_zeros((patches.shape[0], ANGLES, self.patch_size, self.patch_size), dtype=torch.float32)
        votes.scatter_add_(1, lower_bin[:, None], ((1 - upper_share) * magnitude)[:, None])
        votes.scatter_add_(1, ((lower_bin + 1) % ANGLES)[:, None], (upper_share * magnitude)[:, None])
        histogram = (self.cells @ votes @ self.cells.T).flatten(1)
        histogram = normalize(normalize(histogram, dim=1).clamp(0.0, CLIP), dim=1)
        return (normalize(histogram, p=1, dim=1) + 1e-10).sqrt()
