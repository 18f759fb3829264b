"""Crops out of stored patches with random changes of frame and of light; batched, on the patches' device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad

from .patchset import PATCH, STORED

MARGIN = STORED / PATCH


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
class Light:
    """How much brightness, sharpness and noise may change.

    Args:
        gamma: the exponent lies between exp(-gamma) and exp(gamma).
        shading: brightness may change across the patch by this share.
        blur: most share of a 5-tap binomial blur mixed in.
        noise: most deviation of the noise, as a share of the patch's own deviation.
    """

    gamma: float = 0.35
    shading: float = 0.3
    blur: float = 1.0
    noise: float = 0.25


def rotation_matrix(angle: Tensor) -> Tensor:
    """(N, 2, 2) of angles (N,) in radians, in the sense of frames: [[cos, sin], [-sin, cos]]."""
    return torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], dim=1).reshape(-1, 2, 2)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)


def random_tilt(count: int, tilt: float, generator: torch.Generator) -> Tensor:
    """(N, 2, 2) of unit determinant: symmetric stretches in random directions, axes up to `tilt` to one."""
    stretch = _uniform(count, 0, math.log(tilt), generator) / 2
    turn = rotation_matrix(_uniform(count, 0, 2 * math.pi, generator))
    return turn.mT @ torch.diag_embed(torch.stack([stretch.exp(), (-stretch).exp()], dim=1)) @ turn


def random_frames(count: int, warp: Warp, generator: torch.Generator) -> Tensor:
    """(N, 2, 3) frames relative to the stored patch's frame: [-1, 1]^2 is what an unchanged crop shows."""
    turn = rotation_matrix(torch.deg2rad(_uniform(count, -warp.rotation, warp.rotation, generator)))
    size = torch.exp2(_uniform(count, -warp.octaves, warp.octaves, generator))[:, None, None]
    shift = 2 / PATCH * warp.shift * (2 * torch.rand(count, 2, 1, generator=generator, device=generator.device) - 1)
    return torch.cat([size * random_tilt(count, warp.tilt, generator) @ turn, shift], dim=2)


def crop(stored: Tensor, frames: Tensor, size: int = PATCH) -> Tensor:
    """Sample 32x32 patches through frames within stored ones.

    Args:
        stored: (N, 64, 64), uint8 or float in [0, 1].
        frames: (N, 2, 3) relative to the stored patch's frame; the identity gives its inner half cell by cell.
        size: side of the crop.

    Returns:
        (N, 1, size, size) float32 in [0, 1]; beyond the stored margin the border repeats. Differentiable in `frames`.
    """
    pixels = stored[:, None].float() / (255 if stored.dtype == torch.uint8 else 1)
    grid = affine_grid(frames / MARGIN, [len(stored), 1, size, size], align_corners=False)
    return grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def flip_or_transpose(pairs: Tensor, generator: torch.Generator) -> Tensor:
    """(P, N, 1, S, S): transpose with probability a half and mirror with probability a half, alike along P."""
    count = pairs.shape[1]
    coins = torch.rand(2, count, generator=generator, device=generator.device) < 0.5
    pairs = torch.where(coins[0][None, :, None, None, None], pairs.mT, pairs)
    return torch.where(coins[1][None, :, None, None, None], pairs.flip(-1), pairs)


def relight(patches: Tensor, light: Light, generator: torch.Generator) -> Tensor:
    """Change the light and the sharpness of patches (N, 1, S, S) in [0, 1], each in its own way."""
    count, _, side, _ = patches.shape

    def draw(low: float, high: float) -> Tensor:
        return _uniform(count, low, high, generator)[:, None, None, None]

    out = patches.clamp(1e-3, 1).pow(draw(-light.gamma, light.gamma).exp())
    ramp = torch.linspace(-1, 1, side, device=patches.device)
    out = out * (1 + draw(-1, 1) * light.shading * ramp + draw(-1, 1) * light.shading * ramp[:, None])
    taps = out.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    soft = conv2d(pad(out, (2, 2, 2, 2), mode="replicate"), torch.outer(taps, taps)[None, None])
    # half of the patches stay as sharp as they are
    share = (draw(-1, 1) * light.blur).clamp(min=0)
    out = out + share * (soft - out)
    amount = (draw(-1, 1) * light.noise).clamp(min=0) * out.std(dim=(1, 2, 3), keepdim=True)
    return out + amount * torch.randn(out.shape, generator=generator, device=generator.device)
