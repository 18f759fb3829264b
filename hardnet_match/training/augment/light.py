"""Random changes of light and sharpness; batched, on the patches' device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from .frames import CPU_TILE, uniform


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


def relight(patches: Tensor, light: Light, generator: torch.Generator, rows: Tensor | None = None) -> Tensor:
    """Change the light and the sharpness of patches (N, 1, S, S) in [0, 1], each in its own way.

    Args:
        patches: what to change.
        light: how much.
        generator: of the draws.
        rows: (K,) bool with N true ones: the patches are these of K, and everything is drawn for all K. A part of a
            batch then looks as it does within the whole.
    """
    side = patches.shape[-1]
    count = len(patches) if rows is None else len(rows)

    def draw(low: float, high: float) -> Tensor:
        return uniform(count, low, high, generator)

    values = [
        draw(-light.gamma, light.gamma).exp(),
        light.shading * draw(-1, 1),
        light.shading * draw(-1, 1),
        # half of the patches stay as sharp as they are
        (draw(-1, 1) * light.blur).clamp(min=0),
        (draw(-1, 1) * light.noise).clamp(min=0),
    ]
    grain = torch.randn((count, 1, side, side), generator=generator, device=generator.device)
    if rows is not None:
        values, grain = [value[rows] for value in values], grain[rows]
    drawn = torch.stack(values)[..., None, None, None]
    if patches.device.type != "cpu" or patches.requires_grad:
        return _relit(patches, drawn, grain)
    out = torch.empty_like(patches)
    for start in range(0, len(patches), CPU_TILE):
        part = slice(start, start + CPU_TILE)
        out[part] = _relit(patches[part], drawn[:, part], grain[part])
    return out


def _relit(patches: Tensor, drawn: Tensor, grain: Tensor) -> Tensor:
    gamma, across, down, blur, noise = drawn
    ramp = torch.linspace(-1, 1, patches.shape[-1], device=patches.device)
    out = patches.clamp(1e-3, 1).pow(gamma)
    out = out * (1 + across * ramp + down * ramp[:, None])
    out = out + blur * (_softened(out) - out)
    lit: Tensor = out + noise * out.std(dim=(1, 2, 3), keepdim=True) * grain
    return lit


def _softened(patches: Tensor) -> Tensor:
    """The 5-tap binomial blur along both axes, the border repeated."""
    out = pad(patches, (2, 2, 2, 2), mode="replicate")
    for axis in (-1, -2):
        for _ in range(4):  # two neighbours' mean, four times, is the binomial of five
            cells = out.shape[axis] - 1
            out = (out.narrow(axis, 0, cells) + out.narrow(axis, 1, cells)) / 2
    return out
