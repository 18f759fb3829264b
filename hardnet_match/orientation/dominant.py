"""The dominant gradient direction of a patch, as SIFT orients its keypoints; no weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..gradients import gaussian_window, sobel
from ..inference import PatchNetwork, check_patches

BINS = 36


def _smoothing(variance: float) -> Tensor:
    """Discrete Gaussian of five taps (Lindeberg 1990), of sum 1."""
    x = torch.tensor(variance, dtype=torch.float64)
    i0, i1 = torch.special.i0e(x), torch.special.i1e(x)
    taps = torch.stack([i0 - 2 / x * i1, i1, i0, i1, i0 - 2 / x * i1])
    return (taps / taps.sum()).float()


class Dominant(PatchNetwork):
    """Peak of the gradient histogram (Lowe, IJCV 2004), 36 bins, smoothed, refined by a parabola.

    Patches (N, 1, 32, 32) to angles (N,) float32 in radians, composed with a frame as OriNet's: the frame's first
    axis then points along the dominant gradient, towards brighter values. A flat patch gives the same angle always.
    """

    window: Tensor
    smoothing: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", gaussian_window(self.patch_size, self.patch_size / 6), persistent=False)
        self.register_buffer("smoothing", _smoothing(1.6**2), persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        check_patches(patches, self.patch_size)
        gx, gy = sobel(patches.float())
        energy = gx.square() + gy.square()
        magnitude = (torch.where(energy > 0, (energy + 1e-8).sqrt(), 0.0) * self.window).flatten(1)
        position = (BINS * (torch.atan2(gy, gx + 1e-8) + math.pi) / (2 * math.pi)).flatten(1)
        lower = position.floor()
        share = position - lower
        lower_bin = lower.long() % BINS
        histogram = magnitude.new_zeros(patches.shape[0], BINS)
        histogram.scatter_add_(1, lower_bin, (1 - share) * magnitude)
        histogram.scatter_add_(1, (lower_bin + 1) % BINS, share * magnitude)
        smooth = sum(
            (tap * histogram.roll(shift - 2, dims=1) for shift, tap in enumerate(self.smoothing)),
            torch.zeros_like(histogram),
        )
        peak = smooth.argmax(dim=1, keepdim=True)
        centre, left, right = (smooth.gather(1, (peak + step) % BINS)[:, 0] for step in (0, -1, 1))
        curvature = left + right - 2 * centre
        offset = torch.where(curvature != 0, 0.5 * (left - right) / curvature, 0.0)
        return math.pi - 2 * math.pi * (peak[:, 0] + offset) / BINS
