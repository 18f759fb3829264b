"""Does an exported file compute what the network computes?"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..inference import PatchNetwork
from ..patches import extract_patches
from ..pyramid import patch_pyramid

COUNTS = (1, 66)
SIZES = ((150, 101), (97, 260))
FRAMES = 33


def sample_patches(count: int, size: int) -> Tensor:
    """(count, 1, size, size) random patches with structure at several scales, in [0, 1]; always the same ones."""
    return _texture(count, (size, size))


def _texture(count: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    total = torch.zeros(count, 1, *size)
    for coarse in (12, 6, 3, 1):
        sides = [max(side // coarse, 1) for side in size]
        noise = torch.rand(count, 1, *sides, generator=generator)
        total += interpolate(noise, size, mode="bilinear", align_corners=False) / 4
    return total


def sample_frames(count: int, height: int, width: int) -> Tensor:
    """(count, 2, 3) random frames of all sizes and shapes, some reaching over the image's edge."""
    generator = torch.Generator().manual_seed(count)
    scale, turn, stretch, x, y = torch.rand(5, count, generator=generator)
    scale, stretch, turn = torch.exp(1 + 3 * scale), torch.exp(stretch - 0.5), 2 * math.pi * turn
    cos, sin = turn.cos(), turn.sin()
    axes = [scale * stretch * cos, scale / stretch * sin, -scale * stretch * sin, scale / stretch * cos]
    centres = torch.stack([x * width, y * height], 1)
    return torch.cat([torch.stack(axes, 1).reshape(-1, 2, 2), centres[:, :, None]], 2)


@torch.inference_mode()
def worst_difference(
    network: PatchNetwork, run: Callable[..., Tensor], *, with_patches: bool, angles: bool = False
) -> tuple[float, int]:
    """Largest absolute difference between the network and its exported form, and over how many patches.

    Args:
        network: the reference, in evaluation mode, float32.
        run: the exported form as a function of its inputs.
        with_patches: its inputs are an image and frames; the reference then extracts patches as `extract` does.
        angles: results are angles, compared on the circle.
    """
    worst, total = 0.0, 0
    for case in SIZES if with_patches else COUNTS:
        if isinstance(case, tuple):
            image, frames = _texture(1, case), sample_frames(FRAMES, *case)
            expected = network(extract_patches(patch_pyramid(image), frames, network.patch_size))
            found = run(image, frames)
        else:
            patches = sample_patches(case, network.patch_size)
            expected, found = network(patches), run(patches)
        difference = found - expected
        if angles:
            difference = torch.remainder(difference + math.pi, 2 * math.pi) - math.pi
        worst, total = max(worst, float(difference.abs().max())), total + len(expected)
        if found.shape != expected.shape or not bool(found.isfinite().all()):
            return math.inf, total
    return worst, total
