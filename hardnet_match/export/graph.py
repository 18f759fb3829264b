"""What is exported: an inference copy of a network, and the same behind the extraction of its patches.

`PatchSampler` is `patches.extract_patches` and `pyramid.patch_pyramid` as one graph without branches: no level of the
pyramid, and no list of the frames that belong to it, depends on the image's size or content as Python sees it. All
levels lie behind one another in one row of numbers; a frame's level decides where in the row it reads.
"""

# no `from __future__ import annotations`: torch.jit.script wants the classes' annotations as types, not as text

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..inference import PatchNetwork

LEVELS = 8
"""Levels of the pyramid in an exported graph: images up to 8,191 pixels on their shorter side have no more. In larger
ones, frames of more than 4,096 pixels from centre to edge would be read from a ninth; here the eighth serves."""

_TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


class HalfLayers(nn.Module):
    """Layers that compute in float16, float32 outside."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers.half()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x.half()).float()
        return out


def for_export(network: PatchNetwork, *, half: bool = False) -> PatchNetwork:
    """An inference copy for a graph: BatchNorm folded, weights in plain order; `half`: layers in float16.

    Patches, and what is computed outside the layers (standardisation, normalisation, projection), stay float32.
    """
    out = network.fused().cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for name, child in list(out.named_children()):
        if half and isinstance(child, nn.Sequential):
            setattr(out, name, HalfLayers(child))
    exported: PatchNetwork = out
    return exported


class PatchSampler(nn.Module):
    """Image and frames to patches, as `patches.extract_patches(patch_pyramid(image), lafs)`.

    Call: image (1, 1, H, W) float32, lafs (N, 2, 3) float32 in its pixels; gives (N, 1, P, P).
    """

    taps: Tensor
    steps: Tensor
    thresholds: Tensor

    def __init__(self, patch_size: int = 32, levels: int = LEVELS) -> None:
        super().__init__()
        self.patch_size, self.levels = patch_size, levels
        self.register_buffer("taps", torch.tensor(_TAPS), persistent=False)
        self.register_buffer("steps", (2 * torch.arange(patch_size) + 1) / patch_size - 1, persistent=False)
        # |det| of the frame from which a level serves: (2 s / P) = 2^level
        powers = (patch_size / 2) ** 2 * 4.0 ** torch.arange(1, levels, dtype=torch.float64)
        self.register_buffer("thresholds", powers, persistent=False)

    def forward(self, image: Tensor, lafs: Tensor) -> Tensor:
        rows, sizes = self._levels(image), self._sizes(image)
        offsets = torch.cumsum(sizes[:, 0] * sizes[:, 1], 0) - sizes[:, 0] * sizes[:, 1]
        level = self._level(lafs, sizes)
        height, width, offset = sizes[level, 0], sizes[level, 1], offsets[level]
        # from pixels of the image to those of the level, whose sides are rounded down
        ratio = torch.stack([width, height], 1).float() / sizes[0].flip(0).float()
        frames = torch.cat([lafs[:, :, :2], lafs[:, :, 2:] + 0.5], dim=2) * ratio[:, :, None]
        across = frames[:, :, None, None, 0] * self.steps[None, None, None, :]
        down = frames[:, :, None, None, 1] * self.steps[None, None, :, None]
        at = across + down + (frames[:, :, None, None, 2] - 0.5)
        limit = torch.stack([width, height], 1)[:, :, None, None] - 1
        at = torch.minimum(at.clamp(min=0), limit.float())
        low = at.floor()
        share = at - low
        first = low.long()
        second = torch.minimum(first + 1, limit)
        start, stride = offset[:, None, None], width[:, None, None]
        top, bottom = start + first[:, 1] * stride, start + second[:, 1] * stride
        x, y = share[:, 0], share[:, 1]
        upper = rows[top + first[:, 0]] * (1 - x) + rows[top + second[:, 0]] * x
        lower = rows[bottom + first[:, 0]] * (1 - x) + rows[bottom + second[:, 0]] * x
        return (upper * (1 - y) + lower * y)[:, None]

    def _levels(self, image: Tensor) -> Tensor:
        """All levels in one row, each row after row."""
        rows = [image.flatten()]
        for _ in range(self.levels - 1):
            padded = F.pad(image, (2, 2, 2, 2), mode="reflect")
            blurred = F.conv2d(F.conv2d(padded, self.taps.view(1, 1, 1, 5)), self.taps.view(1, 1, 5, 1))
            size = (max(image.shape[2] // 2, 3), max(image.shape[3] // 2, 3))
            image = F.interpolate(blurred, size=size, mode="bilinear", align_corners=False)
            rows.append(image.flatten())
        return torch.cat(rows)

    def _sizes(self, image: Tensor) -> Tensor:
        """(levels, 2) int64: height and width of each level.

        Levels that are too small to be used still stand in the graph, never smaller than the blur needs.
        """
        height, width = image.shape[2], image.shape[3]
        sizes = [torch.tensor([height, width])]
        for _ in range(self.levels - 1):
            height, width = max(height // 2, 3), max(width // 2, 3)
            sizes.append(torch.tensor([height, width]))
        return torch.stack(sizes)

    def _level(self, lafs: Tensor, sizes: Tensor) -> Tensor:
        """(N,) the level each frame is sampled from: floor(log2(2 s / P)), among those that hold a patch."""
        a = lafs.double()
        determinant = (a[:, 0, 0] * a[:, 1, 1] - a[:, 0, 1] * a[:, 1, 0]).abs()
        level = (determinant[:, None] >= self.thresholds).sum(1)
        last = (sizes.amin(1)[1:] >= self.patch_size).sum()
        return torch.minimum(level, last)


class DescribePatches(nn.Module):
    """Patches (N, 1, P, P) to what the network gives; a wrong shape is told even where the network is a bare graph."""

    def __init__(self, network: nn.Module, patch_size: int = 32) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.network = network

    def forward(self, patches: Tensor) -> Tensor:
        if patches.dim() != 4 or patches.size(1) != 1 or patches.size(2) != self.patch_size:
            raise ValueError("patches must be (N, 1, P, P) float32 with the network's P (32)")
        out: Tensor = self.network(patches)
        return out


class DescribeFrames(nn.Module):
    """Image (1, 1, H, W) and frames (N, 2, 3) to what the network gives for the frames' patches."""

    def __init__(self, network: nn.Module, patch_size: int = 32, levels: int = LEVELS) -> None:
        super().__init__()
        self.sampler = PatchSampler(patch_size, levels)
        self.network = network

    def forward(self, image: Tensor, lafs: Tensor) -> Tensor:
        out: Tensor = self.network(self.sampler(image, lafs))
        return out
