"""Random frames within stored patches, and crops through them; batched, on the patches' device.

A frame (2, 3) is relative to the measurement region: [-1, 1]^2 through the identity is what a network is shown without
any change, and the stored patch spans [-margin, margin]^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from ..patchset import PATCH, STORED

MARGIN = STORED / PATCH
CPU_TILE = 64
"""Patches at a time on a processor, so that what lies between the steps stays in its cache."""


@dataclass(frozen=True)
class Warp:
    """How far a frame may be off; every draw is uniform within plus and minus the value.

    Args:
        rotation: degrees.
        octaves: of scale.
        shift: cells of the 32x32 patch, along each axis.
        tilt: most ratio of the two axes; its logarithm is uniform between 0 and this, in any direction.
    """

    rotation: float = 0.0
    octaves: float = 0.0
    shift: float = 0.0
    tilt: float = 1.0


@dataclass(frozen=True)
class PairWarps:
    """Changes of frame: mild for true second views, strong for a patch paired with itself."""

    second_view: Warp
    itself: Warp


DESCRIPTOR_WARPS = PairWarps(Warp(8, 0.15, 0.8, 1.15), Warp(15, 0.35, 2.0, 1.7))


def rotation_matrix(angle: Tensor) -> Tensor:
    """(N, 2, 2) of angles (N,) in radians, in the sense of frames: [[cos, sin], [-sin, cos]]."""
    return torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], dim=1).reshape(-1, 2, 2)


def uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """(N,) uniform draws on the generator's device."""
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)


def random_tilt(count: int, tilt: float, generator: torch.Generator, *, logarithmic: bool = True) -> Tensor:
    """(N, 2, 2) of unit determinant: symmetric stretches in random directions, axes up to `tilt` to one.

    Args:
        count: N.
        tilt: most ratio of the axes, at least one.
        generator: of the draws.
        logarithmic: the ratio's logarithm is uniform; else the ratio itself is, between 1/tilt and tilt, so that
            strong tilts are as frequent as slight ones (AffNet's training).
    """
    if logarithmic:
        stretch = uniform(count, 0, math.log(tilt), generator) / 2
    else:
        stretch = uniform(count, 1 / tilt, tilt, generator).log() / 2
    turn = rotation_matrix(uniform(count, 0, 2 * math.pi, generator))
    return turn.mT @ torch.diag_embed(torch.stack([stretch.exp(), (-stretch).exp()], dim=1)) @ turn


def random_frames(count: int, warp: Warp, generator: torch.Generator) -> Tensor:
    """(N, 2, 3) frames relative to the stored patch's frame: [-1, 1]^2 is what an unchanged crop shows."""
    turn = rotation_matrix(torch.deg2rad(uniform(count, -warp.rotation, warp.rotation, generator)))
    size = torch.exp2(uniform(count, -warp.octaves, warp.octaves, generator))[:, None, None]
    shift = 2 / PATCH * warp.shift * (2 * torch.rand(count, 2, 1, generator=generator, device=generator.device) - 1)
    return torch.cat([size * random_tilt(count, warp.tilt, generator) @ turn, shift], dim=2)


def paired_frames(itself: Tensor, warps: PairWarps, generator: torch.Generator) -> Tensor:
    """(N, 2, 3) random frames, the strong ones where `itself` (N,) bool says so."""
    mild = random_frames(len(itself), warps.second_view, generator)
    strong = random_frames(len(itself), warps.itself, generator)
    return torch.where(itself[:, None, None], strong, mild)


def random_resized_crop(
    count: int, area: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """(N, 2, 3) frames of random rectangles within the region.

    Args:
        count: N.
        area: range of the share of the region that a rectangle covers, uniform.
        ratio: range of width over height, its logarithm uniform. A side that would leave the region is cut to it.
        generator: of the draws.
    """
    share = uniform(count, *area, generator)
    aspect = uniform(count, math.log(ratio[0]), math.log(ratio[1]), generator).exp()
    half = torch.stack([(share * aspect).sqrt(), (share / aspect).sqrt()], dim=1).clamp(max=1)
    place = 2 * torch.rand(count, 2, generator=generator, device=generator.device) - 1
    return torch.cat([torch.diag_embed(half), (place * (1 - half))[:, :, None]], dim=2)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Frames (..., 2, 3) of crops of crops: what `inner` takes out of what `outer` shows."""
    axes = outer[..., :2] @ inner[..., :2]
    return torch.cat([axes, outer[..., :2] @ inner[..., 2:] + outer[..., 2:]], dim=-1)


def crop(
    stored: Tensor, frames: Tensor, size: int = PATCH, margin: float = MARGIN, *, padding: str = "border"
) -> Tensor:
    """Sample patches through frames within stored ones.

    A stored patch that is denser than the crop is sampled at as many times the resolution and averaged, so that
    fine texture does not alias: with margin 1, a 64x64 patch through the identity becomes the mean of its 2x2 cells.

    Args:
        stored: (N, S, S), uint8 or float in [0, 1].
        frames: (N, 2, 3) relative to the measurement region.
        size: side of the crop.
        margin: side of the stored patch over the side of the measurement region.
        padding: beyond the stored patch the `border` repeats, or there is its `reflection`.

    Returns:
        (N, 1, size, size) float32 in [0, 1]. Differentiable in `frames`.
    """
    finer = max(round(stored.shape[-1] / (margin * size)), 1)
    if stored.device.type != "cpu" or frames.requires_grad:
        return _crop(stored, frames / margin, size, finer, padding)
    out = torch.empty(len(stored), 1, size, size)
    for start in range(0, len(stored), CPU_TILE):
        part = slice(start, start + CPU_TILE)
        out[part] = _crop(stored[part], frames[part] / margin, size, finer, padding)
    return out


def _crop(stored: Tensor, frames: Tensor, size: int, finer: int, padding: str) -> Tensor:
    pixels = stored[:, None].float().div_(255) if stored.dtype == torch.uint8 else stored[:, None].float()
    grid = sampling_grid(frames, finer * size)
    out = grid_sample(pixels, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    return avg_pool2d(out, finer) if finer > 1 else out


def sampling_grid(frames: Tensor, size: int) -> Tensor:
    """(N, size, size, 2) cell centres through frames (N, 2, 3): `affine_grid`, by one sum in place of a product."""
    steps = (2 * torch.arange(size, device=frames.device, dtype=frames.dtype) + 1) / size - 1
    across = steps[:, None] * frames[:, None, :, 0]
    down = steps[:, None] * frames[:, None, :, 1] + frames[:, None, :, 2]
    return across[:, None] + down[:, :, None]
