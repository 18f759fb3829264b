"""What looks at frames in an image: affine shape, orientation and descriptor with kornia's signatures.

Images are (B, 1 or 3, H, W) in [0, 1] (3 is RGB, turned grey by Rec. 709 as everywhere in this package), frames (B, N,
2, 3) in pixels. Patches are those of kornia's `extract_patches_from_pyramid`. Gradients reach the image, the frames and
the weights; a slot that no feature fills (a zero frame) stays one.
"""

from __future__ import annotations

import torch
from kornia.feature import get_laf_orientation, make_upright, set_laf_orientation
from torch import Tensor, nn

from ...adaptation import shaped, turned
from ...inference import CPU_TILE, GPU_TILE
from ...parts import open_part
from ...patches import extract_patches
from ...pyramid import as_image, patch_pyramid


class _OverFrames(nn.Module):
    """A network over the patches of frames.

    Args:
        name: of this package's networks, or a plugin's.
        weights: a registered name or a file, instead of its own.
    """

    part = ""

    def __init__(self, name: str, weights: str | None = None) -> None:
        super().__init__()
        self.network = open_part(self.part, name, weights).module

    def _run(self, lafs: Tensor, img: Tensor) -> Tensor:
        """The network's output for every frame of every image, (B * N, ...)."""
        if getattr(self.network, "of_frames", False):  # a plugin's that looks at frames in an image itself
            images = [as_image(image[None], image.device) for image in img]
            return torch.cat([self.network(image, frames) for image, frames in zip(images, lafs, strict=True)])
        size = int(getattr(self.network, "patch_size", 32))
        images = [as_image(image[None], image.device) for image in img]
        patches = torch.cat(
            [extract_patches(patch_pyramid(image), frames, size) for image, frames in zip(images, lafs, strict=True)]
        )
        if not len(patches):
            return self._call(patches.new_zeros(CPU_TILE, 1, size, size))[:0]
        # Statistics over a batch must be over all of it; else in tiles, for the sake of memory and caches.
        tile = len(patches) if self.network.training else CPU_TILE if patches.device.type == "cpu" else GPU_TILE
        return torch.cat([self._call(part) for part in torch.split(patches, tile)])

    def _call(self, patches: Tensor) -> Tensor:
        out: Tensor = self.network(patches)
        return out


class AffineShape(_OverFrames):
    """Affine shape of frames; centre, area and orientation stay.

    Args:
        name: `affnet` or `baumberg`. weights: as everywhere.
    """

    part = "shape"

    def __init__(self, name: str = "affnet", weights: str | None = None) -> None:
        super().__init__(name, weights)

    def forward(self, laf: Tensor, img: Tensor) -> Tensor:
        filled, safe = _safe(laf)
        upright = make_upright(safe)
        shapes = self._run(upright, img).reshape(*laf.shape[:2], 2, 2)
        affine = set_laf_orientation(shaped(upright, shapes), get_laf_orientation(safe))
        return torch.where(filled, affine, laf)


class Orientation(_OverFrames):
    """Frames turned by the orientation of their patches.

    Args:
        name: `dominant` or `orinet`. weights: as everywhere.
    """

    part = "orientation"

    def __init__(self, name: str = "dominant", weights: str | None = None) -> None:
        super().__init__(name, weights)

    def forward(self, laf: Tensor, img: Tensor) -> Tensor:
        filled, safe = _safe(laf)
        angles = self._run(safe, img).reshape(laf.shape[:2])
        return torch.where(filled, turned(safe, angles), laf)


class Descriptor(_OverFrames):
    """Descriptors (B, N, D) of frames, float32.

    Args:
        name: `hardnet`, `hardnet8`, `rootsift`, ... weights: as everywhere.
    """

    part = "descriptor"

    def __init__(self, name: str = "hardnet", weights: str | None = None) -> None:
        super().__init__(name, weights)

    def forward(self, img: Tensor, lafs: Tensor) -> Tensor:
        rows = self._run(_safe(lafs)[1], img)
        return rows.reshape(*lafs.shape[:2], rows.shape[-1])


def _safe(lafs: Tensor) -> tuple[Tensor, Tensor]:
    """Which slots are filled, (B, N, 1, 1); and the frames as float32 with a unit frame in the others: zero areas have
    no gradients."""
    lafs = lafs.float()
    filled = (lafs != 0).flatten(-2).any(dim=-1)[..., None, None]
    unit = torch.eye(2, 3, device=lafs.device)
    return filled, torch.where(filled, lafs, unit)
