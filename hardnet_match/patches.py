"""Frames to patches: the hot path between detection and every network; and patches cut by others, made to fit it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 1024
"""Frames sampled at once: keeps the sampling grid at 8 MB, which the caches like better than one grid for all."""


def extract_patches(pyramid: list[Tensor], lafs: Tensor, patch_size: int = 32) -> Tensor:
    """Sample each frame's patch from the pyramid level that neither aliases nor blurs it.

    Cell (i, j) of a patch reads the image at c + A (u_j, u_i) with u_k = (2 k + 1) / P - 1; the level is
    floor(log2(2 s / P)) for s = sqrt|det A|. Outside the image the border pixel repeats. Values are those of
    `kornia.feature.extract_patches_from_pyramid`.

    Args:
        pyramid: levels of `pyramid.patch_pyramid`, each (1, 1, H, W).
        lafs: (N, 2, 3) float32 in pixels of the first level.
        patch_size: P, the patch's side in cells.

    Returns:
        (N, 1, P, P) patches.
    """
    height, width = pyramid[0].shape[-2:]
    patches = pyramid[0].new_empty((len(lafs), 1, patch_size, patch_size))
    if not len(lafs):
        return patches
    scale = torch.linalg.det(lafs[:, :, :2].double()).abs().sqrt()
    level = torch.log2((2 * scale / patch_size).clamp(min=1e-9)).floor().long().clamp(0, len(pyramid) - 1)
    steps = (2 * torch.arange(patch_size, device=lafs.device, dtype=lafs.dtype) + 1) / patch_size - 1
    size = lafs.new_tensor([width, height])
    # grid_sample's own coordinates: -1 and 1 are the outer edges of the border pixels, on every level alike.
    frames = torch.cat([lafs[:, :, :2], lafs[:, :, 2:] + 0.5], dim=2) * (2 / size)[None, :, None]
    for index, image in enumerate(pyramid):
        for rows in torch.split(torch.nonzero(level == index)[:, 0], _CHUNK):
            a = frames[rows]
            across = a[:, None, None, :, 0] * steps[None, None, :, None]
            down = a[:, None, None, :, 1] * steps[None, :, None, None] + (a[:, None, None, :, 2] - 1)
            grid = (across + down).reshape(1, len(rows) * patch_size, patch_size, 2)
            sampled = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
            patches[rows] = sampled.reshape(len(rows), 1, patch_size, patch_size)
    return patches


def fit_patches(stored: Tensor, size: int = 32) -> Tensor:
    """Patches of any side as a network takes them: bilinear, as the originals' `cv2.resize` does it (no smoothing
    first), but not rounded to whole grey levels.

    Args:
        stored: (N, w, w) uint8, or float in [0, 1].
        size: the network's side.

    Returns:
        (N, 1, size, size) float32 in [0, 1].
    """
    pixels = stored[:, None].float()
    if stored.dtype == torch.uint8:
        pixels = pixels / 255
    if stored.shape[-1] == size or not len(stored):
        return pixels.new_empty((0, 1, size, size)) if not len(stored) else pixels
    return F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False)
