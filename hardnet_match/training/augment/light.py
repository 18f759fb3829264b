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
        defocus: most standard deviation, in cells, of a Gaussian blur before all else: a place seen from afar or out of
            focus. Half of the patches stay as sharp as they are.
    """

    gamma: float = 0.35
    shading: float = 0.3
    blur: float = 1.0
    noise: float = 0.25
    defocus: float = 0.0


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
    sigma = None
    if light.defocus > 0:
        sigma = (draw(-1, 1) * light.defocus).clamp(min=0)
        sigma = sigma if rows is None else sigma[rows]
    drawn = torch.stack(values)[..., None, None, None]
    if patches.device.type != "cpu" or patches.requires_grad:
        return _relit(patches, drawn, grain, sigma)
    out = torch.empty_like(patches)
    for start in range(0, len(patches), CPU_TILE):
        part = slice(start, start + CPU_TILE)
        out[part] = _relit(patches[part], drawn[:, part], grain[part], None if sigma is None else sigma[part])
    return out


def _relit(patches: Tensor, drawn: Tensor, grain: Tensor, sigma: Tensor | None) -> Tensor:
    gamma, across, down, blur, noise = drawn
    if sigma is not None:
        patches = _defocused(patches, sigma)
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


def _defocused(patches: Tensor, sigma: Tensor) -> Tensor:
    """Each of (N, 1, S, S) under a Gaussian of its own standard deviation (N,) in cells; weights stay in the patch."""
    cells = torch.arange(patches.shape[-1], device=patches.device, dtype=patches.dtype)
    apart = (cells[:, None] - cells).square()
    weight = torch.exp(-apart / (2 * sigma.to(patches.dtype)[:, None, None].square()).clamp(min=1e-3))
    weight = (weight / weight.sum(dim=2, keepdim=True))[:, None]
    out: Tensor = weight @ patches @ weight.transpose(2, 3)
    return out
