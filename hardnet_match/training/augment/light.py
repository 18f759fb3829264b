"""Random changes of light and sharpness; batched, on the patches' device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from .frames import uniform


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
    count, _, side, _ = patches.shape
    count = count if rows is None else len(rows)

    def mine(values: Tensor) -> Tensor:
        return values if rows is None else values[rows]

    def draw(low: float, high: float) -> Tensor:
        return mine(uniform(count, low, high, generator))[:, None, None, None]

    out = patches.clamp(1e-3, 1).pow(draw(-light.gamma, light.gamma).exp())
    ramp = torch.linspace(-1, 1, side, device=patches.device)
    out = out * (1 + draw(-1, 1) * light.shading * ramp + draw(-1, 1) * light.shading * ramp[:, None])
    taps = out.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    soft = conv2d(pad(out, (2, 2, 2, 2), mode="replicate"), torch.outer(taps, taps)[None, None])
    # half of the patches stay as sharp as they are
    share = (draw(-1, 1) * light.blur).clamp(min=0)
    out = out + share * (soft - out)
    amount = (draw(-1, 1) * light.noise).clamp(min=0) * out.std(dim=(1, 2, 3), keepdim=True)
    grain = torch.randn((count, 1, side, side), generator=generator, device=generator.device)
    return out + amount * mine(grain)
